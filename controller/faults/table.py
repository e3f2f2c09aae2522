"""The trials on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from controller.faults.verdict import FaultRow

if TYPE_CHECKING:
    from rich.console import Console


def print_rows(rows: Sequence[FaultRow], console: Console) -> None:
    """Print one line per fault, and below it what was seen."""
    from rich.table import Table

    table = Table(
        box=None, pad_edge=False, title="Faults at a running system", title_justify="left"
    )
    table.add_column("fault", no_wrap=True)
    for heading in ("ticks", "late", "gap ms", "jump", "recovery s", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("rungs")
    table.add_column("", no_wrap=True)
    for row in rows:
        recovery = "-" if row.recovery_s is None else f"{row.recovery_s:.2f}"
        rungs = " ".join(f"{rung} {count}" for rung, count in row.rungs.items())
        figures = (
            str(row.ticks),
            str(row.late),
            f"{row.max_gap_ms:.1f}",
            f"{row.max_jump:.3g}",
            recovery,
            str(row.records_lost),
        )
        table.add_row(row.fault, *figures, rungs, _verdict(row))
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.fault}: {row.note}", markup=False)


def _verdict(row: FaultRow) -> str:
    return {True: "ok", False: "NOT OK", None: "left out"}[row.ok]
