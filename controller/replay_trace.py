"""Latencies of a policy's answers, request by request: from a log, from a file, or made up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import ConfigError, DataError
from controller.log_reader import read_log
from controller.run_log import RunLog
from controller.types import Reason, Request, Rung


@dataclass(frozen=True)
class LatencyTrace:
    """Latencies by tick of the request.

    Attributes:
        ticks: ticks whose latency is known, ascending.
        latencies_ns: of the request of each; None where the answer is lost.
        cycle: ticks after which the trace begins again; 0 where a tick beyond the last known
            one, or between two, takes the latency before it.
    """

    ticks: Sequence[int]
    latencies_ns: Sequence[int | None]
    cycle: int = 0

    def __call__(self, request: Request) -> int | None:
        """Return the latency of a request in nanoseconds; None when its answer is lost."""
        tick = request.tick % self.cycle if self.cycle else request.tick
        return self.latencies_ns[max(0, bisect_right(self.ticks, tick) - 1)]

    def scaled(self, factor: float) -> LatencyTrace:
        """Return the trace with every latency times ``factor``."""
        longer = [None if ns is None else round(ns * factor) for ns in self.latencies_ns]
        return LatencyTrace(self.ticks, longer, self.cycle)

    def facts(self) -> dict[str, float | int]:
        """Return number, median and extremes in milliseconds, and how many are lost."""
        known = np.array([ns for ns in self.latencies_ns if ns is not None], np.int64) / 1e6
        facts: dict[str, float | int] = {
            "answers": len(self.latencies_ns),
            "lost": len(self.latencies_ns) - len(known),
        }
        for name, percent in (("p50_ms", 50), ("p99_ms", 99), ("max_ms", 100)):
            if len(known):
                facts[name] = round(float(np.percentile(known, percent)), 3)
        return facts


def constant(latency_ms: float) -> LatencyTrace:
    """Return the trace of one latency."""
    return LatencyTrace([0], [round(latency_ms * 1e6)])


def trace_of(log: RunLog) -> LatencyTrace:
    """Return the latencies that the policy's answers had in a run.

    An answer that acted has the time from its request to it. A tick that waited in vain lost
    its answer. The replica in the loop's process is no answer of the policy.

    Raises:
        DataError: the log holds no latency.
    """
    found: dict[int, int | None] = {}
    waited = log.answer_tick < log.tick
    vain = waited & ((log.reasons & (Reason.LATE | Reason.UNREACHABLE)) != 0)
    settings: dict[str, Any] = log.header.config.get("loop", {})
    ahead = settings.get("chunks", {}).get("ask") == "ahead"
    if not ahead:
        found.update((int(tick), None) for tick in log.tick[vain])
    for row in np.flatnonzero(np.isin(log.rung, (Rung.FRESH, Rung.TAIL))):
        found[int(log.answer_tick[row])] = _latency_ns(log, int(row))
    if not any(ns is not None for ns in found.values()):
        raise DataError(f"{log.path}: no answer of a policy acted, so there is no latency to take")
    ticks = sorted(found)
    return LatencyTrace(ticks, [found[tick] for tick in ticks])


def read_trace(path: Path | str) -> LatencyTrace:
    """Read a file of latencies, or take those of a log, one request after the other.

    Raises:
        DataError: a line is no latency, or there is none.
        LogError: a log cannot be read.
        ConfigError: there is no such file.
    """
    path = Path(path)
    if path.suffix == ".mcap" or path.is_dir():
        taken = trace_of(read_log(path)).latencies_ns
        return LatencyTrace(range(len(taken)), taken, len(taken))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"latency.trace: cannot read {path}: {error}") from error
    numbered = enumerate((line.partition("#")[0].strip() for line in lines), 1)
    latencies = [_latency(text, path, number) for number, text in numbered if text]
    if not latencies:
        raise DataError(f"{path}: no latency in it, expected milliseconds, one a line")
    return LatencyTrace(range(len(latencies)), latencies, len(latencies))


def _latency(text: str, path: Path, number: int) -> int | None:
    if text == "lost":
        return None
    try:
        latency_ms = float(text)
    except ValueError:
        latency_ms = -1.0
    if not 0 <= latency_ms < math.inf:
        raise DataError(f'{path}:{number}: got {text!r}, expected milliseconds or "lost"')
    return round(latency_ms * 1e6)


def _latency_ns(log: RunLog, row: int) -> int:
    told = int(log.rtt_ns[row])
    if told > 0:
        return told
    # Logs of earlier versions hold the stages of the tick that waited, which add up to it.
    stages = (int(log.stages[name][row]) for name in ("transport", "queue", "infer"))
    return max(0, sum(ns for ns in stages if ns > 0))
