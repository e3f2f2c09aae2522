"""Who is answered when: tables of requests, and what must hold of any sequence of them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.types import Observation, Request
from policies.serving.schedule import PROBE_NS, Schedule

MS = 1_000_000
NOTHING = Observation((np.zeros(1),), 0)


@dataclass(eq=False)
class Work:
    """A lane whose batch of n takes ``first + (n - 1) * more`` milliseconds."""

    name: str = "a"
    first: float = 1.0
    more: float = 0.1
    max_batch: int = 64

    def expected_ns(self, batch):
        return round((self.first + (batch - 1) * self.more) * MS)


def put(schedule, lane, client, at_ms, budget_ms, tick=0):
    deadline_ns = round((at_ms + budget_ms) * MS)
    request = Request(tick, 0, NOTHING, 0, deadline_ns)
    return schedule.put(client, lane, request, round(at_ms * MS))


def names(waiting):
    return b"".join(w.client for w in waiting).decode()


@pytest.mark.parametrize(
    ("asked", "first", "more", "most", "batch", "shed"),
    [
        # client: budget in ms, all at time 0; then costs, the batch and those turned away
        ({}, 1, 0.1, 64, "", ""),
        ({"a": 5}, 1, 0.1, 64, "a", ""),
        ({"a": 30, "b": 10, "c": 20}, 1, 0.1, 64, "bca", ""),
        ({"a": 5, "b": 5, "c": 5}, 1, 0.1, 2, "ab", ""),
        ({"a": 5, "b": 5, "c": 5}, 1, 0.1, 1, "a", ""),
        # a batch grows only while the most urgent of it is still met: 2.0, 2.5, 3.0 ms
        ({"a": 2.6, "b": 9, "c": 9, "d": 9}, 2, 0.5, 64, "ab", ""),
        ({"a": 2.1, "b": 9, "c": 9}, 2, 0.5, 64, "a", ""),
        # what takes 1 ms cannot be done in 0.9
        ({"a": 0.9, "b": 9}, 1, 0.1, 64, "b", "a"),
        ({"a": 0.5, "b": 0.9}, 1, 0.1, 64, "", "ab"),
        ({"a": 1.0}, 1, 0.1, 64, "a", ""),
        ({"a": 0}, 0, 0, 64, "", "a"),
    ],
)
def test_a_turn(asked, first, more, most, batch, shed):
    schedule, lane = Schedule(), Work("a", first, more, most)
    for client, budget_ms in asked.items():
        assert put(schedule, lane, client.encode(), 0, budget_ms) is None
    turn = schedule.take(0)
    assert (names(turn.batch), names(turn.shed)) == (batch, shed)
    assert len(schedule) == len(asked) - len(batch) - len(shed)


def test_a_batch_is_of_one_lane_and_leaves_time_for_the_others():
    fast, slow = Work("fast", 1, 1), Work("slow", 4, 0)
    schedule = Schedule()
    for client in (b"a", b"b", b"c"):
        put(schedule, fast, client, 0, 6)
    put(schedule, slow, b"s", 0, 6.5)
    # Two of the fast take 2 ms, and the slow one would be met at 6; three would make it late.
    assert names(schedule.take(0).batch) == "ab"
    put(schedule, fast, b"d", 2, 50)
    # With a deadline at 6 ms c comes first, and makes the slow one late on any account.
    assert names(schedule.take(2 * MS).batch) == "cd"


def test_the_newest_request_of_a_client_takes_the_older_one_s_place():
    schedule, lane = Schedule(), Work(max_batch=1)
    put(schedule, lane, b"a", 0, 10, tick=1)
    put(schedule, lane, b"b", 0, 12, tick=1)
    older = put(schedule, lane, b"a", 5, 10, tick=2)
    assert older.request.tick == 1
    turn = schedule.take(5 * MS)
    assert names(turn.batch) == "a"
    assert turn.batch[0].request.tick == 2
    assert turn.batch[0].deadline_ns == 15 * MS
    assert names(schedule.take(6 * MS).batch) == "b"
    assert schedule.take(7 * MS) == ([], [])


def test_whoever_left_is_not_answered():
    schedule, lane = Schedule(), Work()
    put(schedule, lane, b"a", 0, 10)
    schedule.drop(b"a")
    schedule.drop(b"b")
    assert schedule.take(0) == ([], [])


def test_what_waits_for_a_lane_that_goes_moves_to_the_one_that_stays():
    schedule, old, new = Schedule(), Work("old"), Work("new")
    put(schedule, old, b"a", 0, 10)
    put(schedule, new, b"b", 0, 20)
    schedule.move(old, new)
    assert names(schedule.take(0).batch) == "ab"


def test_who_breaks_batches_is_answered_alone_for_a_while():
    schedule, lane = Schedule(), Work()
    schedule.isolate(b"x", 100 * MS)
    for client, budget_ms in ((b"a", 10), (b"x", 20), (b"b", 30)):
        put(schedule, lane, client, 0, budget_ms)
    assert [names(schedule.take(0).batch) for _ in range(2)] == ["ab", "x"]
    for client, budget_ms in ((b"x", 10), (b"a", 20)):
        put(schedule, lane, client, 1, budget_ms)
    assert [names(schedule.take(MS).batch) for _ in range(2)] == ["x", "a"]
    for client in (b"x", b"a"):
        put(schedule, lane, client, 100, 10)
    assert names(schedule.take(100 * MS).batch) == "xa"


def test_an_expectation_that_sheds_everything_is_put_to_the_test():
    schedule, lane = Schedule(), Work(first=50)
    shed = answered = 0
    for at_ms in range(0, 3 * PROBE_NS // MS, 10):
        put(schedule, lane, b"a", at_ms, 10)
        turn = schedule.take(at_ms * MS)
        shed, answered = shed + len(turn.shed), answered + len(turn.batch)
    assert (shed, answered) == (28, 2)


def drive(schedule, robots, until_ms):
    """Serve robots that ask every ``period`` ms with a ``budget``; return what became of each.

    The server takes a turn whenever it is free; computing takes what the lane expects.
    """
    outcomes = {name: {"answered": 0, "late": 0, "shed": 0, "superseded": 0} for name in robots}
    pending, now, began = dict.fromkeys(robots, 0.0), 0.0, None
    lanes = {name: robot[0] for name, robot in robots.items()}
    while now < until_ms:
        for name, (lane, period, budget) in robots.items():
            while pending[name] <= now:
                if put(schedule, lane, name.encode(), pending[name], budget) is not None:
                    outcomes[name]["superseded"] += 1
                pending[name] += period
        turn = schedule.take(round(now * MS))
        for waiting in turn.shed:
            outcomes[waiting.client.decode()]["shed"] += 1
        if turn.batch:
            began = now
            now += lanes[turn.batch[0].client.decode()].expected_ns(len(turn.batch)) / MS
            for waiting in turn.batch:
                met = round(now * MS) <= waiting.deadline_ns
                outcomes[waiting.client.decode()]["answered" if met else "late"] += 1
        else:
            now = min(pending.values())
    assert began is not None
    return outcomes


@pytest.mark.parametrize("budget", [1.1, 2.0, 50.0])
def test_a_client_that_floods_costs_the_others_no_deadline(budget):
    # Ten robots need half of the time of a policy without batches. The eleventh asks all the
    # time, and claims to be more urgent than any of them.
    lane = Work(first=1, max_batch=1)
    robots = {str(n): (lane, 20, 20) for n in range(10)} | {"x": (lane, 0.05, budget)}
    outcomes = drive(Schedule(), robots, 2000)
    flooder = outcomes.pop("x")
    assert flooder["answered"] > 300
    for outcome in outcomes.values():
        assert outcome["answered"] >= 99
        assert outcome["shed"] == outcome["late"] == outcome["superseded"] == 0


def test_what_one_machine_can_do_is_done():
    # Periods and costs add up to 95 % of the time (Liu & Layland 1973, theorem 7).
    robots = {
        "a": (Work("a", 1, max_batch=1), 5, 5),
        "b": (Work("b", 2, max_batch=1), 8, 8),
        "c": (Work("c", 6, max_batch=1), 20, 20),
        "d": (Work("d", 8, max_batch=1), 40, 40),
    }
    # Nothing is broken off once begun, so whoever comes during the longest may wait for it.
    for name in robots:
        lane, period, _ = robots[name]
        robots[name] = (lane, period, period + 8)
    outcomes = drive(Schedule(), robots, 4000)
    assert all(not outcome["shed"] + outcome["late"] for outcome in outcomes.values())


clients = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
events = st.lists(
    st.one_of(
        st.tuples(st.just("put"), clients, st.integers(0, 1), st.integers(0, 40)),
        st.tuples(st.just("take"), st.integers(0, 15)),
        st.tuples(st.just("drop"), clients),
        st.tuples(st.just("isolate"), clients),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(events, st.integers(1, 3), st.integers(0, 5), st.integers(0, 3))
def test_whatever_comes(sequence, most, first, more):
    """Nobody is answered twice, nothing is forgotten, and nobody waits beyond a deadline."""
    lanes = [Work("a", first, more, most), Work("b", 1, 1, 64)]
    schedule, now, tick = Schedule(), 0, 0
    waiting: dict[bytes, int] = {}
    for event in [*sequence, ("take", 100)]:
        if event[0] == "put":
            _, client, lane, budget = event
            tick += 1
            older = put(schedule, lanes[lane], client, now, budget, tick)
            assert (older.request.tick if older else None) == waiting.get(client)
            waiting[client] = tick
        elif event[0] == "drop":
            schedule.drop(event[1])
            waiting.pop(event[1], None)
        elif event[0] == "isolate":
            schedule.isolate(event[1], (now + 20) * MS)
        else:
            now += event[1]
            turn = schedule.take(now * MS)
            for one in (*turn.batch, *turn.shed):
                assert waiting.pop(one.client) == one.request.tick
            for one in turn.batch:
                assert one.deadline_ns > now * MS
                assert one.lane is turn.batch[0].lane
            for one in turn.shed:
                assert one.deadline_ns < now * MS + lanes[0].expected_ns(1) + 1 * MS + 1
            if turn.batch:
                done_ns = now * MS + turn.batch[0].lane.expected_ns(len(turn.batch))
                if len(turn.batch) > 1:
                    assert all(done_ns <= one.deadline_ns for one in turn.batch)
                assert len(turn.batch) <= turn.batch[0].lane.max_batch
        assert len(schedule) == len(waiting)
    while len(schedule):
        now += 1
        turn = schedule.take(now * MS)
        for one in (*turn.batch, *turn.shed):
            assert waiting.pop(one.client) == one.request.tick
        assert now < 10_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_clients_that_ask_once_are_answered_in_the_order_of_their_deadlines(budgets):
    schedule, lane = Schedule(), Work(first=0, more=0, max_batch=1)
    for client, budget in enumerate(budgets):
        put(schedule, lane, bytes([client]), 0, budget)
    order = []
    while len(schedule):
        (one,) = schedule.take(0).batch
        order.append(one.deadline_ns)
    assert order == sorted(budget * MS for budget in budgets)
