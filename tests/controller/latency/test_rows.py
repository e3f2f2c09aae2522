"""Figures of a cell by hand, and how they are printed."""

import io

import msgspec
import numpy as np
import pytest
from rich.console import Console

from controller.histogram import Histogram
from controller.latency.rows import HEADINGS, LatencyReport, cells_of, print_report, row_of
from controller.latency.settings import Bench, Cell, Entry
from controller.latency.swarm import Samples

US = 1_000
CELL = Cell(Bench(Entry("p", "p"), "numpy", "cpu", "ipc"), "idle", 100.0, 2)
FIELDS = [
    "rate_hz", "clients", "policy", "steps", "transport", "engine", "device", "load",
    "p50", "p99", "p99_9", "max", "missed",
    "baseline_p50", "baseline_p99", "ratio_p50", "ratio_p99", "echo_p50",
]  # fmt: skip


def samples(latency_us, queue_us=20, infer_us=30, skipped=0, unanswered=0):
    count = len(latency_us)
    whole = np.full(count, -1, np.int64)
    told = queue_us is not None
    return Samples(
        at_ns=np.arange(count, dtype=np.int64) * 10_000_000,
        latency_ns=np.array(latency_us, np.int64) * US,
        queue_ns=whole * 0 + queue_us * US if told else whole,
        infer_ns=whole * 0 + infer_us * US if told else whole,
        late_ns=whole * 0 + 7 * US,
        evaluations=whole * 0 + 5,
        batch=np.resize([1, 2], count),
        unanswered=unanswered,
        skipped=skipped,
    )


def row(**changes):
    parts = {
        "policy": samples([100] * 98 + [400, 10_001], skipped=1),
        "baseline": samples([300] * 97 + [2_000] * 3, None),
        "echo": samples([50] * 100, None),
        **changes,
    }
    kept = {name: part for name, part in parts.items() if part is not None}
    return row_of(CELL, kept, 1.0, version="v1", offset_ns=(-3_000, 90_000))


def test_the_fields_that_are_promised_come_first():
    assert list(msgspec.to_builtins(row()))[: len(FIELDS)] == FIELDS


def test_figures_by_hand():
    found = row()
    assert (found.rate_hz, found.clients, found.policy, found.steps) == (100.0, 2, "p", 5)
    assert (found.transport, found.engine, found.device, found.load) == (
        "ipc", "numpy", "cpu", "idle",
    )  # fmt: skip
    # Of 100 the 99th by rank ceil(0.99 * 99) + 1 = 100, the longest.
    assert (found.p50, found.p99, found.max) == pytest.approx((100, 10_001, 10_001), rel=1e-3)
    assert (found.missed, found.requests, found.skipped) == (1, 100, 1)
    assert (found.baseline_p50, found.baseline_p99) == pytest.approx((300, 2_000), rel=1e-3)
    assert (found.baseline_missed, found.echo_missed) == (0, 0)
    assert (found.ratio_p50, found.ratio_p99) == (3.0, 0.2)
    assert found.echo_p50 == pytest.approx(50, rel=1e-3)
    assert (found.queue_p50, found.infer_p50, found.wire_p50) == pytest.approx(
        (20, 30, 50), rel=1e-3
    )
    assert found.batch == 1.5
    assert found.asked_late_p99 == pytest.approx(7, rel=1e-3)
    assert (found.clock_offset_us, found.clock_error_us) == (-3.0, 45.0)
    assert Histogram.decoded(found.histogram).quantiles().samples == 100
    assert len(Histogram.decoded(found.baseline_histogram)) == 100


def test_without_a_baseline_and_without_an_answer():
    alone = row(baseline=None)
    assert (alone.baseline_p50, alone.ratio_p50, alone.baseline_missed) == (None, None, None)
    assert alone.baseline_histogram == ""
    silent = row(policy=samples([1_000_000] * 3, None, unanswered=3))
    assert (silent.missed, silent.unanswered, silent.steps, silent.wire_p50) == (3, 3, 0, None)
    nothing = row(policy=samples([]))
    assert (nothing.p50, nothing.ratio_p99, nothing.requests) == (None, None, 0)


def test_the_table_shows_every_figure_whole():
    report = LatencyReport({}, "", False, 1.0, 1.0, (row(), row(baseline=None)), "out/page.html")
    text = io.StringIO()
    print_report(report, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert "10,001" in lines[2]
    assert "2 × 100 Hz" in lines[2]
    assert "…" not in text.getvalue()
    assert len(cells_of(row())) == len(HEADINGS)
    assert "SCHED_FIFO was not held" in text.getvalue()
    assert lines[-1] == "page: out/page.html"
    assert msgspec.json.decode(msgspec.json.encode(report), type=LatencyReport) == report
