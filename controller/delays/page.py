"""The study of latency as a table, a file and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.delays.score import DelayRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

TICKS_MS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
FIELDS = ("arm", "task", "delay_ms", "latency_ms", "steps", "episodes", "score", "return_mean")


def print_rows(rows: Sequence[DelayRow], console: Console) -> None:
    """Print one line per cell."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold")
    for heading in ("delay ms", "latency ms", "score", "95 %", "success", "steps", "rungs"):
        table.add_column(heading, justify="right" if heading != "rungs" else "left")
    for row in rows:
        value, ends = _value(row)
        table.add_row(
            row.arm,
            f"{row.delay_ms:g}",
            "-" if row.latency_ms is None else f"{row.latency_ms:.1f}",
            f"{value:.1f}",
            f"{ends[0]:.1f} to {ends[1]:.1f}",
            "-" if row.success is None else f"{row.success:.0%}",
            f"{row.length:.0f}",
            " ".join(f"{rung} {share:.0%}" for rung, share in row.rungs.items()),
        )
    console.print(table)


def write(rows: Sequence[DelayRow], out: Path) -> list[Path]:
    """Write the rows as JSON and CSV, and draw them; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"delays.{ending}" for ending in ("json", "csv", "png")]
    files[0].write_bytes(msgspec.json.format(msgspec.json.encode(list(rows)), indent=1) + b"\n")
    files[1].write_text(_csv(rows), encoding="utf-8")
    files[2].write_bytes(picture(rows))
    return files


def picture(rows: Sequence[DelayRow]) -> bytes:
    """Draw the score, or the return where there is none, over the latency, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
    for arm in dict.fromkeys(row.arm for row in rows):
        _draw_arm(axes, [row for row in rows if row.arm == arm])
    scored = all(row.score is not None for row in rows)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(left=0.0)
    axes.set_xticks(TICKS_MS, [f"{tick:g}" for tick in TICKS_MS])
    axes.minorticks_off()
    axes.set_xlabel("from request to answer, ms")
    axes.set_ylabel("normalised score" if scored else "return")
    axes.set_title(", ".join(dict.fromkeys(row.task for row in rows)), loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="best")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()


def _draw_arm(axes: Axes, rows: Sequence[DelayRow]) -> None:
    across = [_latency_ms(row) for row in rows]
    values = [_value(row) for row in rows]
    (line,) = axes.plot(across, [value for value, _ in values], marker="o", ms=3, label=rows[0].arm)
    low, high = ([ends[side] for _, ends in values] for side in (0, 1))
    axes.fill_between(across, low, high, color=line.get_color(), alpha=0.15, lw=0)


def _latency_ms(row: DelayRow) -> float:
    """Return where a row is drawn: where no answer acted, at the delay that prevented it."""
    return row.delay_ms if row.latency_ms is None else row.latency_ms


def _value(row: DelayRow) -> tuple[float, tuple[float, float]]:
    if row.score is None or row.score_ci95 is None:
        return row.return_mean, row.return_ci95
    return row.score, row.score_ci95


def _csv(rows: Sequence[DelayRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*FIELDS, "low", "high"))
    for row in rows:
        _, ends = _value(row)
        writer.writerow((*(getattr(row, name) for name in FIELDS), *ends))
    return text.getvalue()
