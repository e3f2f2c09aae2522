import time

import numpy as np
import pytest

from controller.chunk_settings import ChunkSettings
from controller.clock import MonotonicClock, VirtualClock
from controller.conformance import check_policy
from controller.delayed import MAX_WAITING, DelayedPolicy
from controller.errors import Refused
from controller.interfaces import AheadPolicy, Policy
from controller.loop import ControlLoop, LoopConfig
from controller.testing import FakePlant, FakePolicy, ListSink
from controller.types import Observation, Reason, Rejected, Request, Rung

MS = 1_000_000
OBSERVATION = Observation((np.array([0.1, 0.2]), np.array([0.4, 0.4])), 0)


def request(tick, deadline_ms=1000):
    return Request(tick, 3, OBSERVATION, 0, deadline_ms * MS)


def delayed(delay_ms, clock=None, seed=0, **script):
    clock = clock or VirtualClock()
    delay = delay_ms * MS if isinstance(delay_ms, int) else delay_ms
    inner = FakePolicy(clock=clock, horizon=3, **script)
    return DelayedPolicy(inner, clock, delay, seed=seed), clock


def test_it_is_a_policy_that_can_be_asked_ahead():
    policy, clock = delayed(2)
    assert isinstance(policy, Policy)
    assert isinstance(policy, AheadPolicy)
    check_policy(policy, OBSERVATION, clock=clock)


def test_the_answer_is_the_policys_own_and_comes_after_the_delay():
    policy, clock = delayed(7)
    chunk = policy.infer(request(4))
    assert clock.now_ns() == 7 * MS
    assert chunk.rtt_ns == 7 * MS
    assert chunk.actions.tolist() == FakePolicy(horizon=3).infer(request(4)).actions.tolist()
    assert policy.newest_chunk is chunk


def test_computing_counts_towards_the_delay():
    policy, clock = delayed(7, costs_ns={0: 3 * MS, 1: 9 * MS})
    assert policy.infer(request(0)).rtt_ns == 7 * MS
    assert policy.infer(request(1)).rtt_ns == 9 * MS
    assert clock.now_ns() == 16 * MS


def test_an_answer_behind_the_deadline_arrives_later_as_the_newest_chunk():
    policy, clock = delayed(7)
    assert policy.infer(request(0, deadline_ms=5)) is None
    assert clock.now_ns() == 5 * MS
    assert policy.newest_chunk is None
    clock.advance(2 * MS)
    assert policy.newest_chunk.tick == 0
    assert (policy.newest_chunk.rtt_ns, policy.late) == (7 * MS, 1)


def test_asked_ahead_nothing_waits_and_answers_come_in_the_order_they_are_due():
    policy, clock = delayed(lambda r: (9 * MS, 4 * MS, None, 4 * MS)[r.tick])
    assert all(policy.submit(request(tick)) for tick in range(4))
    assert clock.now_ns() == 0
    assert policy.poll() is None
    clock.advance(4 * MS)
    assert [policy.poll().tick, policy.poll().tick, policy.poll()] == [1, 3, None]
    clock.advance(5 * MS)
    assert (policy.poll().tick, policy.poll()) == (0, None)
    assert policy.newest_chunk.tick == 3


def test_a_lost_answer_costs_infer_its_deadline():
    policy, clock = delayed(lambda r: None)
    assert policy.infer(request(0, deadline_ms=5)) is None
    assert clock.now_ns() == 5 * MS


def test_a_failure_is_told_when_the_answer_would_be_due():
    policy, clock = delayed(3, outcomes={0: "refused", 1: "timeout", 2: "bug"})
    for tick in (0, 1):
        assert policy.submit(request(tick))
    assert policy.poll() is None
    clock.advance(3 * MS)
    assert policy.poll() == Rejected(0, Reason.REFUSED, "Refused: the server is loading")
    assert policy.poll() == Rejected(1, Reason.LATE, "PeerTimeout: no answer")
    with pytest.raises(AssertionError, match="a bug of ours"):
        policy.submit(request(2))
    with pytest.raises(Refused):
        policy.infer(request(0))


def test_delays_drawn_from_a_list_depend_on_seed_and_tick_alone():
    trace = [1 * MS, 5 * MS, 20 * MS]
    policy, _ = delayed(trace, seed=4)
    drawn = [policy.delay_ns(request(tick)) for tick in range(400)]
    assert drawn == [policy.delay_ns(request(tick)) for tick in range(400)]
    assert {ns: drawn.count(ns) / 400 for ns in trace} == pytest.approx(
        dict.fromkeys(trace, 1 / 3), abs=0.1
    )
    other, _ = delayed(trace, seed=5)
    assert drawn != [other.delay_ns(request(tick)) for tick in range(400)]


def test_answers_that_nobody_collects_are_bounded():
    policy, clock = delayed(1)
    for tick in range(3 * MAX_WAITING):
        policy.submit(request(tick))
    clock.advance(MS)
    count = 0
    while policy.poll() is not None:
        count += 1
    assert count == MAX_WAITING


class Remote(FakePolicy):
    """Can be asked ahead itself, and answers at the first look."""

    box: tuple = ()

    def submit(self, request):
        self.box = (*self.box, request)
        return True

    def poll(self):
        if not self.box:
            return None
        first, self.box = self.box[0], self.box[1:]
        return self.infer(first) or Rejected(first.tick, Reason.LATE)


def test_a_policy_that_can_be_asked_ahead_is():
    clock = VirtualClock()
    inner = Remote(clock=clock, horizon=3, outcomes={2: "silent"})
    policy = DelayedPolicy(inner, clock, lambda r: None if r.tick == 1 else 5 * MS)
    for tick in range(3):
        assert policy.submit(request(tick))
    assert policy.poll() == Rejected(2, Reason.LATE)
    assert policy.poll() is None
    clock.advance(5 * MS)
    assert policy.poll().tick == 0
    assert policy.poll() is None


def test_real_time_is_waited_for_too():
    clock = MonotonicClock()
    policy = DelayedPolicy(FakePolicy(), clock, 5 * MS)
    asked_ns = clock.now_ns()
    assert policy.infer(Request(0, 3, OBSERVATION, 0, asked_ns + 10**10)).tick == 0
    assert clock.now_ns() - asked_ns >= 5 * MS
    policy.submit(Request(1, 3, OBSERVATION, 0, asked_ns + 10**10))
    assert policy.poll() is None
    time.sleep(0.006)
    assert policy.poll().tick == 1


def run(delay_ms, horizon, chunks, seed=0):
    clock, sink, plant = VirtualClock(), ListSink(), FakePlant(episode_steps=60)
    delay = [ms * MS for ms in delay_ms]
    policy = DelayedPolicy(FakePolicy(clock=clock, horizon=horizon), clock, delay, seed=seed)
    config = LoopConfig(chunks=chunks)
    ControlLoop(plant, policy, sink, clock, config, seed=7).run(episodes=2)
    return sink.records


@pytest.mark.parametrize(
    ("delay_ms", "horizon", "ask", "rung"),
    [
        ((0,), 1, "each_tick", Rung.FRESH),
        ((5,), 1, "each_tick", Rung.FRESH),
        ((15,), 1, "each_tick", Rung.HOLD),  # longer than a period: never in time
        ((15,), 8, "each_tick", Rung.TAIL),
        ((15,), 8, "ahead", Rung.FRESH),
        ((35,), 8, "ahead", Rung.FRESH),
    ],
)
def test_what_latency_does_to_the_rungs_of_a_run_in_lockstep(delay_ms, horizon, ask, rung):
    records = run(delay_ms, horizon, ChunkSettings(ask=ask))
    rungs = [record.rung for record in records]
    assert rungs.count(rung) / len(rungs) > 0.8


def test_the_same_latencies_make_the_same_run():
    chunks = ChunkSettings(ask="ahead", blend=2, prefix=4)
    first, again, other = (run((5, 25, 60), 8, chunks, seed) for seed in (0, 0, 1))
    bits = [b"".join(r.executed.tobytes() for r in records) for records in (first, again, other)]
    assert bits[0] == bits[1]
    assert bits[0] != bits[2]
