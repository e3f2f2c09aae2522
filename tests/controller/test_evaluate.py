"""What the complete episodes in a log came to."""

from controller.evaluate import figures_of
from tests.controller.records import tick, written


def test_each_complete_episode_counts_once_by_the_tick_that_ended_it(tmp_path):
    records = [tick(n, episode=0, step=n, episode_return=2.0 * n) for n in range(4)]
    records.append(tick(4, episode=0, step=4, episode_return=9.0, truncated=True, success=True))
    # The loop holds on a finished episode for a tick, and leaves the last one unfinished.
    records.append(tick(5, episode=0, step=4, episode_return=9.0, truncated=True, success=True))
    records += [tick(6 + n, episode=1, step=n, episode_return=0.5) for n in range(2)]
    records.append(tick(8, episode=1, step=2, episode_return=1.0, terminated=True))
    records += [tick(9 + n, episode=2, step=n, episode_return=500.0) for n in range(3)]
    got = figures_of(written(tmp_path / "log.mcap", records), (0.0, 10.0), has_success=True)
    assert got.episode_returns == [9.0, 1.0]
    assert (got.length_mean, got.success, got.score_mean) == (3.0, 0.5, 50.0)


def test_success_is_null_for_a_task_without(tmp_path):
    records = [tick(0, episode=0, step=1, terminated=True)]
    log = written(tmp_path / "log.mcap", records)
    assert figures_of(log, None, has_success=False).success is None
