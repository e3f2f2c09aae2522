"""The page of a latency measurement: table, tails, time, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from controller.latency.rows import HEADINGS, LatencyReport, LatencyRow, cells_of
from controller.latency.sweep import Measured
from controller.page import Picture, document, drawn, figure, pairs, section, table
from controller.plots import Curve, Stack, dots_png, stacks_png, tail_png

COLOURS = {"policy": "#4c78a8", "baseline": "#e45756", "echo": "#bab0ac"}
NAMES = {"policy": "this server", "baseline": "today's design", "echo": "bare echo"}
STAGES = {"wire": "#4c78a8", "queue": "#b279a2", "infer": "#f58518", "echo": "#bab0ac"}
MOST = 12
"""Cells with pictures of their own; the table has them all."""
BARS = 24


def write_page(path: Path, report: LatencyReport, measured: Sequence[Measured]) -> None:
    """Write the page; pictures that cannot be drawn are replaced by the reason.

    Args:
        path: file to write.
        report: the figures.
        measured: the cells with what was seen.
    """
    shown = list(measured) if len(measured) <= MOST else _spread(measured)
    body = [
        f"<h1>From request to answer</h1>\n<p>{escape(_about(report))}</p>",
        section("All measurements, µs", table(HEADINGS, map(cells_of, report.rows))),
        figure(drawn("Where the time goes", _WHERE, partial(_stages, report.rows))),
        *(figure(picture) for each in shown for picture in _pictures(each)),
        section("Machine", pairs({str(name): value for name, value in report.host.items()})),
    ]
    path.write_text(document("From request to answer · onebeat", body), encoding="utf-8")


_WHERE = (
    "Medians. Per measurement this server, today's design, and a bare echo, which has to be "
    "waited for as long as the wire takes."
)


def _about(report: LatencyReport) -> str:
    rights = "SCHED_FIFO" if report.realtime else "no SCHED_FIFO"
    return (
        f"{report.created} · {report.seconds:g} s for each server in each measurement, in turns · "
        f"{rights} for all alike · missed: later than {report.deadline:g} of the period, or never"
    )


def _spread(measured: Sequence[Measured]) -> list[Measured]:
    """Return some cells, evenly over all."""
    places = np.linspace(0, len(measured) - 1, MOST).astype(int)
    return [measured[place] for place in dict.fromkeys(places.tolist())]


def _title(row: LatencyRow) -> str:
    robots = "1 client" if row.clients == 1 else f"{row.clients} clients"
    return (
        f"{row.policy}, {row.engine} on {row.device}, {row.transport}, {row.load}, "
        f"{robots} at {row.rate_hz:g} Hz"
    )


def _pictures(each: Measured) -> list[Picture]:
    curves = {
        NAMES[kind]: Curve(samples.latency_ns, COLOURS[kind], samples.at_ns / 1e9)
        for kind, samples in each.samples.items()
    }
    period_ns, title = round(1e9 / each.row.rate_hz), _title(each.row)
    share = "What share of the answers took longer, with the requests that were never made."
    return [
        drawn(f"Tail: {title}", share, partial(tail_png, curves, period_ns)),
        drawn(
            f"Over time: {title}", "Each dot is a request.", partial(dots_png, curves, period_ns)
        ),
    ]


def _stages(rows: Sequence[LatencyRow]) -> bytes:
    stacks = []
    for row in rows[:BARS]:
        name = f"{row.policy} {row.transport} {row.load} {row.clients}×{row.rate_hz:g} Hz"
        known = (row.wire_p50, row.queue_p50, row.infer_p50)
        ours = dict(zip(("wire", "queue", "infer"), known, strict=True))
        stacks.append(Stack(name, {k: v or 0.0 for k, v in ours.items()}))
        if row.baseline_p50 is not None:
            computing = row.baseline_infer_p50 or 0.0
            rest = max(0.0, row.baseline_p50 - computing)
            stacks.append(Stack("today's", {"wire": rest, "infer": computing}))
        stacks.append(Stack("echo", {"echo": row.echo_p50 or 0.0}))
    return stacks_png(stacks, STAGES)
