"""The way to wait for a deadline: sleeping, or sleeping and spinning, as a short look decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.clock import MonotonicClock
from controller.interfaces import Clock
from controller.loop_config import LoopConfig
from controller.realtime import has_fifo

WAKES = 50
"""Looks at each way of waiting."""
APART_NS = 2_000_000
"""Between two looks: long enough to fall asleep, short enough for 0.2 s in all."""
GAIN = 1.1
"""How many times less late spinning has to be under SCHED_FIFO; it takes a core's time."""
GAIN_SHARED = 4.0
"""The same without: who spins uses up the time that the scheduler grants, and is then late when
others want the core. Measured on two shared cores, both busy: p99 5 ms, against 0.2 ms asleep."""

Nanoseconds = NDArray[np.int64]


class Pacer(NamedTuple):
    """A way to wait for a deadline.

    Attributes:
        name: sleep, or spin: the last ``spin_ns`` of the sleep.
        spin_ns: how long to busy-wait; 0 for sleep.
        why: one line on how it was chosen.
    """

    name: Literal["sleep", "spin"]
    spin_ns: int
    why: str


def choose_pacer(
    config: LoopConfig, clock_of: Callable[[int], Clock] = MonotonicClock, fifo: bool | None = None
) -> Pacer:
    """Return the way to wait that ``config`` names, or the better one by measurement.

    Call it under the scheduling that the loop has got, before anything moves: ``auto`` takes
    0.2 s. Spinning has to be clearly less late than sleeping at p90 and at p99: of so few
    wake-ups the latter is their worst, which may be an accident of either.

    Args:
        config: ``pacer`` and ``spin_us``.
        clock_of: makes a clock that spins so many nanoseconds.
        fifo: whether this process is under SCHED_FIFO; None to look.
    """
    spin_ns = round(config.spin_us * 1e3)
    if config.pacer == "spin":
        return Pacer("spin", spin_ns, f"pacer spin: {config.spin_us:g} us, as set")
    if config.pacer == "sleep" or not spin_ns:
        return Pacer("sleep", 0, "pacer sleep: as set")
    asleep, spun = wake_ups(clock_of(0), clock_of(spin_ns))
    held = has_fifo() if fifo is None else fifo
    gain = GAIN if held else GAIN_SHARED
    spins = all(gain * there < here for here, there in zip(asleep, spun, strict=True))
    figures = " / ".join(f"{each[0] / 1e3:.0f} and {each[1] / 1e3:.0f}" for each in (asleep, spun))
    why = (
        f"pacer {'spin' if spins else 'sleep'}: p90 and p99 of {WAKES} wake-ups {figures} us "
        f"asleep / with {config.spin_us:g} us of spinning, which has to be {gain:g} times less "
        f"late ({'SCHED_FIFO' if held else 'no SCHED_FIFO'})"
    )
    return Pacer("spin", spin_ns, why) if spins else Pacer("sleep", 0, why)


def wake_ups(*clocks: Clock, wakes: int = WAKES) -> list[tuple[int, int]]:
    """Return p90 and p99 of the lateness of each clock in nanoseconds.

    They take turns, so that a disturbance of some milliseconds meets all alike.
    """
    late = np.empty((wakes, len(clocks)), dtype=np.int64)
    for row in late:
        for column, clock in enumerate(clocks):
            deadline_ns = clock.now_ns() + APART_NS
            clock.sleep_until(deadline_ns)
            row[column] = clock.now_ns() - deadline_ns
    return [
        (int(p90), int(p99)) for p90, p99 in np.percentile(late, (90, 99), 0, method="higher").T
    ]
