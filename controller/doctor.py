"""What control rate this machine can hold, measured; and what would raise it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from controller.clock import MonotonicClock
from controller.doctor_report import (
    INFER_RATE_HZ,
    SPIN_NS,
    DoctorReport,
    Inference,
    Load,
    RoundTrip,
    Verdict,
    Wait,
    Wake,
    advise,
    judge,
    print_report,
    settings_for,
)
from controller.endpoints import endpoint_for
from controller.errors import ConfigError, PeerTimeout
from controller.floor import (
    ANSWER_TIMEOUT_NS,
    Echo,
    echo,
    lateness,
    load,
    pace,
    quantiles,
)
from controller.histogram import Nanoseconds, Quantiles
from controller.host import Steal, examine_host
from controller.loop_config import LoopConfig
from controller.process import RuntimeDirectory
from controller.realtime import has_fifo, realtime_section, urgent

__all__ = ["DoctorReport", "examine", "print_report"]

WAKE_RATES_HZ = (100.0, 500.0, 1000.0)
ECHO_RATES_HZ = (100.0, 500.0)
PAYLOAD = (bytes(64), bytes(256))
"""Header and arrays of a small robot's observation."""
MINIMUM_S = 1.0


def examine(seconds: float = 10.0, infer: Callable[[], None] | None = None) -> DoctorReport:
    """Measure for about ``seconds``, half of it with every core busy.

    A short look finds the usual tail, not the rare one: p99.9 of some hundred samples is
    nearly their maximum, and a machine's worst minute may not be this one.

    Args:
        seconds: length of the whole, at least 1.
        infer: one inference of a policy, for its share of the period.

    Raises:
        ConfigError: ``seconds`` is too short for any figure.
    """
    if seconds < MINIMUM_S:
        raise ConfigError(f"seconds: expected a number >= {MINIMUM_S:g}, got {seconds:g}")
    with realtime_section(LoopConfig()) as refused:
        realtime = has_fifo()
    host = examine_host(realtime=realtime)
    waits: tuple[Wait, ...] = ("sleep", "spin", "fifo") if realtime else ("sleep", "spin")
    wake: list[Wake] = []
    transport: list[RoundTrip] = []
    inference: list[Inference] = []
    verdicts: list[Verdict] = []
    steal = Steal()
    with RuntimeDirectory() as directory, contextlib.ExitStack() as stack:
        with urgent():
            client = stack.enter_context(echo(endpoint_for(directory, "echo")))
        for state in ("idle", "loaded"):
            look = _Look(state, seconds / 2, waits, infer)
            with load(host.cores) if state == "loaded" else contextlib.nullcontext():
                wake += look.wake()
                transport += look.transport(client)
                inference += look.inference()
            verdicts.append(look.verdict())
    return DoctorReport(
        host=host,
        seconds=seconds,
        wake=tuple(wake),
        transport=tuple(transport),
        inference=tuple(inference),
        verdicts=tuple(verdicts),
        settings=settings_for(verdicts, realtime),
        steal=steal.share(),
        advice=tuple(advise(host, refused, verdicts, steal.share())),
    )


class _Look:
    """The measurements under one load, and the samples behind them."""

    def __init__(
        self,
        state: Load,
        seconds: float,
        waits: Sequence[Wait],
        infer: Callable[[], None] | None,
    ) -> None:
        self._state = state
        self._waits = waits
        self._infer = infer
        self._late: dict[Wait, list[Nanoseconds]] = {wait: [] for wait in waits}
        self._trips: list[Nanoseconds] = []
        self._calls: list[Nanoseconds] = []
        cells = len(waits) * len(WAKE_RATES_HZ) + 2 * len(ECHO_RATES_HZ) + (infer is not None)
        self._cell_s = seconds / cells

    def wake(self) -> Iterator[Wake]:
        for wait in self._waits:
            clock = MonotonicClock(spin_ns=0 if wait == "sleep" else SPIN_NS)
            with realtime_section(LoopConfig(sched_fifo="auto" if wait == "fifo" else "off")):
                self._late[wait] += [lateness(clock, hz, self._cell_s) for hz in WAKE_RATES_HZ]
            for rate_hz, late in zip(WAKE_RATES_HZ, self._late[wait], strict=True):
                yield Wake(self._state, wait, rate_hz, _some(late))

    def transport(self, client: Echo) -> Iterator[RoundTrip]:
        for rate_hz in ECHO_RATES_HZ:
            trips: list[int] = []

            def ask(tick: int, trips: list[int] = trips) -> None:
                try:
                    trips.append(client.round_trip_ns(PAYLOAD))
                except PeerTimeout:
                    trips.append(ANSWER_TIMEOUT_NS)

            with realtime_section(LoopConfig()):
                pace(MonotonicClock(), rate_hz, 2 * self._cell_s, ask)
            self._trips.append(np.array(trips, dtype=np.int64))
            yield RoundTrip(self._state, rate_hz, _some(self._trips[-1]))

    def inference(self) -> Iterator[Inference]:
        if self._infer is None:
            return
        clock, infer, calls = MonotonicClock(), self._infer, []
        infer()

        def call(tick: int) -> None:
            before_ns = clock.now_ns()
            infer()
            calls.append(clock.now_ns() - before_ns)

        with realtime_section(LoopConfig()):
            pace(clock, INFER_RATE_HZ, self._cell_s, call)
        self._calls.append(np.array(calls, dtype=np.int64))
        yield Inference(self._state, _some(self._calls[-1]))

    def verdict(self) -> Verdict:
        wakes_us = {wait: _p99_9_us(late) for wait, late in self._late.items()}
        rest_us = _p99_9_us(self._trips) + _p99_9_us(self._calls)
        fewest = min(sum(map(len, late)) for late in self._late.values())
        return judge(self._state, wakes_us, rest_us, fewest)


def _some(durations_ns: Nanoseconds) -> Quantiles:
    found = quantiles(durations_ns)
    assert found is not None, "every measurement takes at least one sample"
    return found


def _p99_9_us(parts: Sequence[Nanoseconds]) -> float:
    found = quantiles(np.concatenate(parts)) if parts else None
    return found.p99_9 if found else 0.0
