from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.answers import reason_of
from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.clock import VirtualClock
from controller.errors import ConfigError, PeerTimeout, Refused, SpecMismatch, WireError
from controller.ladder import Ladder, Notices, Patience
from controller.observation_age import CREDIBLE_STAMP_NS, ObservationAge
from controller.pacing import Tick
from controller.testing import FakePolicy, ListSink, example_spec
from controller.types import Observation, Reason, Request, Rung

MS = 1_000_000
PERIOD = 10 * MS
SAFE = np.zeros(2, np.float32)


class Bench:
    """A ladder under a virtual clock, driven tick by tick with fresh observations."""

    def __init__(self, policy=None, local=None, clock=None, stop_after_ms=100, **settings):
        self.clock = clock or VirtualClock()
        self.sink = ListSink()
        self.policy = policy or FakePolicy(clock=self.clock)
        self.ladder = Ladder(
            self.policy,
            local,
            example_spec(),
            self.clock,
            seed=3,
            patience=Patience(PERIOD, 6 * MS, 50 * MS, stop_after_ms * MS),
            safe=SAFE,
            notify=Notices(self.sink, self.clock),
            **settings,
        )

    def tick(self, index):
        self.clock.sleep_until(index * PERIOD)
        return Tick(index, index * PERIOD, self.clock.now_ns())

    def observation(self, step, episode=0, position=(0.1, 0.2)):
        arrays = (np.array(position), np.array([0.4, 0.4]))
        return Observation(arrays, self.clock.now_ns(), episode=episode, step=step)

    def decide(self, index, **changes):
        tick = self.tick(index)
        return self.ladder.decide(tick, self.observation(index, **changes))


def scripted(outcomes, horizon=1, version="fake-1"):
    clock = VirtualClock()
    policy = FakePolicy(clock=clock, outcomes=outcomes, horizon=horizon, version=version)
    return policy, clock


def test_fresh():
    bench = Bench()
    bench.policy._costs_ns = {0: 2 * MS}
    decision = bench.decide(0)
    (request,) = bench.policy.requests
    assert (request.tick, request.seed, request.deadline_ns) == (0, 3, 6 * MS)
    assert decision.rung is Rung.FRESH
    assert decision.reasons == Reason.NONE
    assert (decision.version, decision.answer_tick, decision.evaluations) == ("fake-1", 0, 1)
    assert (decision.queue_ns, decision.infer_ns, decision.rtt_ns) == (0, 2 * MS, 2 * MS)
    assert np.allclose(decision.requested, [0.3, 0.2], atol=0.05)


def test_the_request_tells_the_age_of_the_observation():
    bench = Bench()
    observation = bench.observation(0)
    bench.clock.advance(3 * MS)
    bench.ladder.decide(Tick(0, 0, 3 * MS), observation)
    assert bench.policy.requests[0].age_ns == 3 * MS


@pytest.mark.parametrize(
    ("outcome", "reason", "event"),
    [
        ("late", Reason.LATE, None),
        ("silent", Reason.UNREACHABLE, None),
        ("timeout", Reason.LATE, "PeerTimeout: no answer"),
        ("refused", Reason.REFUSED, "Refused: the server is loading"),
        ("garbage", Reason.REFUSED, "WireError: not a message"),
        ("crash", Reason.REFUSED, "RuntimeError: out of memory"),
        ("nan", Reason.NONFINITE, "answer is not finite"),
        ("shape", Reason.REFUSED, "answer of shape [1, 1] float32, expected [horizon, 2] float32"),
        ("dtype", Reason.REFUSED, "answer of shape [1, 2] float64, expected [horizon, 2] float32"),
        ("tick", Reason.LATE, "answer to tick -1, expected 0"),
    ],
)
def test_each_way_to_have_no_answer_holds_with_its_reason(outcome, reason, event):
    policy, clock = scripted({0: outcome})
    bench = Bench(policy, clock=clock)
    decision = bench.decide(0)
    assert decision.rung is Rung.HOLD
    assert decision.reasons == reason
    assert decision.requested is SAFE
    assert (decision.version, decision.answer_tick, decision.infer_ns) == ("", -1, -1)
    assert [detail for _, _, detail in bench.sink.events] == ([event] if event else [])
    assert bench.decide(1).rung is Rung.FRESH


def test_a_bug_of_ours_is_not_swallowed():
    policy, clock = scripted({0: "bug"})
    with pytest.raises(AssertionError, match="a bug of ours"):
        Bench(policy, clock=clock).decide(0)


def test_the_tail_of_the_newest_chunk_bridges_its_horizon_and_no_more():
    policy, clock = scripted(dict.fromkeys((2, 3, 4, 5), "late"), horizon=3)
    bench = Bench(policy, clock=clock)
    decisions = [bench.decide(k) for k in range(7)]
    assert [d.rung.name for d in decisions] == [
        *("FRESH", "FRESH", "TAIL", "TAIL", "HOLD", "HOLD", "FRESH")
    ]
    assert [d.answer_tick for d in decisions] == [0, 1, 1, 1, -1, -1, 6]
    assert decisions[2].reasons == Reason.LATE
    assert (decisions[2].version, decisions[2].infer_ns) == ("fake-1", -1)
    chunk = FakePolicy(horizon=3).infer(policy.requests[1])
    assert np.array_equal(decisions[2].requested, chunk.actions[1])
    assert np.array_equal(decisions[3].requested, chunk.actions[2])


class Remembering(FakePolicy):
    """Keeps answers that come after their deadline, as a remote policy does."""

    newest_chunk = None
    ready = True

    def answer_late(self, tick, observation, outcome="ok"):
        twin = FakePolicy(horizon=3, outcomes={tick: outcome})
        self.newest_chunk = twin.infer(Request(tick, 3, observation, 0, 0))


def test_the_tail_of_a_late_answer_is_used():
    clock = VirtualClock()
    policy = Remembering(clock=clock, outcomes=dict.fromkeys(range(9), "late"), horizon=3)
    bench = Bench(policy, clock=clock)
    assert bench.decide(0).rung is Rung.HOLD
    policy.answer_late(0, policy.requests[0].observation)
    decisions = [bench.decide(k) for k in (1, 2, 3)]
    assert [d.rung for d in decisions] == [Rung.TAIL, Rung.TAIL, Rung.HOLD]
    assert np.array_equal(decisions[1].requested, policy.newest_chunk.actions[2])
    assert decisions[1].answer_tick == 0


@pytest.mark.parametrize("outcome", ["nan", "shape", "dtype"])
def test_a_late_answer_that_is_no_action_has_no_tail(outcome):
    clock = VirtualClock()
    policy = Remembering(clock=clock, outcomes={0: "late", 1: "late"})
    bench = Bench(policy, clock=clock)
    bench.decide(0)
    policy.answer_late(0, policy.requests[0].observation, outcome)
    assert bench.decide(1).rung is Rung.HOLD


def test_a_late_answer_of_the_episode_before_has_no_tail():
    clock = VirtualClock()
    policy = Remembering(clock=clock, outcomes={0: "late", 1: "late", 2: "late"})
    bench = Bench(policy, clock=clock)
    bench.decide(0)
    policy.answer_late(0, policy.requests[0].observation)
    assert bench.decide(1, episode=1).rung is Rung.HOLD
    policy.answer_late(1, policy.requests[1].observation)
    assert bench.decide(2, episode=1).rung is Rung.TAIL


def test_a_late_answer_does_not_replace_a_newer_timely_one():
    clock = VirtualClock()
    policy = Remembering(clock=clock, outcomes={0: "late", 2: "late"}, horizon=3)
    bench = Bench(policy, clock=clock)
    bench.decide(0)
    bench.decide(1)
    policy.answer_late(0, policy.requests[0].observation)
    assert bench.decide(2).answer_tick == 1


def test_silence_without_a_session_is_told_from_a_late_answer():
    policy = Remembering(outcomes={0: "late", 1: "late"})
    bench = Bench(policy)
    assert bench.decide(0).reasons == Reason.LATE
    policy.ready = False
    assert bench.decide(1).reasons == Reason.UNREACHABLE


def test_a_tail_ends_with_its_episode():
    policy, clock = scripted({1: "late"}, horizon=3)
    bench = Bench(policy, clock=clock)
    assert bench.decide(0).rung is Rung.FRESH
    assert bench.decide(1, episode=1).rung is Rung.HOLD


def test_the_local_replica_comes_after_the_tail():
    policy, clock = scripted({1: "late", 2: "refused"}, horizon=2)
    bench = Bench(policy, FakePolicy(version="replica", clock=clock), clock)
    decisions = [bench.decide(k) for k in range(3)]
    assert [d.rung for d in decisions] == [Rung.FRESH, Rung.TAIL, Rung.LOCAL]
    assert decisions[2].reasons == Reason.REFUSED
    assert (decisions[2].version, decisions[2].answer_tick) == ("replica", 2)


def test_a_replica_that_fails_too_adds_its_reason():
    policy, clock = scripted({0: "late"})
    local = FakePolicy(clock=clock, outcomes={0: "nan"})
    decision = Bench(policy, local, clock).decide(0)
    assert decision.rung is Rung.HOLD
    assert decision.reasons == Reason.LATE | Reason.NONFINITE


def test_an_observation_that_is_not_finite_is_not_sent_to_anyone():
    bench = Bench()
    decision = bench.decide(0, position=(np.nan, 0.0))
    assert (decision.rung, decision.reasons) == (Rung.HOLD, Reason.NONFINITE)
    assert bench.policy.requests == []


def test_an_observation_grows_stale():
    bench = Bench()
    observation = bench.observation(0)
    rungs = [bench.ladder.decide(bench.tick(k), observation) for k in range(8)]
    assert [d.rung is Rung.FRESH for d in rungs] == [True] * 6 + [False] * 2
    assert rungs[6].reasons == Reason.STALE


def test_an_answer_to_an_observation_that_grew_stale_meanwhile_is_not_used():
    bench = Bench()
    bench.policy._costs_ns = {0: 51 * MS}
    decision = bench.decide(0)
    assert (decision.rung, decision.reasons) == (Rung.HOLD, Reason.LATE)
    assert decision.rtt_ns == 51 * MS


def test_the_stop_latches_after_enough_silence():
    policy, clock = scripted(dict.fromkeys(range(2, 12), "late"))
    bench = Bench(policy, clock=clock, stop_after_ms=100)
    decisions = [bench.decide(k) for k in range(14)]
    assert [d.rung.name for d in decisions] == ["FRESH"] * 2 + ["HOLD"] * 9 + ["STOP"] * 3
    assert bench.ladder.latched == Reason.LATE
    assert decisions[-1].reasons == Reason.LATE
    assert len(policy.requests) == 12  # nobody is asked once it has latched


def test_an_action_between_begins_the_count_anew():
    outcomes = {k: "late" for k in range(40) if k % 10 != 9}
    policy, clock = scripted(outcomes)
    bench = Bench(policy, clock=clock, stop_after_ms=100)
    assert Rung.STOP not in {bench.decide(k).rung for k in range(40)}


def test_skipped_periods_count_as_silence():
    policy, clock = scripted(dict.fromkeys(range(100), "late"))
    bench = Bench(policy, clock=clock, stop_after_ms=100)
    assert [bench.decide(k).rung for k in (0, 8, 9)] == [Rung.HOLD, Rung.HOLD, Rung.STOP]


def test_waiting_for_an_episode_is_no_silence():
    policy, clock = scripted(dict.fromkeys(range(100), "late"))
    bench = Bench(policy, clock=clock, stop_after_ms=30)
    decisions = [bench.decide(0), bench.decide(1)]
    decisions += [bench.ladder.wait(bench.tick(k)) for k in range(2, 50)]
    assert {d.rung for d in decisions} == {Rung.HOLD}
    assert decisions[-1].reasons == Reason.EPISODE
    assert bench.decide(50).rung is Rung.STOP


def test_an_operator_stop_latches():
    bench = Bench()
    decision = bench.ladder.stop()
    assert (decision.rung, decision.reasons) == (Rung.STOP, Reason.OPERATOR)
    assert bench.decide(0).rung is Rung.STOP


@pytest.mark.parametrize(
    ("queue_ns", "infer_ns", "expected"),
    [
        (1 * MS, 2 * MS, (1 * MS, 2 * MS)),
        (9 * MS, 2 * MS, (4 * MS, 0)),
        (1 * MS, 9 * MS, (1 * MS, 3 * MS)),
        (-5, -7, (0, 0)),
    ],
)
def test_stage_times_of_a_server_cannot_exceed_the_round_trip(queue_ns, infer_ns, expected):
    class Boaster(FakePolicy):
        def infer(self, request):
            return replace(super().infer(request), queue_ns=queue_ns, infer_ns=infer_ns)

    clock = VirtualClock()
    decision = Bench(Boaster(clock=clock, costs_ns={0: 4 * MS}), clock=clock).decide(0)
    assert (decision.queue_ns, decision.infer_ns) == expected


def test_the_requested_action_does_not_alias_the_answer():
    kept = []

    class Reuser(FakePolicy):
        def infer(self, request):
            kept.append(super().infer(request))
            return kept[-1]

    decision = Bench(Reuser()).decide(0)
    before = decision.requested.copy()
    kept[0].actions[:] = 7.0
    assert np.array_equal(decision.requested, before)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refused(), Reason.REFUSED),
        (PeerTimeout(), Reason.LATE),
        (TimeoutError(), Reason.LATE),
        (ConnectionResetError(), Reason.UNREACHABLE),
        (WireError(), Reason.REFUSED),
        (SpecMismatch(), Reason.REFUSED),
        (MemoryError(), Reason.REFUSED),
    ],
)
def test_reason_of_an_exception(error, reason):
    assert reason_of(error) == reason


def seen(stamp_ns, step=0):
    return Observation((), stamp_ns, step=step)


def test_age_counts_from_a_credible_stamp():
    age = ObservationAge()
    assert age.measure(seen(70), now_ns=100) == 30
    assert age.measure(seen(70), now_ns=150) == 80
    assert age.measure(seen(140, step=1), now_ns=150) == 10


@pytest.mark.parametrize("stamp_ns", [10**12, -CREDIBLE_STAMP_NS])
def test_age_counts_from_first_sight_for_a_stamp_of_another_clock(stamp_ns):
    age = ObservationAge()
    assert age.measure(seen(stamp_ns), now_ns=100) == 0
    assert age.measure(seen(stamp_ns), now_ns=150) == 50
    assert age.measure(seen(stamp_ns + 1), now_ns=160) == 0


def test_age_counts_from_first_sight_in_lockstep():
    age = ObservationAge()
    age.stamps = False
    assert age.measure(seen(70), now_ns=100) == 0
    assert age.measure(seen(70), now_ns=130) == 30


def test_notices_are_rate_limited_per_kind_and_count_what_they_held_back():
    clock, sink = VirtualClock(), ListSink()
    notices = Notices(sink, clock, interval_ns=100)
    for k in range(25):
        notices("policy", f"fault {k}")
        clock.advance(10)
    notices("plant", "gone")
    assert sink.events == [
        (0, "policy", "fault 0"),
        (100, "policy", "fault 10 (9 more before)"),
        (200, "policy", "fault 20 (9 more before)"),
        (250, "plant", "gone"),
    ]


# Rungs with bounds.


def bounded(outcomes, horizon=6, local=None, stop_after_ms=10_000, **fallback):
    clock = VirtualClock()
    policy = FakePolicy(clock=clock, outcomes=outcomes, horizon=horizon)
    previous = fallback.pop("previous", None)
    settings = {"fallback": FallbackSettings(**fallback), "previous": previous}
    return Bench(policy, local, clock, stop_after_ms, **settings)


@pytest.mark.parametrize(
    ("fallback", "rungs"),
    [
        ({}, "FRESH TAIL TAIL TAIL TAIL TAIL LOCAL LOCAL LOCAL LOCAL"),
        ({"tail_ticks": 2}, "FRESH TAIL TAIL LOCAL LOCAL LOCAL LOCAL LOCAL LOCAL LOCAL"),
        ({"tail_ticks": 0}, "FRESH" + " LOCAL" * 9),
        ({"tail_ticks": 2, "local_ticks": 3}, "FRESH TAIL TAIL" + " LOCAL" * 3 + " HOLD" * 4),
        ({"tail_ticks": 0, "local_ticks": 0}, "FRESH" + " HOLD" * 9),
    ],
)
def test_each_rung_acts_as_long_as_it_may(fallback, rungs):
    local = FakePolicy(version="replica")
    bench = bounded(dict.fromkeys(range(1, 10), "late"), local=local, **fallback)
    assert [bench.decide(k).rung.name for k in range(10)] == rungs.split()


def test_a_fresh_action_gives_the_replica_its_ticks_back():
    outcomes = dict.fromkeys((0, 1, 2, 4, 5, 6), "late")
    bench = bounded(outcomes, local=FakePolicy(), tail_ticks=0, local_ticks=2)
    assert [bench.decide(k).rung.name for k in range(7)] == (
        ["LOCAL", "LOCAL", "HOLD", "FRESH", "LOCAL", "LOCAL", "HOLD"]
    )


def test_skipped_periods_count_for_the_replica():
    bench = bounded(dict.fromkeys(range(9), "late"), local=FakePolicy(), local_ticks=3)
    assert [bench.decide(k).rung for k in (0, 2, 3)] == [Rung.LOCAL, Rung.LOCAL, Rung.HOLD]


def test_somebody_else_at_the_wheel_is_no_silence_and_voids_the_plan():
    bench = bounded(dict.fromkeys(range(1, 30), "late"), horizon=20, stop_after_ms=50)
    assert [bench.decide(k).rung for k in (0, 1)] == [Rung.FRESH, Rung.TAIL]
    for k in range(2, 20):
        bench.ladder.overruled(bench.tick(k))
    assert [bench.decide(k).rung for k in (20, 21)] == [Rung.HOLD, Rung.HOLD]


def test_easing_is_told_by_the_decision():
    bench = bounded({0: "late"}, hold="last", previous=lambda: np.ones(2, np.float32))
    decision = bench.decide(0)
    assert (decision.rung, decision.eased) == (Rung.HOLD, True)
    assert decision.reasons == Reason.LATE | Reason.BLENDED
    assert decision.requested.tolist() == [1.0, 1.0]
    assert not bench.decide(1).eased


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ChunkSettings, {"prefix": 2}, "prefix is for asking ahead: it needs ask=ahead"),
        (ChunkSettings, {"blend": 1, "ask": "each_tick"}, "blend is for asking ahead"),
        (ChunkSettings, {"replan_every": 0}, ">= 1"),
        (ChunkSettings, {"ask": "sometimes"}, "Invalid enum value 'sometimes'"),
        (FallbackSettings, {"hold": "brake"}, "Invalid enum value 'brake'"),
        (FallbackSettings, {"ramp_s": 0}, "> 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, settings, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings, kind)


def test_an_element_that_the_action_does_not_have_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="velocity has no element 2, expected 0 to 1"):
        Bench(chunks=ChunkSettings(ask="ahead", blend_exclude=(2,)))
