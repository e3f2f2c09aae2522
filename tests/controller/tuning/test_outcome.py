"""What a live fine-tuning tells of itself, while it runs and afterwards."""

from pathlib import Path

import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout
from controller.tuning.board import Rates, words
from controller.tuning.live import Look
from controller.tuning.outcome import publish_to_action_ms
from controller.tuning.settings import LivePlan
from controller.tuning.watch import NEWEST, Seen, Watch
from tests.controller.records import header, tick, written

MS = 1_000_000
T0 = MonotonicClock().now_ns()


def plan(out: Path, **more) -> LivePlan:
    return LivePlan(settings=out / "finetune.yaml", out=out, task="none", replay="ipc:///x", **more)


def log_of(out: Path, name: str, versions: list[str]) -> None:
    """Write a log with a tick each 10 ms."""
    directory = out / "actors" / name
    directory.mkdir(parents=True)
    ticks = [
        tick(n, version=v, sent_ns=T0 + 10 * n * MS, deadline_ns=T0 + 10 * n * MS - MS)
        for n, v in enumerate(versions)
    ]
    written(directory / "log.mcap", ticks, header())


def test_the_way_of_a_version_to_the_robot_is_timed_at_every_actor(tmp_path):
    log_of(tmp_path, "actor-0", ["a"] * 5 + ["b"] * 3 + ["a"] * 2)
    log_of(tmp_path, "actor-1", ["a"] * 6 + ["b"] * 2 + ["a"] * 2)
    published = [("b", T0 + 43 * MS), ("a", T0 + 72 * MS)]
    delays = publish_to_action_ms(plan(tmp_path, num_actors=2), published)
    assert delays == pytest.approx([7.0, 8.0, 17.0, 8.0])


def test_a_version_that_was_followed_before_it_acted_has_no_time(tmp_path):
    log_of(tmp_path, "actor-0", ["a", "c", "c"])
    published = [("b", T0 + 2 * MS), ("c", T0 + 3 * MS), ("d", T0 + 18 * MS)]
    assert publish_to_action_ms(plan(tmp_path), published) == pytest.approx([7.0])


def test_without_logs_or_in_lockstep_there_are_no_times(tmp_path):
    published = [("b", T0)]
    assert publish_to_action_ms(plan(tmp_path), published) == []
    log_of(tmp_path, "actor-0", ["a", "b"])
    assert publish_to_action_ms(plan(tmp_path, realtime=False), published) == []


def test_rates_are_those_of_the_counters():
    rates = Rates()
    for now_s in range(20):
        rates.take(float(now_s), 100 * now_s, 30 * now_s)
    assert (rates.steps_hz, rates.updates_hz) == pytest.approx((100.0, 30.0))


def test_looks_close_together_do_not_make_a_rate_jump():
    rates = Rates()
    rates.take(0.0, 0, 0)
    rates.take(0.001, 50, 50)
    assert (rates.steps_hz, rates.updates_hz) == (0.0, 0.0)
    rates.take(2.0, 50, 50)
    assert (rates.steps_hz, rates.updates_hz) == (25.0, 25.0)


def look(stats: dict, returns: tuple[float, ...] = (), elapsed_s: float = 9.0) -> Look:
    return Look(Seen(stats, returns, len(returns)), elapsed_s, ticks=400, missed=1, actors=2)


def test_the_terminal_shows_the_counters(tmp_path):
    stats = {
        "inserted": 12_000,
        "updates": 9_000,
        "samples_per_insert": 96.4,
        "staleness_p50": 3,
        "version": "v0007-12345678",
        "rollbacks": 1,
        "queue": {"waiting_p50": 1, "waiting_p95": 4},
    }
    shown = " | ".join(words(plan(tmp_path), look(stats, (1.0, 3.0)), Rates(), 128.0))
    for part in (
        "12,000 steps",
        "9,000 updates",
        "96.4 samples per insert (target 128)",
        "version v0007-12345678",
        "staleness 3",
        "rollbacks 1",
        "episodes 2",
        "return 2 ",
        "actors 2",
        "tick 400 · missed 1 (0.25%)",
        "waiting at the replay service: 1 (p95 4)",
    ):
        assert part in shown, shown


def test_before_the_first_answer_and_while_the_learner_prepares_it_says_so(tmp_path):
    lockstep = plan(tmp_path, realtime=False)
    assert words(lockstep, look({}), Rates(), 1.0) == ["starting"]
    (line,) = words(lockstep, look({"inserted": 0}, elapsed_s=0.0), Rates(), 1.0)
    assert line.startswith("the learner prepares")


class Service:
    """Tells of episodes 0, 1, 2 ... as they are added, and forgets when told to."""

    def __init__(self) -> None:
        self.returns: list[float] = []
        self.dead = False

    def __call__(self, verb: str, args: dict[str, str]) -> dict:
        if self.dead:
            raise PeerTimeout("dead")
        if verb == "stats":
            return {"inserted": len(self.returns)}
        newer = self.returns[int(args["since"]) :]
        return {"episodes": [{"return": r} for r in newer], "next": len(self.returns)}


def test_the_mean_return_is_that_of_the_newest_episodes():
    service = Service()
    watch = Watch(service)
    assert watch.look().return_mean is None
    for number in range(3 * NEWEST):
        service.returns.append(float(number))
        watch.look()
    seen = watch.seen
    assert seen.episodes == seen.env_steps == 3 * NEWEST
    assert seen.return_mean == np.mean(service.returns[-NEWEST:])


def test_what_a_dead_service_said_last_stays():
    service = Service()
    watch = Watch(service)
    service.returns.append(7.0)
    before = watch.look()
    service.dead = True
    assert watch.look() == before
    assert watch.seen.return_mean == 7.0


def test_a_service_that_lost_its_newest_episodes_is_followed_again():
    service = Service()
    watch = Watch(service)
    service.returns = [1.0, 2.0, 3.0]
    watch.look()
    service.returns = [1.0]
    watch.look()
    service.returns = [1.0, 5.0]
    assert watch.look().returns == (5.0,)
