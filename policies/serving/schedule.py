"""Who is answered next: the earliest deadline first, together with others where time allows.

Earliest deadline first meets every deadline that one machine can meet at all (Liu & Layland 1973),
and does badly once that is too much: whoever claims the least time is then always first, and a
batch that must be done soon has room for few. So where the most urgent request would cost others
their deadlines, the batch is taken that costs fewest, and of those the one that leaves out who had
a turn not long ago.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol

from controller.types import Request

PROBE_NS = 100_000_000
"""Shedding for this long without one answer means that the expectation is wrong, and one request
that is not late yet is tried all the same."""
PLACES = (0, 1, 2, 4, 8, 16, 32, 64)
"""Places in the order of urgency that are tried for the first of a batch."""
DOUBLE_NS = 100_000_000
"""A client that had no turn for this long counts twice one that just had its turn. Measured with
twice as many robots as can be served: half of it serves fewer, ten times it neglects some."""
MAX_REMEMBERED = 1024
"""Clients whose last turn is remembered."""


class Lane(Protocol):
    """What answers requests; those of one lane can be answered together."""

    @property
    def max_batch(self) -> int:
        """Most requests of one computation."""
        ...

    def expected_ns(self, batch: int) -> int:
        """Return how long the cheapest answer to ``batch`` requests is expected to take."""
        ...


@dataclass(slots=True, eq=False)
class Waiting:
    """A request whose turn has not come.

    Attributes:
        client: who asks.
        lane: what is to answer.
        request: the question.
        arrived_ns: when it was read off the socket.
        place_ns: deadline that orders it: its own, or that of an earlier request of the same
            client whose place it took.
    """

    client: bytes
    lane: Lane
    request: Request
    arrived_ns: int
    place_ns: int

    @property
    def deadline_ns(self) -> int:
        """When its answer is of no use any more."""
        return self.request.deadline_ns


class Turn(NamedTuple):
    """What is to be done now.

    Attributes:
        batch: requests of one lane to be answered together; may be empty.
        shed: requests that can no longer be met.
    """

    batch: list[Waiting]
    shed: list[Waiting]


_place = attrgetter("place_ns")


class Schedule:
    """Requests that wait, one per client at most. Reads no clock and computes nothing."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiting] = {}
        self._served_ns: dict[bytes, int] = {}
        self._shed_since_ns: dict[Lane, int] = {}
        self._alone_until_ns: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, client: bytes, lane: Lane, request: Request, arrived_ns: int) -> Waiting | None:
        """Add a request, and return the older one of the same client that it replaces.

        It takes the older one's place, so that a client that asks faster than it is served
        still gets its turn.
        """
        if client not in self._served_ns:
            self._meet(client, arrived_ns)
        older = self._waiting.get(client)
        place_ns = request.deadline_ns
        if older is not None:
            place_ns = min(place_ns, older.place_ns)
        self._waiting[client] = Waiting(client, lane, request, arrived_ns, place_ns)
        return older

    def drop(self, client: bytes) -> None:
        """Forget a client and what it asked."""
        self._waiting.pop(client, None)
        self._served_ns.pop(client, None)

    def isolate(self, client: bytes, until_ns: int) -> None:
        """Answer a client's requests alone until ``until_ns``: what it asks breaks a batch."""
        if len(self._alone_until_ns) >= MAX_REMEMBERED:
            self._alone_until_ns.clear()
        self._alone_until_ns[client] = until_ns

    def move(self, before: Lane, after: Lane) -> None:
        """Have ``after`` answer what waits for ``before``, which is there no more."""
        for waiting in self._waiting.values():
            if waiting.lane is before:
                waiting.lane = after
        self._shed_since_ns.pop(before, None)

    def take(self, now_ns: int) -> Turn:
        """Return what is to be done at ``now_ns``; it does not wait any longer."""
        if len(self._waiting) == 1:
            return self._take_only(now_ns)
        costs: dict[Lane, int] = {}
        for waiting in self._waiting.values():
            if waiting.lane not in costs:
                costs[waiting.lane] = waiting.lane.expected_ns(1)
        order = sorted(self._waiting.values(), key=_place)
        shed = [w for w in order if self._is_lost(w, now_ns, costs[w.lane])]
        if shed:
            lost = set(map(id, shed))
            order = [w for w in order if id(w) not in lost]
        batch = self._choose(order, now_ns, costs) if order else []
        for waiting in (*shed, *batch):
            del self._waiting[waiting.client]
        self._note(batch, shed, now_ns)
        return Turn(batch, shed)

    def _take_only(self, now_ns: int) -> Turn:
        _, waiting = self._waiting.popitem()
        lost = self._is_lost(waiting, now_ns, waiting.lane.expected_ns(1))
        turn = Turn([], [waiting]) if lost else Turn([waiting], [])
        self._note(turn.batch, turn.shed, now_ns)
        return turn

    def _is_lost(self, waiting: Waiting, now_ns: int, cost_ns: int) -> bool:
        if now_ns >= waiting.deadline_ns:
            return True
        since_ns = self._shed_since_ns.get(waiting.lane, now_ns)
        return now_ns + cost_ns > waiting.deadline_ns and now_ns - since_ns < PROBE_NS

    def _choose(self, order: list[Waiting], now_ns: int, costs: dict[Lane, int]) -> list[Waiting]:
        """Return the batch that begins with the most urgent request, or costs fewer deadlines.

        One that begins further down leaves out all before it, who leave little time.
        """
        best, least = order[:1], math.inf
        for place in PLACES:
            if place >= len(order):
                break
            batch = self._batch(order[place:], now_ns, costs)
            lost = self._lost_after(batch, order, now_ns, costs)
            # Whoever had a turn long ago weighs more, so that nobody is left out for long.
            loss = sum(self._weight(waiting, now_ns) for waiting in lost)
            if loss < least:
                best, least = batch, loss
            if not lost:
                break
        return best

    def _lost_after(
        self, batch: list[Waiting], order: list[Waiting], now_ns: int, costs: dict[Lane, int]
    ) -> list[Waiting]:
        """Return the fewest that cannot be met after ``batch`` (Moore 1968, algorithm 1).

        A guess: what a lane has left is taken to go into one more batch of it.
        """
        lane, taken = batch[0].lane, set(map(id, batch))
        done_ns = now_ns + (lane.expected_ns(len(batch)) if len(batch) > 1 else costs[lane])
        shares: dict[Lane, int] = {}
        kept: list[tuple[float, int, Waiting]] = []
        lost: list[Waiting] = []
        for waiting in order:
            if id(waiting) in taken:
                continue
            lane = waiting.lane
            if lane not in shares:
                shares[lane] = _share_ns(lane, costs[lane])
                done_ns += costs[lane] - shares[lane]
            expense = shares[lane] / self._weight(waiting, now_ns)
            kept.append((expense, shares[lane], waiting))
            done_ns += shares[lane]
            if done_ns > waiting.deadline_ns:
                worst = max(kept, key=_expense)
                kept.remove(worst)
                lost.append(worst[2])
                done_ns -= worst[1]
        return lost

    def _batch(self, order: list[Waiting], now_ns: int, costs: dict[Lane, int]) -> list[Waiting]:
        """Return the first of ``order`` with whom it can be answered together in time."""
        first, batch = order[0], order[:1]
        lane = first.lane
        if lane.max_batch == 1 or self._is_alone(first, now_ns):
            return batch
        until_ns = min(first.deadline_ns, _patience_ns(order, now_ns, costs))
        for waiting in order[1:]:
            if len(batch) >= lane.max_batch:
                break
            if waiting.lane is not lane or self._is_alone(waiting, now_ns):
                continue
            done_ns = now_ns + lane.expected_ns(len(batch) + 1)
            if done_ns > until_ns:
                break
            if done_ns <= waiting.deadline_ns:
                batch.append(waiting)
                until_ns = min(until_ns, waiting.deadline_ns)
        return batch

    def _is_alone(self, waiting: Waiting, now_ns: int) -> bool:
        return self._alone_until_ns.get(waiting.client, 0) > now_ns

    def _weight(self, waiting: Waiting, now_ns: int) -> int:
        return DOUBLE_NS + now_ns - self._served_ns[waiting.client]

    def _meet(self, client: bytes, now_ns: int) -> None:
        """Begin to remember a client: it is owed nothing yet."""
        if len(self._served_ns) >= MAX_REMEMBERED:
            served = self._served_ns.items()
            self._served_ns = {one: at_ns for one, at_ns in served if one in self._waiting}
        self._served_ns[client] = now_ns

    def _note(self, batch: Iterable[Waiting], shed: Iterable[Waiting], now_ns: int) -> None:
        for waiting in shed:
            self._shed_since_ns.setdefault(waiting.lane, now_ns)
        for waiting in batch:
            self._served_ns[waiting.client] = now_ns
            self._shed_since_ns.pop(waiting.lane, None)


def _patience_ns(order: list[Waiting], now_ns: int, costs: dict[Lane, int]) -> int:
    """Return by when a batch must be done for the most urgent of each other lane to be met.

    One that is late after the first of ``order`` alone does not count.
    """
    lane = order[0].lane
    patience_ns, seen = 2**63, {lane}
    for waiting in order:
        if waiting.lane not in seen:
            seen.add(waiting.lane)
            latest_ns = waiting.deadline_ns - costs[waiting.lane]
            if latest_ns >= now_ns + costs[lane]:
                patience_ns = min(patience_ns, latest_ns)
    return patience_ns


def _share_ns(lane: Lane, cost_ns: int) -> int:
    """Return what one more request adds to a batch."""
    return cost_ns if lane.max_batch == 1 else max(0, lane.expected_ns(2) - cost_ns)


def _expense(kept: tuple[float, int, Waiting]) -> float:
    return kept[0]
