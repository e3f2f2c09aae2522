"""What the latency measurement found: one row for each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from controller.histogram import Histogram, Quantiles
from controller.latency.callers import Kind
from controller.latency.settings import Cell
from controller.latency.swarm import Ints, Samples

if TYPE_CHECKING:
    from rich.console import Console


class LatencyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement; times in microseconds, from when a request should have gone to its answer.

    Attributes:
        rate_hz: rate of each client.
        clients: how many asked at that rate.
        policy: name of the policy.
        steps: network evaluations of an answer, the median; 0 without an answer.
        transport: way to the servers.
        engine: what computed our server's actions; the baseline's is torch.
        device: where.
        load: what else happened.
        p50: of our server; None where nothing was due.
        p99: see ``p50``.
        p99_9: see ``p50``.
        max: see ``p50``.
        missed: answers of our server later than the deadline, or never; with the requests that
            an answer of more than a period kept from being made.
        baseline_p50: of the server of today's design; None where it was not measured.
        baseline_p99: see ``baseline_p50``.
        ratio_p50: baseline's by ours.
        ratio_p99: see ``ratio_p50``.
        echo_p50: of the bare echo.
        baseline_p99_9: see ``baseline_p50``.
        baseline_max: see ``baseline_p50``.
        baseline_missed: as ``missed``, of the baseline.
        echo_p99: of the bare echo.
        echo_missed: as ``missed``, of the echo.
        requests: that were due, of our server.
        skipped: of these, never made.
        unanswered: of these, without an answer within a second; they count as a second.
        queue_p50: median of the wait at our server.
        infer_p50: median of its computing.
        wire_p50: median of the rest.
        baseline_infer_p50: median of the baseline's computing.
        batch: requests answered together, the mean; 0 without an answer.
        asked_late_p99: how late the clients themselves were; not in any figure above. Near the
            figures it says that the machine, not the server, was measured.
        clock_offset_us: server's clock less the clients', by the protocol's estimate.
        clock_error_us: how far that may be off, either way.
        version: of the policy.
        histogram: of our server, in nanoseconds: HdrHistogram's compressed text, V2.
        baseline_histogram: of the baseline; empty without one.
    """

    rate_hz: float
    clients: int
    policy: str
    steps: int
    transport: str
    engine: str
    device: str
    load: str
    p50: float | None
    p99: float | None
    p99_9: float | None
    max: float | None
    missed: int
    baseline_p50: float | None
    baseline_p99: float | None
    ratio_p50: float | None
    ratio_p99: float | None
    echo_p50: float | None
    baseline_p99_9: float | None
    baseline_max: float | None
    baseline_missed: int | None
    echo_p99: float | None
    echo_missed: int
    requests: int
    skipped: int
    unanswered: int
    queue_p50: float | None
    infer_p50: float | None
    wire_p50: float | None
    baseline_infer_p50: float | None
    batch: float
    asked_late_p99: float | None
    clock_offset_us: float
    clock_error_us: float
    version: str
    histogram: str
    baseline_histogram: str


class LatencyReport(msgspec.Struct, frozen=True):
    """All measurements.

    Attributes:
        host: facts of the machine.
        created: when, ISO 8601.
        realtime: whether clients and servers ran under SCHED_FIFO.
        seconds: length of the measurement of each server in each cell.
        deadline: part of the period that an answer may take.
        rows: one for each cell.
        page: the page with the pictures; empty without one.
    """

    host: dict[str, Any]
    created: str
    realtime: bool
    seconds: float
    deadline: float
    rows: tuple[LatencyRow, ...]
    page: str = ""


def row_of(
    cell: Cell,
    samples: Mapping[Kind, Samples],
    deadline: float,
    *,
    version: str = "",
    offset_ns: tuple[int, int] = (0, 0),
) -> LatencyRow:
    """Return the figures of a cell.

    Args:
        cell: what was measured.
        samples: of ``policy``, ``echo`` and, if it was measured, ``baseline``.
        deadline: part of the period.
        version: of the policy.
        offset_ns: of the server's clock, and how far that may be off.
    """
    late_ns = deadline * 1e9 / cell.rate_hz
    ours, theirs, echo = samples["policy"], samples.get("baseline"), samples["echo"]
    own, other = Histogram(ours.latency_ns), Histogram(theirs.latency_ns if theirs else None)
    mine, its, floor = own.quantiles(), other.quantiles(), Histogram(echo.latency_ns).quantiles()
    told, bench = ours.queue_ns >= 0, cell.bench
    return LatencyRow(
        rate_hz=cell.rate_hz,
        clients=cell.clients,
        policy=bench.policy.name,
        steps=int(np.median(ours.evaluations[told])) if told.any() else 0,
        transport=bench.transport,
        engine=bench.engine,
        device=bench.device,
        load=cell.load,
        **_named(mine),
        missed=_over(ours, late_ns),
        **_named(its, "baseline_"),
        ratio_p50=_ratio(its, mine, "p50"),
        ratio_p99=_ratio(its, mine, "p99"),
        echo_p50=floor.p50 if floor else None,
        baseline_missed=_over(theirs, late_ns) if theirs else None,
        echo_p99=floor.p99 if floor else None,
        echo_missed=_over(echo, late_ns),
        requests=len(ours.at_ns),
        skipped=ours.skipped,
        unanswered=ours.unanswered,
        queue_p50=_at(ours.queue_ns, "p50"),
        infer_p50=_at(ours.infer_ns, "p50"),
        wire_p50=_at((ours.latency_ns - ours.queue_ns - ours.infer_ns)[told], "p50"),
        baseline_infer_p50=_at(theirs.infer_ns, "p50") if theirs else None,
        batch=round(float(ours.batch[told].mean()), 2) if told.any() else 0.0,
        asked_late_p99=_at(ours.late_ns, "p99"),
        clock_offset_us=round(offset_ns[0] / 1e3, 1),
        clock_error_us=round(offset_ns[1] / 2e3, 1),
        version=version,
        histogram=own.encoded(),
        baseline_histogram=other.encoded() if theirs else "",
    )


def _named(found: Quantiles | None, prefix: str = "") -> dict[str, Any]:
    names = ("p50", "p99", "p99_9", "max")
    return {f"{prefix}{name}": getattr(found, name) if found else None for name in names}


def _over(samples: Samples, late_ns: float) -> int:
    return int((samples.latency_ns > late_ns).sum())


def _at(times_ns: Ints, name: str) -> float | None:
    found = Histogram(times_ns).quantiles()
    return float(getattr(found, name)) if found else None


def _ratio(above: Quantiles | None, below: Quantiles | None, name: str) -> float | None:
    if above is None or below is None or not getattr(below, name):
        return None
    return round(float(getattr(above, name) / getattr(below, name)), 2)


HEADINGS = (
    "policy",
    "by",
    "clients",
    "p50",
    "p99",
    "p99.9",
    "max",
    "missed",
    "today's p50",
    "p99",
    "missed",
    "times p50",
    "p99",
    "echo p50",
)
WIDTH = 146
WORDS = 3
"""Columns of words, before those of numbers."""


def cells_of(row: LatencyRow) -> list[str]:
    """Return a row of the table, as headed by ``HEADINGS``."""
    device = "" if row.device == "cpu" else f" {row.device}"
    return [
        f"{row.policy} {row.engine}{device}",
        f"{row.transport} {row.load}",
        f"{row.clients} × {row.rate_hz:g} Hz",
        *map(_whole, (row.p50, row.p99, row.p99_9, row.max, row.missed)),
        *map(_whole, (row.baseline_p50, row.baseline_p99, row.baseline_missed)),
        *("-" if ratio is None else f"{ratio:.1f}" for ratio in (row.ratio_p50, row.ratio_p99)),
        _whole(row.echo_p50),
    ]


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def print_report(report: LatencyReport, console: Console) -> None:
    """Print one line per cell."""
    from rich.console import Console
    from rich.table import Table

    title = "µs from when a request should have gone to its answer"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(HEADINGS):
        words = place < WORDS
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*cells_of(row))
    # Columns cut to fit would hide what was measured: a narrow terminal folds the lines itself.
    Console(file=console.file, width=max(WIDTH, console.width)).print(table)
    if not report.realtime:
        console.print("SCHED_FIFO was not held: the tails are those of a desktop", highlight=False)
    if report.page:
        console.print(f"page: {report.page}", highlight=False)
