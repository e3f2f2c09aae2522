"""The report of a run: tables for the terminal, and one HTML file for the browser."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table

from controller.report_html import Extras, Picture, listed, number, percentiles, write_html
from controller.stats import RunReport

__all__ = ["Extras", "Picture", "print_table", "write_html"]

SHOWN_LATE = 10


def print_table(report: RunReport, console: Console) -> None:
    """Print outcome, rungs and versions of a run, and its stages where time is real."""
    console.print(_outcome(report))
    if report.mode == "realtime":
        console.print(_stages(report))
    console.print(_rungs(report))
    if report.late:
        console.print(_late(report))


def _outcome(report: RunReport) -> Table:
    table = Table(
        title=f"{report.task} · {report.mode} · {report.seconds:.1f} s", title_style="bold"
    )
    for name in ("rate", "ticks", "missed", "episodes", "return", "score", "success"):
        table.add_column(name, justify="right")
    missed = f"[red]{report.missed}[/]" if report.missed else "0"
    table.add_row(
        f"{report.rate_hz:.2f} Hz",
        str(report.ticks),
        missed,
        str(report.episodes),
        number(report.return_, ".2f") + (" (so far)" if report.partial else ""),
        number(report.score, ".1f"),
        number(report.success, ".0%"),
    )
    table.caption = "; ".join(_remarks(report)) or None
    return table


def _remarks(report: RunReport) -> list[str]:
    remarks = []
    if report.real_time_factor is not None:
        late = f"{report.late_steps} physics steps late"
        worst = max((step.late_us for step in report.late), default=0.0)
        late += f" (worst {worst / 1e3:.1f} ms)" if report.late else ""
        remarks.append(f"real-time factor {report.real_time_factor:.4g}, {late}")
    if report.plant.get("faults"):
        remarks.append(f"faults: {listed(report.plant['faults'])}")
    if report.skipped:
        remarks.append(f"{report.skipped} of the missed are skipped periods")
    if report.dropped:
        remarks.append(f"{report.dropped} records are not in the log")
    if report.truncated:
        remarks.append("the log is not complete")
    if report.reasons:
        counts = ", ".join(f"{name} {count}" for name, count in report.reasons.items())
        remarks.append(f"reasons: {counts}")
    return remarks


def _stages(report: RunReport) -> Table:
    table = Table(title="Stages (µs)", title_style="bold")
    table.add_column("stage")
    for name in ("p50", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for name, figures in report.stages.items():
        style = "bold" if name == "total" else None
        table.add_row(name, *percentiles(figures), style=style)
    table.add_row("without the wake-up", *percentiles(report.work))
    table.add_row("with skipped periods", *percentiles(report.corrected))
    table.add_row("request to answer", *percentiles(report.answers))
    return table


def _rungs(report: RunReport) -> Table:
    table = Table(title="Commands by rung", title_style="bold")
    counts: dict[str, int] = msgspec.to_builtins(report.rungs)
    for name in counts:
        table.add_column(name, justify="right")
    table.add_column("policy versions")
    table.add_row(*map(str, counts.values()), " → ".join(report.versions) or "-")
    if report.holds_between_episodes:
        table.caption = f"{report.holds_between_episodes} of the holds lie between episodes"
    return table


def _late(report: RunReport) -> Table:
    table = Table(title="Physics that was late", title_style="bold")
    for name in ("tick", "episode", "step", "steps", "late by, ms"):
        table.add_column(name, justify="right")
    for late in report.late[:SHOWN_LATE]:
        numbers = (late.tick, late.episode, late.step, late.steps)
        table.add_row(*map(str, numbers), f"{late.late_us / 1e3:.2f}")
    if len(report.late) > SHOWN_LATE:
        table.caption = f"the first {SHOWN_LATE}; the others are in the log"
    return table
