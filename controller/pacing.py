"""Absolute pacing: tick k begins at start + k·period, whatever happened before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.interfaces import Clock


@dataclass(frozen=True, slots=True)
class Tick:
    """One beat of the loop.

    Attributes:
        index: number of the period since the start; skipped periods leave gaps.
        deadline_ns: scheduled begin, ``start_ns + index * period_ns``.
        wake_ns: clock reading right after waking; less than one period after ``deadline_ns``.
    """

    index: int
    deadline_ns: int
    wake_ns: int


class Ticker:
    """Endless ticks on a fixed grid.

    A body that overruns does not shift the grid. Periods that have passed as a whole are
    skipped, so that there is never more than one tick for a deadline; the period that is still
    running gets its tick at once, late by less than a period. An overrun of 1.5, 2.5 or 3.2
    periods thus skips 0, 1 or 2 ticks.

    Args:
        clock: time, and the means to wait for it.
        period_ns: distance of two deadlines, at least 1.
        start_ns: deadline of tick 0.
    """

    def __init__(self, clock: Clock, period_ns: int, start_ns: int) -> None:
        if period_ns < 1:
            raise ValueError(f"period_ns is {period_ns}, expected at least 1")
        self.clock = clock
        self.period_ns = period_ns
        self.start_ns = start_ns

    def __iter__(self) -> Iterator[Tick]:
        index = 0
        while True:
            self.clock.sleep_until(self.start_ns + index * self.period_ns)
            wake_ns = self.clock.now_ns()
            index = max(index, (wake_ns - self.start_ns) // self.period_ns)
            yield Tick(index, self.start_ns + index * self.period_ns, wake_ns)
            index += 1
