"""Logs as rows to learn from: which are found, what is used of them, what is held out."""

import numpy as np
import pytest

from controller.errors import DataError, LogError, SpecMismatch
from controller.feed.rows import RowKind
from policies.finetuning.logged import (
    RUN_EPISODE,
    logs_at,
    read_logs,
    require_enough,
    split,
)
from policies.finetuning.rules import Rules
from policies.finetuning.settings import RowRules
from tests.controller.records import SPEC as OTHER
from tests.controller.records import written
from tests.policies.finetuning.experience import logs_of, toy_header, toy_log, toy_tick
from tests.policies.robots import SPEC, toy_data


def test_a_directory_stands_for_the_runs_in_it(tmp_path):
    for name in ("a", "b"):
        toy_log(tmp_path / name / "log.mcap", 5, 1)
    one, other = (tmp_path / name / "log.mcap" for name in ("a", "b"))
    assert logs_at(tmp_path) == [one, other]
    assert logs_at(tmp_path / "a") == [one]
    assert logs_at(other) == [other]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="empty is a directory, expected logs of runs"):
        logs_at(tmp_path / "empty")
    with pytest.raises(LogError, match="nothing: no such log or directory"):
        logs_at(tmp_path / "nothing")


def test_runs_are_joined_and_one_named_twice_counts_once(tmp_path):
    for name in ("a", "b"):
        toy_log(tmp_path / name / "log.mcap", 60, 3)
    logs = read_logs([tmp_path, tmp_path / "a"], SPEC)
    # 20 ticks of an episode are 19 rows.
    assert len(logs.rows) == 2 * 3 * 19
    assert len(logs.files) == 2
    assert logs.rows.info[RUN_EPISODE].tolist() == np.repeat(np.arange(6), 19).tolist()
    assert logs.notes == ()
    kinds = logs.rows.info["kind"]
    assert set(kinds.tolist()) == {RowKind.POLICY, RowKind.FALLBACK}


def test_a_cut_log_is_used_up_to_its_damage(tmp_path):
    path = toy_log(tmp_path / "log.mcap", 200, 1).path
    blob = path.read_bytes()
    path.write_bytes(blob[: len(blob) * 2 // 3])
    logs = read_logs([path], SPEC)
    assert 0 < len(logs.rows) < 199
    assert "used up to its damage" in logs.notes[0]
    assert str(path) in logs.notes[0]


def test_one_that_cannot_be_read_is_left_out_beside_others(tmp_path):
    toy_log(tmp_path / "a" / "log.mcap", 20, 1)
    broken = tmp_path / "b" / "log.mcap"
    broken.parent.mkdir()
    broken.write_bytes(b"no log at all")
    logs = read_logs([tmp_path / "a", tmp_path / "b"], SPEC)
    assert len(logs.files) == 1
    assert logs.notes[0].startswith("left out: ")
    with pytest.raises(LogError, match="not an MCAP file"):
        read_logs([broken], SPEC)


def test_another_robots_log_is_refused(tmp_path):
    written(tmp_path / "log.mcap", [], toy_header(spec=OTHER))
    with pytest.raises(SpecMismatch, match=r"log\.mcap"):
        read_logs([tmp_path / "log.mcap"], SPEC)


def test_a_log_without_rows_is_an_error_that_names_it(tmp_path):
    written(tmp_path / "log.mcap", [toy_tick(0)], toy_header())
    with pytest.raises(DataError, match=r"no row of the logs can be learned from: .*log\.mcap"):
        read_logs([tmp_path / "log.mcap"], SPEC)


def test_whole_episodes_are_held_out():
    logs = logs_of(toy_data(1000))
    parts = split(logs, Rules(RowRules()), 0.1, seed=3)
    assert (len(parts.held_out), len(parts.teaching)) == (100, 900)
    same = {tuple(row) for row in parts.teaching.observations} & {
        tuple(row) for row in parts.held_out.observations
    }
    assert not same
    assert len(parts.held_out.starts) == 2
    again, other = (split(logs, Rules(RowRules()), 0.1, seed=seed) for seed in (3, 4))
    assert np.array_equal(again.held_out.observations, parts.held_out.observations)
    assert not np.array_equal(other.held_out.observations, parts.held_out.observations)


def test_of_two_episodes_one_is_held_out_and_of_one_its_end():
    assert len(split(logs_of(toy_data(100)), Rules(RowRules()), 0.1, 0).held_out) == 50
    one = split(logs_of(toy_data(50)), Rules(RowRules()), 0.1, 0)
    assert np.array_equal(one.held_out.observations, toy_data(50).observations[45:])
    assert one.teaching.timeouts[-1]
    none = split(logs_of(toy_data(50)), Rules(RowRules()), 0.0, 0)
    assert (len(none.held_out), len(none.teaching)) == (0, 50)


def test_too_little_to_learn_from_is_said_with_the_counts():
    rules = RowRules()
    few = split(logs_of(toy_data(50), RowKind.POLICY), Rules(rules), 0.1, 0)
    with pytest.raises(DataError, match=r"45 rows .* fewer than the 128 .* 50 policy \(imitate\)"):
        require_enough(few, 128, imitates=True, offline=False)
    dropped = split(logs_of(toy_data(50), RowKind.UNAPPLIED), Rules(rules), 0.1, 0)
    with pytest.raises(DataError, match=r"teaches anything: they hold 50 unapplied \(drop\)"):
        require_enough(dropped, 1, imitates=True, offline=True)
    held = split(logs_of(toy_data(500), RowKind.FALLBACK), Rules(rules), 0.1, 0)
    with pytest.raises(DataError, match=r"action to imitate: they hold 500 fallback \(value\)"):
        require_enough(held, 32, imitates=True, offline=False)
    require_enough(held, 32, imitates=True, offline=True)
    require_enough(held, 32, imitates=False, offline=False)


def late_log(path, ticks=40, lag=1):
    """Write one episode in which every command acts ``lag`` steps late."""
    records = [toy_tick(n, applied_tick=n - 1 - lag if n > lag else -1) for n in range(ticks)]
    path.parent.mkdir(parents=True, exist_ok=True)
    return written(path, records, toy_header())


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_critics_learn_from_the_command_that_acted_and_the_policy_from_its_answer(tmp_path, lag):
    log = late_log(tmp_path / "log.mcap", lag=lag)
    logs = read_logs([log.path], SPEC)
    # What acted in the first steps was the plant's own: no tick of the log says what.
    unknown = [RowKind.UNAPPLIED] * lag
    assert logs.rows.info["kind"].tolist() == unknown + [RowKind.POLICY] * (39 - lag)
    parts = split(logs, Rules(RowRules()), 0.0, 0)
    assert np.array_equal(parts.teaching.actions, log.executed[: 39 - lag])
    assert np.array_equal(parts.imitated.actions, log.executed[lag:39])
    assert np.array_equal(parts.teaching.observations, parts.imitated.observations)
    assert parts.alike == (lag == 0)


def test_a_command_of_the_episode_before_is_not_known_to_have_acted(tmp_path):
    records = [toy_tick(n, episode=n // 10, applied_tick=n - 2) for n in range(20)]
    rows = read_logs([written(tmp_path / "log.mcap", records, toy_header()).path], SPEC).rows
    kinds = dict(zip(rows.info["tick"].tolist(), rows.info["kind"].tolist(), strict=True))
    assert [tick for tick, kind in kinds.items() if kind == RowKind.UNAPPLIED] == [0, 10]
