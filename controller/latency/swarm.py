"""Many paced clients in one process: each on its own grid, none waiting for another."""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.interfaces import Clock
from controller.latency.callers import ANSWER_TIMEOUT_NS, Answered, Caller

LOOK_NS = 50_000_000
"""Longest wait before open questions are looked at for their age."""

COLUMNS = 7
"""Arrays of :class:`Samples`."""

Ints = NDArray[np.int64]


class Samples(NamedTuple):
    """What some clients saw; (T,) arrays in nanoseconds, in the order of the ends.

    Every request that was due is there: also those that were never made, because the answer
    before them took whole periods. They waited from when they were due to that answer.

    Attributes:
        at_ns: when each request was due, from the start.
        latency_ns: from when a request should have gone to its answer. That is when it went,
            or, where the answer before it kept it, when it was due.
        queue_ns: time at the server, waiting; -1 for none.
        infer_ns: time at the server, computing; -1 for none.
        late_ns: how late this side sent a request that nothing kept; -1 for the others.
        evaluations: network evaluations spent; 0 unknown.
        batch: requests answered together; 0 unknown.
        unanswered: how many had no answer, or a refusal; they count as if it took a second.
        skipped: how many were never made.
    """

    at_ns: Ints
    latency_ns: Ints
    queue_ns: Ints
    infer_ns: Ints
    late_ns: Ints
    evaluations: Ints
    batch: Ints
    unanswered: int
    skipped: int


class Event(NamedTuple):
    """Something to do in the middle, at a time from the start."""

    at_ns: int
    act: Callable[[], None]


class Wait(Protocol):
    """Waits for the first of some descriptors to become readable, or for a time."""

    def __call__(self, callers: Sequence[Caller], timeout_ns: int) -> Sequence[Caller]:
        """Return those that may have an answer."""
        ...


def wait_readable(callers: Sequence[Caller], timeout_ns: int) -> Sequence[Caller]:
    """Wait in the kernel. Takes 10 us for 64 callers; poll and epoll count in milliseconds."""
    ready, _, _ = select.select(callers, (), (), max(0, timeout_ns) / 1e9)
    return ready


@dataclass(slots=True)
class _Client:
    """One client; ``open_ns`` is when its open question should have gone."""

    place: int
    caller: Caller
    phase_ns: int
    index: int = 0
    open_ns: int = 0
    sent_ns: int = 0
    kept: bool = False
    late_ns: int = -1

    def due_ns(self, start_ns: int, period_ns: int) -> int:
        return start_ns + self.phase_ns + self.index * period_ns


@dataclass(slots=True)
class _Table:
    """Rows of :class:`Samples` as they come."""

    rows: list[tuple[int, ...]] = field(default_factory=list)
    unanswered: int = 0
    skipped: int = 0

    def samples(self) -> Samples:
        at, latency, queue, infer, late, evaluations, batch = (
            np.array(self.rows, dtype=np.int64).reshape(-1, COLUMNS).T
        )
        return Samples(
            at, latency, queue, infer, late, evaluations, batch, self.unanswered, self.skipped
        )


class Swarm:
    """Clients that ask at a rate each, one open question at most.

    A client whose answer is there later than the next request is due makes that at once if its
    period still runs, and leaves out periods that have passed as a whole, as
    :class:`controller.pacing.Ticker` does.

    Args:
        callers: connected clients.
        rate_hz: of each.
        phases: part of the period, in [0, 1), by which each is behind the grid.
        clock: time.
        wait: waits for answers.
    """

    def __init__(
        self,
        callers: Sequence[Caller],
        rate_hz: float,
        phases: Sequence[float],
        clock: Clock,
        wait: Wait = wait_readable,
    ) -> None:
        self._period_ns = round(1e9 / rate_hz)
        self._clients = [
            _Client(place, caller, round(phase * self._period_ns))
            for place, (caller, phase) in enumerate(zip(callers, phases, strict=True))
        ]
        self._open: dict[Caller, _Client] = {}
        self._clock, self._wait = clock, wait
        self._tick = self._start_ns = self._end_ns = self._from_ns = 0
        self._table = _Table()
        self._due: list[tuple[int, int]] = []

    def run(
        self, start_ns: int, seconds: float, warm_up_s: float = 0.0, events: Sequence[Event] = ()
    ) -> Samples:
        """Ask from ``start_ns`` on, and return what was due after the warm-up.

        Args:
            start_ns: on the clock.
            seconds: time in which requests are due, after the warm-up.
            warm_up_s: time before it that does not count.
            events: what else to do.
        """
        self._start_ns, self._from_ns = start_ns, start_ns + round(warm_up_s * 1e9)
        self._end_ns = self._from_ns + round(seconds * 1e9)
        self._table = _Table()
        self._due, ahead = [], sorted(events, key=lambda event: event.at_ns)
        for client in self._clients:
            client.index, client.kept = 0, False
            heapq.heappush(self._due, (client.due_ns(start_ns, self._period_ns), client.place))
        while self._due or self._open:
            while ahead and start_ns + ahead[0].at_ns <= self._clock.now_ns():
                ahead.pop(0).act()
            self._ask_due()
            for caller in self._wait(tuple(self._open), self._patience_ns(ahead)):
                if caller in self._open:
                    self._look(self._open[caller])
            self._give_up()
        for event in ahead:
            event.act()
        return self._table.samples()

    def _patience_ns(self, ahead: Sequence[Event]) -> int:
        now_ns = self._clock.now_ns()
        next_ns = now_ns + LOOK_NS
        if self._due:
            next_ns = min(next_ns, self._due[0][0])
        if ahead:
            next_ns = min(next_ns, self._start_ns + ahead[0].at_ns)
        return next_ns - now_ns

    def _ask_due(self) -> None:
        while self._due and self._due[0][0] <= self._clock.now_ns():
            due_ns, place = heapq.heappop(self._due)
            client = self._clients[place]
            self._tick += 1
            client.sent_ns = self._clock.now_ns()
            client.open_ns = due_ns if client.kept else client.sent_ns
            client.late_ns = -1 if client.kept else client.sent_ns - due_ns
            self._open[client.caller] = client
            if client.caller.ask(self._tick):
                # The library may have taken note of a quick answer while it sent.
                self._look(client)
            else:
                self._end(client, None)

    def _look(self, client: _Client) -> None:
        found = client.caller.answer()
        if found is not None:
            self._end(client, found)

    def _give_up(self) -> None:
        late_ns = self._clock.now_ns() - ANSWER_TIMEOUT_NS
        for client in tuple(self._open.values()):
            if client.sent_ns <= late_ns:
                client.caller.abandon()
                self._end(client, None)

    def _end(self, client: _Client, found: Answered | None) -> None:
        """Close the open question, and set the time of the next."""
        now_ns, index = self._clock.now_ns(), client.index
        del self._open[client.caller]
        behind = (now_ns - client.due_ns(self._start_ns, self._period_ns)) // self._period_ns
        client.index += max(1, behind)
        due_ns = client.due_ns(self._start_ns, self._period_ns)
        client.kept = now_ns > due_ns
        if due_ns < self._end_ns:
            heapq.heappush(self._due, (due_ns, client.place))
        good = found is not None and found.ok
        waited_ns = now_ns - client.open_ns if good else ANSWER_TIMEOUT_NS
        self._note(client, index, waited_ns, found or Answered(ok=False), client.late_ns)
        for missing in range(index + 1, client.index):
            at_ns = self._start_ns + client.phase_ns + missing * self._period_ns
            if at_ns < self._end_ns:
                self._note(client, missing, now_ns - at_ns, None, -1)

    def _note(
        self, client: _Client, index: int, latency_ns: int, found: Answered | None, late_ns: int
    ) -> None:
        at_ns = self._start_ns + client.phase_ns + index * self._period_ns
        if at_ns < self._from_ns:
            return
        self._table.skipped += found is None
        self._table.unanswered += found is not None and not found.ok
        said = found or Answered()
        self._table.rows.append(
            (
                at_ns - self._from_ns,
                latency_ns,
                said.queue_ns,
                said.infer_ns,
                late_ns,
                said.evaluations,
                said.batch,
            )
        )


def merged(parts: Sequence[Samples], offsets_ns: Sequence[int]) -> Samples:
    """Return all samples of several pieces, each later than the one before by an offset."""
    at, latency, queue, infer, late, evaluations, batch = (
        np.concatenate(column) for column in zip(*(part[:COLUMNS] for part in parts), strict=True)
    )
    at = at + np.repeat(np.array(offsets_ns, np.int64), [len(part.at_ns) for part in parts])
    unanswered = sum(part.unanswered for part in parts)
    skipped = sum(part.skipped for part in parts)
    return Samples(at, latency, queue, infer, late, evaluations, batch, unanswered, skipped)


def phases(clients: int, seed: int = 0) -> list[float]:
    """Return the phases of some clients: robots that nobody has brought into step."""
    return [float(phase) for phase in np.random.default_rng(seed).random(clients)]
