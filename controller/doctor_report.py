"""What an examination of a machine found, what follows from it, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from controller.floor import Quantiles
from controller.host import Host

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

RATES_HZ = (50.0, 100.0, 200.0, 500.0, 1000.0)
INFER_RATE_HZ = 100.0
SPIN_NS = 100_000
SHARE = 0.5
"""Part of a period that waking, transport and inference may take; the rest is the plant's."""

Wait = Literal["sleep", "spin", "fifo"]
Load = Literal["idle", "loaded"]
WAITS: Mapping[Wait, str] = {
    "sleep": "sleep",
    "spin": f"sleep + {SPIN_NS // 1000} µs spin",
    "fifo": f"sleep + {SPIN_NS // 1000} µs spin, SCHED_FIFO",
}


class Wake(msgspec.Struct, frozen=True):
    """Lateness of the ticks of an empty loop.

    Attributes:
        load: idle, or loaded with one busy process per core.
        wait: sleep; spin, the last 100 µs of it spinning; fifo, that under SCHED_FIFO.
        rate_hz: rate of the loop.
        late_us: tick's deadline to wake-up.
    """

    load: Load
    wait: Wait
    rate_hz: float
    late_us: Quantiles


class RoundTrip(msgspec.Struct, frozen=True):
    """A paced request over an ipc socket to another process and back.

    Attributes:
        load: idle, or loaded with one busy process per core.
        rate_hz: rate of the requests.
        round_trip_us: sending to having the answer.
    """

    load: Load
    rate_hz: float
    round_trip_us: Quantiles


class Inference(msgspec.Struct, frozen=True):
    """One paced call of a policy in this process.

    Attributes:
        load: idle, or loaded with one busy process per core.
        infer_us: duration of the call.
    """

    load: Load
    infer_us: Quantiles


class Verdict(msgspec.Struct, frozen=True):
    """What can be held under one load.

    Attributes:
        load: idle, or loaded with one busy process per core.
        wait: the way of waiting whose p99.9 is the least late.
        wake_us: p99.9 of the wake-up with it.
        floor_us: p99.9 of wake-up, round trip and inference, summed.
        ticks_hz: highest standard rate at which a tick begins in the first half of its
            period, so that a command leaves in time; None when none is.
        answers_hz: the same for an answer to this tick's observation; below, an older chunk
            or the local replica stands in.
    """

    load: Load
    wait: Wait
    wake_us: float
    floor_us: float
    ticks_hz: float | None
    answers_hz: float | None


class DoctorReport(msgspec.Struct, frozen=True):
    """What was measured and what follows from it.

    Attributes:
        host: facts of the machine.
        seconds: length of the examination.
        wake: lateness by load, way of waiting and rate.
        transport: round trips by load and rate.
        inference: of the policy, by load; empty without one.
        verdicts: idle and loaded.
        advice: what would raise the rate, the most effective first; empty when nothing would.
    """

    host: Host
    seconds: float
    wake: tuple[Wake, ...]
    transport: tuple[RoundTrip, ...]
    inference: tuple[Inference, ...]
    verdicts: tuple[Verdict, ...]
    advice: tuple[str, ...]


def judge(state: Load, wakes_us: Mapping[Wait, float], rest_us: float) -> Verdict:
    """Say what rate can be held.

    Args:
        state: the load it was measured under.
        wakes_us: p99.9 of the lateness by way of waiting.
        rest_us: p99.9 of round trip and inference, summed.
    """
    wait = min(wakes_us, key=lambda name: wakes_us[name])
    wake_us = wakes_us[wait]
    floor_us = wake_us + rest_us
    return Verdict(
        state, wait, round(wake_us, 1), round(floor_us, 1), _highest(wake_us), _highest(floor_us)
    )


def _highest(floor_us: float) -> float | None:
    """Return the highest standard rate of which the floor takes less than its share."""
    return max((rate for rate in RATES_HZ if floor_us < SHARE * 1e6 / rate), default=None)


def advise(host: Host, refused: Sequence[str], verdicts: Sequence[Verdict]) -> list[str]:
    """Return what would raise the rate, in one sentence each.

    Args:
        host: facts of the machine.
        refused: what the machine did not allow, from ``controller.realtime``.
        verdicts: what can be held as it is.
    """
    if all(verdict.answers_hz == RATES_HZ[-1] for verdict in verdicts):
        return []
    container = ["In a container: --cap-add SYS_NICE --ulimit rtprio=99 --ulimit memlock=-1."]
    return [*refused, *(container if refused else []), *_machine(host)]


def _machine(host: Host) -> Iterator[str]:
    if host.governor not in (None, "performance"):
        yield (
            f"Set the frequency governor to performance (now {host.governor}): "
            "cpupower frequency-set -g performance."
        )
    if host.cores < 3:
        yield (
            f"Give it more cores (now {host.cores}): loop, plant and policy server each want one."
        )
    if host.preemption != "PREEMPT_RT":
        yield "Use a PREEMPT_RT kernel if the worst case counts, not only the tail."


def in_words(verdict: Verdict) -> str:
    """Return the verdict as a sentence."""
    state = "idle" if verdict.load == "idle" else "every core busy"
    return (
        f"{state}: ticks on time {_up_to(verdict.ticks_hz)}, answers in time "
        f"{_up_to(verdict.answers_hz)} ({WAITS[verdict.wait]}; p99.9 of the wake-up "
        f"{verdict.wake_us / 1e3:.2f} ms, with transport and inference "
        f"{verdict.floor_us / 1e3:.2f} ms)"
    )


def _up_to(rate_hz: float | None) -> str:
    return f"up to {rate_hz:g} Hz" if rate_hz else f"not even at {RATES_HZ[0]:g} Hz"


def print_report(report: DoctorReport, console: Console) -> None:
    """Print tables of the measurements, then the verdict and the advice."""
    from rich import box
    from rich.table import Table

    host = report.host
    rights = "SCHED_FIFO allowed" if host.realtime else "SCHED_FIFO not allowed"
    governor = f", governor {host.governor}" if host.governor else ""
    console.print(
        f"{host.cpu}, {host.cores} cores, {host.kernel} {host.preemption}{governor}, {rights}, "
        f"{host.python}",
        highlight=False,
    )
    table = Table(title="µs", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "load", "rate Hz"):
        table.add_column(heading, no_wrap=True)
    for heading in ("p50", "p99", "p99.9", "max", "samples"):
        table.add_column(heading, justify="right")
    for wake in report.wake:
        _row(table, f"wake-up, {WAITS[wake.wait]}", wake.load, wake.rate_hz, wake.late_us)
    for trip in report.transport:
        _row(table, "round trip, ipc", trip.load, trip.rate_hz, trip.round_trip_us)
    for call in report.inference:
        _row(table, "inference", call.load, INFER_RATE_HZ, call.infer_us)
    console.print(table)
    for verdict in report.verdicts:
        console.print(in_words(verdict), highlight=False)
    for line in report.advice:
        console.print(f"- {line}", highlight=False)


def _row(table: Table, what: str, state: Load, rate_hz: float, figures: Quantiles) -> None:
    numbers = (figures.p50, figures.p99, figures.p99_9, figures.max)
    table.add_row(what, state, f"{rate_hz:g}", *(f"{n:.0f}" for n in numbers), str(figures.samples))
