"""What an examination of a machine found, what follows from it, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from controller.histogram import Quantiles
from controller.host import Host
from controller.ranges import SchedFifo

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

RATES_HZ = (50.0, 100.0, 200.0, 500.0, 1000.0)
INFER_RATE_HZ = 100.0
SPIN_NS = 100_000
STEAL = 0.005
"""Share of stolen time above which it is told."""
RARE = 100_000
"""Wake-ups below which a delay that comes once a quarter of an hour at 100 Hz is seldom seen."""
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
        answers_hz: the same for an answer to this tick's observation; above, an older chunk
            or the local replica stands in.
        samples: wake-ups that ``wake_us`` is of; p99.9 of fewer than 1000 is the worst of them.
    """

    load: Load
    wait: Wait
    wake_us: float
    floor_us: float
    ticks_hz: float | None
    answers_hz: float | None
    samples: int = 0


class Advised(msgspec.Struct, frozen=True):
    """Settings of the loop that follow from the examination.

    Attributes:
        rate_hz: highest standard rate at which answers are in time, with every core busy if
            that is held, else idle; None when none is.
        pacer: sleep or spin.
        spin_us: how long to spin; 0 for sleep.
        answer_fraction: part of the period to wait for an answer: what the answer takes at
            p99.9 and half as much again, within 0.3 and 0.8, so that the fallback and the
            command have the rest.
        sched_fifo: auto, where it is allowed, or off.
    """

    rate_hz: float | None
    pacer: Literal["sleep", "spin"]
    spin_us: float
    answer_fraction: float
    sched_fifo: SchedFifo


class DoctorReport(msgspec.Struct, frozen=True):
    """What was measured and what follows from it.

    Attributes:
        host: facts of the machine.
        seconds: length of the examination.
        wake: lateness by load, way of waiting and rate.
        transport: round trips by load and rate.
        inference: of the policy, by load; empty without one.
        verdicts: idle and loaded.
        settings: of the loop, that follow.
        steal: share of the processor time that a hypervisor took meanwhile; None unknown.
        advice: what would raise the rate, the most effective first; empty when nothing would.
    """

    host: Host
    seconds: float
    wake: tuple[Wake, ...]
    transport: tuple[RoundTrip, ...]
    inference: tuple[Inference, ...]
    verdicts: tuple[Verdict, ...]
    settings: Advised
    steal: float | None
    advice: tuple[str, ...]


def judge(state: Load, wakes_us: Mapping[Wait, float], rest_us: float, samples: int = 0) -> Verdict:
    """Say what rate can be held.

    The sum of the parts' p99.9 is more than the p99.9 of their sum, unless they are late
    together: on the safe side.

    Args:
        state: the load it was measured under.
        wakes_us: p99.9 of the lateness by way of waiting.
        rest_us: p99.9 of round trip and inference, summed.
        samples: wake-ups behind each of ``wakes_us``.
    """
    wait = min(wakes_us, key=lambda name: wakes_us[name])
    wake_us = wakes_us[wait]
    floor_us = wake_us + rest_us
    return Verdict(
        load=state,
        wait=wait,
        wake_us=round(wake_us, 1),
        floor_us=round(floor_us, 1),
        ticks_hz=_highest(wake_us),
        answers_hz=_highest(floor_us),
        samples=samples,
    )


def settings_for(verdicts: Sequence[Verdict], realtime: bool) -> Advised:
    """Return the settings of the loop that follow from what can be held.

    The busy machine decides where it holds any rate: a loop is seldom alone for long. The way
    to wait is that of the busy machine in any case: spinning that pays only on an idle one
    costs most when it counts.

    Args:
        verdicts: idle and loaded.
        realtime: whether SCHED_FIFO is allowed.
    """
    busiest = verdicts[-1]
    held = next((each for each in reversed(verdicts) if each.answers_hz), busiest)
    spins = busiest.wait != "sleep"
    period_us = 1e6 / (held.answers_hz or RATES_HZ[0])
    wanted = 1.5 * (held.floor_us - held.wake_us) / period_us
    return Advised(
        rate_hz=held.answers_hz,
        pacer="spin" if spins else "sleep",
        spin_us=SPIN_NS / 1e3 if spins else 0.0,
        answer_fraction=round(min(0.8, max(0.3, wanted)), 2),
        sched_fifo="auto" if realtime else "off",
    )


def _highest(floor_us: float) -> float | None:
    """Return the highest standard rate of which the floor takes less than its share."""
    return max((rate for rate in RATES_HZ if floor_us < SHARE * 1e6 / rate), default=None)


def advise(
    host: Host, refused: Sequence[str], verdicts: Sequence[Verdict], steal: float | None = None
) -> list[str]:
    """Return what would raise the rate, in one sentence each, the most effective first.

    Args:
        host: facts of the machine.
        refused: what the machine did not allow, from ``controller.realtime``.
        verdicts: what can be held as it is.
        steal: share of the processor time that a hypervisor took; None unknown.
    """
    if all(verdict.answers_hz == RATES_HZ[-1] for verdict in verdicts):
        return []
    container = ["In a container: --cap-add SYS_NICE --ulimit rtprio=99 --ulimit memlock=-1."]
    return [*refused, *(container if refused else []), *_below(host, steal), *_machine(host)]


def _below(host: Host, steal: float | None) -> Iterator[str]:
    if steal is not None and steal > STEAL:
        yield (
            f"The hypervisor took {steal:.1%} of the processor time meanwhile: ask for dedicated "
            "cores, or leave the virtual machine. No setting in here makes up for it."
        )
    elif host.virtual:
        yield (
            "This is a virtual machine: what its host does shows as a rare long delay, which no "
            "setting in here prevents."
        )


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
    elif not host.isolated:
        yield (
            "Keep a core for the loop: boot with isolcpus=N, and set loop.cpu=N "
            "(no core is isolated now)."
        )
    if host.huge_pages == "always":
        yield (
            "Set transparent huge pages to madvise (now always): joining pages stops a process "
            "for a moment. echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
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


def in_settings(advised: Advised) -> str:
    """Return the advised settings as words of a command line."""
    words = [
        *([f"loop.rate_hz={advised.rate_hz:g}"] if advised.rate_hz else []),
        f"loop.pacer={advised.pacer}",
        *([f"loop.spin_us={advised.spin_us:g}"] if advised.spin_us else []),
        f"loop.answer_fraction={advised.answer_fraction:g}",
        f"loop.sched_fifo={advised.sched_fifo}",
    ]
    return " ".join(words)


def on_the_tail(report: DoctorReport) -> str:
    """Say what so short a look cannot see; empty after a long one."""
    fewest = min(verdict.samples for verdict in report.verdicts)
    if fewest >= RARE:
        return ""
    basis = "the worst seen" if fewest < 1000 else f"the worst {max(1, fewest // 1000)} of them"
    return (
        f"p99.9 rests on {fewest} wake-ups, {basis}: a rarer delay was not looked for. "
        f"A look of {report.seconds * RARE / max(1, fewest) / 60:.0f} minutes would find it: "
        f"onebeat doctor seconds={report.seconds * RARE / max(1, fewest):.0f}"
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
    table.add_column("")
    for heading in ("load", "rate Hz"):
        table.add_column(heading, no_wrap=True)
    for heading in ("p50", "p99", "p99.9", "max", "samples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for wake in report.wake:
        _row(table, f"wake-up, {WAITS[wake.wait]}", wake.load, wake.rate_hz, wake.late_us)
    for trip in report.transport:
        _row(table, "round trip, ipc", trip.load, trip.rate_hz, trip.round_trip_us)
    for call in report.inference:
        _row(table, "inference", call.load, INFER_RATE_HZ, call.infer_us)
    console.print(table)
    for verdict in report.verdicts:
        console.print(in_words(verdict), highlight=False)
    if tail := on_the_tail(report):
        console.print(tail, highlight=False)
    console.print(f"settings that follow: {in_settings(report.settings)}", highlight=False)
    for line in report.advice:
        console.print(f"- {line}", highlight=False)


def _row(table: Table, what: str, state: Load, rate_hz: float, figures: Quantiles) -> None:
    numbers = (figures.p50, figures.p99, figures.p99_9, figures.max)
    table.add_row(what, state, f"{rate_hz:g}", *(f"{n:.0f}" for n in numbers), str(figures.samples))
