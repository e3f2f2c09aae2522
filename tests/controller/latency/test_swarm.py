"""Paced clients on scripted time: what is counted, and from when, by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.clock import VirtualClock
from controller.latency.callers import ANSWER_TIMEOUT_NS, Answered
from controller.latency.swarm import Event, Swarm, merged, phases

MS = 1_000_000
NEVER = 2**62


class Scripted:
    """Answers after the next time of a script; None never."""

    def __init__(self, clock, trips_ms, refuse=(), cut=()):
        self.clock, self.trips = clock, itertools.cycle(trips_ms)
        self.refuse, self.cut = set(refuse), set(cut)
        self.asked, self.abandoned, self.ready_ns = [], 0, NEVER

    def ask(self, tick):
        number = len(self.asked)
        self.asked.append(self.clock.now_ns())
        trip_ms = next(self.trips)
        self.ready_ns = NEVER if trip_ms is None else self.clock.now_ns() + round(trip_ms * MS)
        self.ok = number not in self.refuse
        return number not in self.cut

    def answer(self):
        if self.clock.now_ns() < self.ready_ns:
            return None
        self.ready_ns = NEVER
        return Answered(self.ok, 2 * MS, 1 * MS, 5, 3)

    def abandon(self):
        self.abandoned += 1
        self.ready_ns = NEVER


def waiting_on(clock, late_ns=0):
    """Wait on virtual time, coming back ``late_ns`` too late where nothing is there to read."""

    def wait(callers, timeout_ns):
        until = clock.now_ns() + max(0, timeout_ns)
        ready_ns = min((caller.ready_ns for caller in callers), default=NEVER)
        clock.sleep_until(min(until, ready_ns))
        if ready_ns > until and until > clock.now_ns() - 1:
            clock.advance(late_ns)
        return [caller for caller in callers if caller.ready_ns <= clock.now_ns()]

    return wait


def ask(trips_ms, seconds=0.1, warm_up_s=0.0, rate_hz=100.0, late_ns=0, events=(), **options):
    clock = VirtualClock(5 * MS)
    caller = Scripted(clock, trips_ms, **options)
    swarm = Swarm([caller], rate_hz, [0.0], clock, waiting_on(clock, late_ns))
    return swarm.run(clock.now_ns(), seconds, warm_up_s, events), caller


def test_each_request_is_timed_from_when_it_went():
    seen, caller = ask([3, 4])
    assert (seen.latency_ns / MS).tolist() == [3, 4] * 5
    assert (seen.at_ns / MS).tolist() == list(range(0, 100, 10))
    assert [at - 5 * MS for at in caller.asked] == seen.at_ns.tolist()
    assert set(seen.late_ns) == {0}
    assert (set(seen.queue_ns), set(seen.infer_ns)) == ({2 * MS}, {1 * MS})
    assert (set(seen.evaluations), set(seen.batch)) == ({5}, {3})
    assert (seen.unanswered, seen.skipped) == (0, 0)


def test_lateness_of_the_asking_side_is_apart():
    seen, caller = ask([3], late_ns=2 * MS)
    assert set(seen.latency_ns) == {3 * MS}
    assert set(seen.late_ns[1:]) == {2 * MS}
    assert caller.asked[1] == (5 + 10 + 2) * MS


def test_an_answer_of_two_and_a_half_periods_by_hand():
    """Due at 10 ms, there at 35: due at 20 is never made and waited 15, due at 30 goes 5 late."""
    seen, caller = ask([1, 25, 1, 1], seconds=0.06)
    assert dict(zip((seen.at_ns / MS).tolist(), (seen.latency_ns / MS).tolist(), strict=True)) == {
        0: 1,
        10: 25,
        20: 15,
        30: 5 + 1,
        40: 1,
        50: 1,
    }
    assert [(at / MS) - 5 for at in caller.asked] == [0, 10, 35, 40, 50]
    assert (seen.skipped, seen.unanswered) == (1, 0)
    # What was kept from going on time says nothing of the asking side's own lateness.
    assert sorted(seen.late_ns.tolist()) == [-1, -1, 0, 0, 0, 0]


def test_an_answer_within_the_next_period_makes_the_next_late_and_none_skipped():
    seen, _ = ask([1, 14, 1], seconds=0.04)
    assert (seen.latency_ns / MS).tolist() == [1, 14, 5, 1]
    assert seen.skipped == 0


def test_silence_counts_as_a_second_and_is_given_up():
    seen, caller = ask([1, None, *[1] * 100], seconds=1.5)
    assert (seen.unanswered, caller.abandoned) == (1, 1)
    first = int(np.flatnonzero(seen.latency_ns == ANSWER_TIMEOUT_NS)[0])
    assert seen.at_ns[first] == 10 * MS
    # A second and up to a look of 50 ms later; those due meanwhile waited until then.
    skipped = seen.latency_ns[first + 1 : first + seen.skipped + 1]
    assert 99 <= seen.skipped <= 104
    assert np.all(np.diff(skipped) == -10 * MS)
    assert ANSWER_TIMEOUT_NS - 10 * MS <= skipped[0] <= ANSWER_TIMEOUT_NS + 40 * MS


def test_refusals_and_lost_connections_are_unanswered():
    seen, _ = ask([1], refuse={2}, cut={4})
    assert seen.unanswered == 2
    assert np.flatnonzero(seen.latency_ns == ANSWER_TIMEOUT_NS).tolist() == [2, 4]


def test_warm_up_is_left_out():
    seen, caller = ask([9, 9, 9, 1], seconds=0.05, warm_up_s=0.03)
    assert len(caller.asked) == 8
    assert (seen.at_ns / MS).tolist() == [0, 10, 20, 30, 40]
    assert (seen.latency_ns / MS).tolist() == [1, 9, 9, 9, 1]


def test_events_happen_in_the_middle_and_none_is_forgotten():
    done = []
    events = [Event(at * MS, lambda at=at: done.append(at)) for at in (25, 12, 900)]
    ask([1], seconds=0.05, events=events)
    assert done == [12, 25, 900]


def test_clients_do_not_wait_for_each_other():
    clock = VirtualClock()
    slow, quick = Scripted(clock, [35]), Scripted(clock, [1])
    swarm = Swarm([slow, quick], 100.0, [0.0, 0.5], clock, waiting_on(clock))
    seen = swarm.run(0, 0.1)
    assert [at / MS for at in quick.asked] == [5 + 10 * k for k in range(10)]
    assert [at / MS for at in slow.asked] == [0, 35, 70]
    assert len(seen.at_ns) == 20
    assert seen.skipped == 7


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.01, 60.0), min_size=1, max_size=8),
    st.integers(1, 4),
    st.sampled_from([50.0, 100.0, 333.0]),
)
def test_every_request_that_was_due_is_counted_once(trips_ms, clients, rate_hz):
    clock = VirtualClock()
    callers = [Scripted(clock, trips_ms) for _ in range(clients)]
    offsets = phases(clients)
    seen = Swarm(callers, rate_hz, offsets, clock, waiting_on(clock)).run(0, 0.5)
    period_ns = round(1e9 / rate_hz)
    due = sorted(
        round(phase * period_ns) + k * period_ns
        for phase in offsets
        for k in range(1 + 500 * MS // period_ns)
        if round(phase * period_ns) + k * period_ns < 500 * MS
    )
    assert sorted(seen.at_ns.tolist()) == due
    assert len(due) - seen.skipped == sum(len(caller.asked) for caller in callers)
    assert seen.latency_ns.min() >= 0
    # Nobody waits longer than the longest answer and what was left of the period before it.
    assert seen.latency_ns.max() <= (max(trips_ms) * MS) + period_ns


def test_pieces_come_one_after_the_other():
    seen, _ = ask([1, 25], seconds=0.05)
    both = merged([seen, seen], [0, 70 * MS])
    assert len(both.at_ns) == 2 * len(seen.at_ns)
    assert both.at_ns[len(seen.at_ns) :].tolist() == (seen.at_ns + 70 * MS).tolist()
    assert (both.skipped, both.unanswered) == (2 * seen.skipped, 0)


def test_phases_are_the_same_for_all_servers_and_differ_among_clients():
    assert phases(8) == phases(8)
    assert len(set(phases(8))) == 8
    assert all(0 <= phase < 1 for phase in phases(64))
    assert phases(4) == pytest.approx(phases(8)[:4])
