from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.chunks import MAX_ROWS, Joined, Plan
from controller.clock import VirtualClock
from controller.delayed import DelayedPolicy
from controller.interfaces import AheadPolicy
from controller.ladder import Ladder, Notices, Patience
from controller.pacing import Tick
from controller.prefetch import FIRST_TICKS
from controller.testing import FakePolicy, ListSink, example_spec
from controller.types import Observation, Reason, Rejected, Rung

MS = 1_000_000
PERIOD = 10 * MS
SAFE = np.zeros(2, np.float32)


class Bench:
    """A ladder that asks ahead, under a virtual clock.

    ``delays`` are ticks by request, -1 for an answer that is lost; the others take ``delay``.
    """

    def __init__(self, horizon=8, delay=2, delays=None, outcomes=None, local=False, **changes):
        self.clock, self.sink = VirtualClock(), ListSink()
        self.inner = FakePolicy(clock=self.clock, horizon=horizon, outcomes=outcomes)
        self.policy = self.wrapped(delay, delays or {})
        fallback = changes.pop("fallback", FallbackSettings())
        self.executed = SAFE
        self.ladder = Ladder(
            self.policy,
            FakePolicy(clock=self.clock, version="replica") if local else None,
            example_spec(),
            self.clock,
            seed=3,
            patience=Patience(PERIOD, 6 * MS, 50 * MS, changes.pop("stop_after_ms", 10**6) * MS),
            safe=SAFE,
            notify=Notices(self.sink, self.clock),
            chunks=ChunkSettings(ask="ahead", **changes),
            fallback=fallback,
            previous=lambda: self.executed,
        )
        self.decisions = {}

    def wrapped(self, delay, delays):
        def delay_ns(request):
            ticks = delays.get(request.tick, delay)
            return None if ticks < 0 else ticks * PERIOD

        return DelayedPolicy(self.inner, self.clock, delay_ns)

    def run(self, ticks, episode=0, nan=()):
        for k in ticks if hasattr(ticks, "__iter__") else range(ticks):
            self.clock.sleep_until(k * PERIOD)
            arrays = (np.array([np.nan if k in nan else 0.1, 0.2]), np.array([0.4, 0.4]))
            observation = Observation(arrays, self.clock.now_ns(), episode=episode, step=k)
            tick = Tick(k, k * PERIOD, self.clock.now_ns())
            self.decisions[k] = self.ladder.decide(tick, observation)
            self.executed = self.decisions[k].requested
            assert self.clock.now_ns() == k * PERIOD, "the tick waited"
        return self

    @property
    def asked(self):
        return [request.tick for request in self.inner.requests]

    @property
    def counts(self):
        return dict(self.ladder.asking.counts)

    def story(self):
        """Tell rung, answer's tick and length of each stretch: ``"HOLD 2, FRESH@0 4"``."""
        names = [
            d.rung.name + (f"@{d.answer_tick}" if d.rung < Rung.LOCAL else "")
            for _, d in sorted(self.decisions.items())
        ]
        return ", ".join(f"{name} {len(list(group))}" for name, group in groupby(names))

    def reasons(self, rung=None):
        return [d.reasons for d in self.decisions.values() if rung in (None, d.rung)]

    def check_rows(self):
        """Every row that acted is that of its own tick in the chunk it is said to be of."""
        for k, decision in self.decisions.items():
            if decision.rung <= Rung.TAIL and not decision.reasons & Reason.BLENDED:
                (request,) = (r for r in self.inner.requests if r.tick == decision.answer_tick)
                chunk = FakePolicy(horizon=self.inner._horizon).infer(request)
                assert decision.requested.tolist() == chunk.at(k).tolist()


STEADY = "HOLD 2, FRESH@0 4, FRESH@4 4, FRESH@8 4, FRESH@12 2"


@pytest.mark.parametrize(
    ("changes", "ticks", "story"),
    [
        ({}, 16, STEADY),
        ({"delay": 0}, 9, "FRESH@0 5, FRESH@4 4"),
        ({"delay": 1}, 10, "HOLD 1, FRESH@0 4, FRESH@4 4, FRESH@8 1"),
        ({"delay": 4}, 13, "HOLD 4, FRESH@0 4, FRESH@4 4, FRESH@8 1"),
        # One answer late by 1, by 2 ticks, by so much that the plan runs dry.
        ({"delays": {4: 3}}, 10, "HOLD 2, FRESH@0 4, TAIL@0 1, FRESH@4 3"),
        ({"delays": {4: 4}}, 11, "HOLD 2, FRESH@0 4, TAIL@0 2, FRESH@4 2, FRESH@8 1"),
        ({"delays": {4: 5}}, 13, "HOLD 2, FRESH@0 4, TAIL@0 2, HOLD 1, FRESH@4 1, FRESH@8 3"),
        # Late by its whole length, or lost: given up at 8, asked anew.
        ({"delays": {4: 8}}, 14, "HOLD 2, FRESH@0 4, TAIL@0 2, HOLD 2, FRESH@8 4"),
        ({"delays": {4: -1}}, 14, "HOLD 2, FRESH@0 4, TAIL@0 2, HOLD 2, FRESH@8 4"),
        # Answers that overtake each other: the one to 4 comes after that to 8.
        ({"delays": {4: 7, 8: 1}}, 13, "HOLD 2, FRESH@0 4, TAIL@0 2, HOLD 1, FRESH@8 4"),
        # Nothing usable: asked again at once.
        ({"outcomes": {4: "nan"}}, 13, "HOLD 2, FRESH@0 4, TAIL@0 2, FRESH@6 4, FRESH@10 1"),
        ({"outcomes": {4: "shape"}}, 13, "HOLD 2, FRESH@0 4, TAIL@0 2, FRESH@6 4, FRESH@10 1"),
        ({"outcomes": {4: "dtype"}}, 13, "HOLD 2, FRESH@0 4, TAIL@0 2, FRESH@6 4, FRESH@10 1"),
        ({"outcomes": {4: "crash"}}, 13, "HOLD 2, FRESH@0 4, TAIL@0 2, FRESH@6 4, FRESH@10 1"),
        # An answer to another tick than was asked about is none.
        ({"outcomes": {4: "tick"}}, 14, "HOLD 2, FRESH@0 4, TAIL@0 2, HOLD 2, FRESH@8 4"),
        # Chunks that are shorter than an answer takes are never of use.
        ({"horizon": 2, "delay": 3}, 30, "HOLD 30"),
        ({"horizon": 1, "delay": 1}, 30, "HOLD 30"),
        ({"horizon": 3, "delay": 2}, 9, "HOLD 2, FRESH@0 1, HOLD 1, FRESH@2 1, HOLD 1, "
         "FRESH@4 1, HOLD 1, FRESH@6 1"),
        # The lead asks sooner than replan_every would.
        ({"replan_every": 7}, 12, "HOLD 2, FRESH@0 5, FRESH@5 5"),
        ({"replan_every": 7, "lead": 5}, 9, "HOLD 2, FRESH@0 3, FRESH@3 3, FRESH@6 1"),
        ({"replan_every": 2}, 9, "HOLD 2, FRESH@0 2, FRESH@2 2, FRESH@4 2, FRESH@6 1"),
        ({"replan_every": 1}, 9, "HOLD 2, FRESH@0 2, FRESH@2 2, FRESH@4 2, FRESH@6 1"),
    ],
)  # fmt: skip
def test_scenarios(changes, ticks, story):
    bench = Bench(**changes).run(ticks)
    assert bench.story() == story
    bench.check_rows()


def test_the_steady_state_asks_at_its_interval_and_tells_its_answers():
    bench = Bench().run(16)
    assert bench.asked == [0, 4, 8, 12]
    assert bench.counts == {"asked": 4, "taken": 4}
    decision = bench.decisions[9]
    assert (decision.answer_tick, decision.answer_rtt_ns, decision.version) == (
        4, 2 * PERIOD, "fake-1",
    )  # fmt: skip
    assert (decision.queue_ns, decision.infer_ns, decision.rtt_ns) == (-1, -1, 0)
    assert set(bench.reasons(Rung.FRESH)) == {Reason.NONE}
    assert bench.sink.events == []


def test_before_the_first_chunk_nothing_is_late():
    assert Bench().run(2).reasons() == [Reason.AWAITED] * 2


def test_an_answer_that_is_there_at_once_is_used_at_once():
    bench = Bench(delay=0).run(1)
    assert bench.story() == "FRESH@0 1"


@pytest.mark.parametrize(
    ("changes", "ticks", "deadline_ms"),
    [
        ({}, 0, 96),  # the length of a chunk is not known: FIRST_TICKS
        ({"replan_every": 3}, 0, 96),
        ({}, 4, 40 + 36),  # by the next request
        ({"replan_every": 6, "lead": 3}, 5, 50 + 26),  # or until the plan runs dry
        ({"delays": {4: -1}}, 8, 80 + 16),  # which it has: as soon as answers come
    ],
)
def test_an_answer_is_due_when_the_next_request_is_or_when_the_plan_runs_dry(
    changes, ticks, deadline_ms
):
    bench = Bench(**changes).run(ticks + 1)
    assert bench.inner.requests[-1].tick == ticks
    assert bench.inner.requests[-1].deadline_ns == deadline_ms * MS


def test_a_lost_request_is_given_up_and_counted():
    bench = Bench(delays={4: -1}).run(14)
    assert bench.asked == [0, 4, 8, 12]
    assert bench.counts == {"asked": 4, "taken": 2, "given up": 1}
    assert [detail for _, _, detail in bench.sink.events] == ["no answer to tick 4 in 4 ticks"]
    assert set(bench.reasons(Rung.TAIL)) == {Reason.LATE}
    assert bench.decisions[8].reasons == Reason.LATE


def test_a_policy_that_never_answers_ends_in_the_latched_stop():
    bench = Bench(delay=-1, stop_after_ms=300).run(40)
    assert bench.story() == "HOLD 29, STOP 11"
    assert bench.ladder.latched == Reason.LATE
    assert bench.asked == [0, FIRST_TICKS, 2 * FIRST_TICKS]


def test_a_chunk_that_came_too_late_is_counted_and_said():
    bench = Bench(horizon=3, delay=3).run(4)
    assert bench.counts == {"asked": 2, "past": 1}
    assert bench.decisions[3].reasons == Reason.LATE
    (event,) = bench.sink.events
    assert event[2].startswith("the answer to tick 0 came 3 ticks later, when all its 3 rows had")


def test_an_answer_sent_twice_counts_once():
    class Twice(FakePolicy):
        backlog = ()

        def submit(self, request):
            self.backlog = (*self.backlog, *[super().infer(request)] * 2)
            return True

        def poll(self):
            answer, self.backlog = (self.backlog or (None,))[0], self.backlog[1:]
            return answer

    bench = Bench()
    bench.inner = Twice(clock=bench.clock, horizon=8)
    bench.ladder.asking._policy = bench.inner
    bench.run(9)
    assert bench.counts == {"asked": 3, "taken": 2, "unasked": 2}
    assert bench.ladder.asking.delay.ticks == 1


def test_an_answer_of_one_episode_is_never_used_in_the_next():
    bench = Bench(delays={4: 3})
    bench.run(6).run(range(6, 20), episode=1)
    assert bench.story() == ("HOLD 2, FRESH@0 4, HOLD 2, FRESH@6 4, FRESH@10 4, FRESH@14 4")
    assert bench.decisions[6].reasons == Reason.AWAITED
    assert bench.counts["unasked"] == 1
    assert bench.asked == [0, 4, 6, 10, 14, 18]


def test_a_change_of_version_shows_at_the_row_it_comes_with():
    bench = Bench()
    bench.run(5)
    bench.inner._version = "fake-2"
    bench.run(range(5, 14))
    assert [bench.decisions[k].version for k in (9, 10)] == ["fake-1", "fake-2"]


@pytest.mark.parametrize(
    ("outcome", "reason", "event"),
    [
        ("nan", Reason.NONFINITE, "answer is not finite"),
        ("shape", Reason.REFUSED, "answer of shape [8, 1] float32, expected [horizon, 2] float32"),
        ("crash", Reason.REFUSED, "RuntimeError: out of memory"),
        ("timeout", Reason.LATE, "PeerTimeout: no answer"),
    ],
)
def test_each_way_to_fail_holds_with_its_reason(outcome, reason, event):
    bench = Bench(outcomes=dict.fromkeys(range(99), outcome)).run(5)
    assert [d.rung for d in bench.decisions.values()] == [Rung.HOLD] * 5
    assert bench.reasons()[2:] == [reason] * 3
    assert bench.sink.events[0][2] == event


def test_a_bug_of_ours_is_not_swallowed():
    with pytest.raises(AssertionError, match="a bug of ours"):
        Bench(outcomes={0: "bug"}).run(1)


class Unreachable(FakePolicy):
    """Cannot be asked before tick 5, then rejects, then answers."""

    version = ""

    def submit(self, request):
        self.requests.append(request)
        return request.tick >= 5

    def poll(self):
        if not self.requests or self.requests[-1].tick < 5:
            return None
        tick = self.requests[-1].tick
        reason = {5: Reason.REFUSED, 6: Reason.LATE}.get(tick, Reason.UNREACHABLE)
        return Rejected(tick, reason, "loading" if tick == 5 else "")


def test_without_a_session_it_asks_at_every_tick_and_a_rejection_is_no_silence():
    bench = Bench()
    bench.inner = bench.ladder.asking._policy = Unreachable(horizon=8)
    assert isinstance(bench.inner, AheadPolicy)
    bench.run(8)
    assert bench.asked == list(range(8))
    assert bench.reasons() == [Reason.UNREACHABLE] * 5 + [
        Reason.REFUSED, Reason.LATE, Reason.UNREACHABLE,
    ]  # fmt: skip
    assert [detail for _, _, detail in bench.sink.events] == ["loading"]


def test_a_policy_that_raises_when_asked_or_polled_costs_the_tick_only():
    class Broken(FakePolicy):
        def submit(self, request):
            raise ConnectionResetError("gone")

        def poll(self):
            raise MemoryError

    bench = Bench()
    bench.ladder.asking._policy = Broken()
    bench.run(2)
    assert bench.reasons() == [Reason.UNREACHABLE] * 2


def test_periods_that_were_skipped_lose_their_rows_and_nothing_else():
    bench = Bench().run([0, 1, 2, 3, 5, 7, 8, 9, 13, 14, 15])
    assert [bench.decisions[k].answer_tick for k in (5, 7, 9, 13)] == [0, 5, 5, 9]
    bench.check_rows()


def test_an_observation_that_cannot_be_used_does_not_hurt_the_plan():
    bench = Bench().run(9, nan=(4, 5))
    assert bench.story() == "HOLD 2, FRESH@0 2, HOLD 2, TAIL@0 2, FRESH@6 1"
    assert bench.asked == [0, 6]


# Committed rows.


def test_the_rows_due_before_the_answer_go_out_with_the_request_and_are_kept():
    bench = Bench(prefix=8).run(16)
    first, second = bench.inner.requests[:2]
    assert first.prefix is None
    requested = {k: d.requested.tolist() for k, d in bench.decisions.items()}
    assert second.prefix.tolist() == [requested[4], requested[5]]
    for request in bench.inner.requests[1:3]:
        k, count = request.tick, len(request.prefix)
        assert request.prefix.tolist() == [requested[k + i] for i in range(count)]
    assert bench.decisions[6].prefix == 2
    bench.check_rows()


def test_an_early_answer_does_not_touch_committed_rows():
    bench = Bench(prefix=8, delay=3, delays={16: 1}).run(22)
    assert 16 in bench.asked
    assert [bench.decisions[k].answer_tick for k in range(16, 21)] == [12, 12, 12, 16, 16]


@pytest.mark.parametrize(("limit", "expected"), [(0, None), (1, 1), (3, 3), (9, 3)])
def test_the_prefix_is_bounded_by_its_setting_and_the_delay(limit, expected):
    bench = Bench(prefix=limit, delay=3).run(5)
    prefix = bench.inner.requests[-1].prefix
    assert (None if prefix is None else len(prefix)) == expected


def test_a_log_tells_the_prefix_of_every_request_also_through_blends():
    delays = {8: 3, 12: 1, 16: 4, 24: 1}
    bench = Bench(horizon=12, prefix=9, blend=3, replan_every=4, delays=delays).run(60)
    acted = [k for k, d in bench.decisions.items() if d.rung <= Rung.TAIL]
    checked = 0
    for request in bench.inner.requests:
        if request.prefix is not None and request.tick + len(request.prefix) <= 60:
            ticks = range(request.tick, request.tick + len(request.prefix))
            assert set(ticks) <= set(acted)
            logged = [bench.decisions[k].requested.tolist() for k in ticks]
            assert logged == request.prefix.tolist()
            checked += 1
    assert checked > 8
    assert any(d.reasons & Reason.BLENDED for d in bench.decisions.values())


@settings(deadline=None, max_examples=60)
@given(
    delays=st.dictionaries(st.integers(0, 60), st.integers(-1, 12)),
    delay=st.integers(0, 4),
    prefix=st.integers(0, 6),
    blend=st.integers(0, 4),
    every=st.integers(2, 9),
)
def test_a_log_is_enough_to_recompute_every_planned_action(delays, delay, prefix, blend, every):
    """A plan that each chunk joins at the first tick that names it gives the same bits.

    Provided that each chunk acted at all before the next one took over.
    """
    bench = Bench(12, delay, delays, prefix=prefix, blend=blend, replan_every=every).run(60)
    acted = {d.answer_tick for d in bench.decisions.values() if d.rung <= Rung.TAIL}
    assume(len(acted) == bench.counts.get("taken", 0))
    plan, named = Plan(blend), set()
    for k, decision in bench.decisions.items():
        if decision.rung > Rung.TAIL:
            continue
        if decision.answer_tick not in named:
            named.add(decision.answer_tick)
            (asked,) = (r for r in bench.inner.requests if r.tick == decision.answer_tick)
            rows = [bench.decisions[asked.tick + i].requested for i in range(decision.prefix)]
            request = replace(asked, prefix=np.array(rows) if rows else None)
            assert plan.join(FakePolicy(horizon=12).infer(request), k) is Joined.TAKEN
        row = plan.row(k)
        assert row.action.tobytes() == decision.requested.tobytes()
        assert row.blended == bool(decision.reasons & Reason.BLENDED)


def test_a_blend_is_told_and_lies_between_the_chunks():
    bench = Bench(blend=2).run(10)
    blended = [k for k, d in bench.decisions.items() if d.reasons & Reason.BLENDED]
    assert blended == [6, 7]
    old, new = (
        FakePolicy(horizon=8).infer(request).actions for request in bench.inner.requests[:2]
    )
    for i, k in enumerate(blended, start=1):
        expected = old[k] + i / 3 * (new[k - 4] - old[k])
        assert np.allclose(bench.decisions[k].requested, expected, atol=1e-6)
        assert bench.decisions[k].rung is Rung.FRESH


# Rungs with bounds.


def test_tail_then_local_then_hold_then_stop():
    fallback = FallbackSettings(tail_ticks=1, local_ticks=3)
    bench = Bench(
        delays=dict.fromkeys(range(4, 99), -1), local=True, fallback=fallback, stop_after_ms=50
    ).run(24)
    assert bench.story() == "LOCAL 2, FRESH@0 4, TAIL@0 1, LOCAL 3, HOLD 4, STOP 10"
    assert bench.decisions[7].version == "replica"
    assert bench.decisions[7].reasons == Reason.LATE


def test_somebody_else_at_the_wheel_voids_the_plan():
    bench = Bench().run(7)
    for k in range(7, 30):
        bench.clock.sleep_until(k * PERIOD)
        bench.ladder.overruled(Tick(k, k * PERIOD, k * PERIOD))
    bench.run(range(30, 34))
    assert bench.asked == [0, 4, 30]
    assert bench.story() == "HOLD 2, FRESH@0 4, FRESH@4 1, HOLD 2, FRESH@30 2"


delays = st.dictionaries(st.integers(0, 60), st.integers(-1, 15))
outcomes = st.dictionaries(
    st.integers(0, 60),
    # Not "tick": an answer under the number of another open request cannot be told from its own.
    st.sampled_from(["nan", "shape", "dtype", "crash", "timeout", "silent", "refused"]),
)


@settings(deadline=None, max_examples=150)
@given(
    delays=delays,
    outcomes=outcomes,
    delay=st.integers(0, 6),
    horizon=st.integers(1, 10),
    prefix=st.integers(0, 4),
    blend=st.integers(0, 3),
    every=st.one_of(st.none(), st.integers(1, 9)),
    ends=st.sets(st.integers(1, 60), max_size=3),
    skipped=st.sets(st.integers(1, 60), max_size=20),
)
def test_whatever_arrives_every_tick_has_its_own_action_or_holds(
    delays, outcomes, delay, horizon, prefix, blend, every, ends, skipped
):
    bench = Bench(horizon, delay, delays, outcomes, prefix=prefix, blend=blend, replan_every=every)
    episode, began = 0, {}
    for k in range(60):
        if k in skipped:
            continue
        episode += k in ends
        began.setdefault(episode, k)
        bench.run([k], episode)
        decision = bench.decisions[k]
        assert decision.requested.shape == SAFE.shape
        assert np.isfinite(decision.requested).all()
        if decision.rung is Rung.HOLD:
            assert decision.requested is SAFE
            assert decision.reasons
        else:
            assert decision.rung <= Rung.TAIL
            assert began[episode] <= decision.answer_tick <= k < decision.answer_tick + horizon
        assert bench.ladder.asking.plan.left(k) <= horizon + prefix <= MAX_ROWS
        assert len(bench.ladder.asking._open) <= 64
    bench.check_rows()
    sent = [r for r in bench.inner.requests if r.prefix is not None]
    assert all(len(r.prefix) <= prefix for r in sent)
