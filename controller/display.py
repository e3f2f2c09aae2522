"""What a verb puts on the terminal: one JSON value, or a table; progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

Advance = Callable[..., None]

REDRAW_S = 0.05
"""Seconds between two looks of a bar at what it shows: one costs as much as a small update."""
NARROW = 10
"""Characters up to which a column of a table never gives way to a wider one."""


def console() -> Console:
    """Return the console for people, on standard output."""
    return Console(highlight=False)


def aside() -> Console:
    """Return the console for what is said beside the result, on standard error."""
    return Console(stderr=True, highlight=False)


def put_json(value: object) -> None:
    """Write one JSON value, and nothing else, to standard output.

    Numbers that are not finite become null.
    """
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def say(facts: Mapping[str, Any], as_json: bool) -> None:
    """Show facts as JSON, or as two columns."""
    if as_json:
        put_json(facts)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), escape(_text(value)))
    console().print(table)


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """Show a bar on standard error; the value is called with (done, total, figures)."""
    rate = TextColumn("{task.fields[rate]}")
    info = TextColumn("[dim]{task.fields[info]}")
    error = aside()
    columns = (
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        rate,
        info,
    )
    with Progress(*columns, console=error) as progress:
        task = progress.add_task(title, total=None, rate="", info="")
        next_s = 0.0

        def advance(done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
            nonlocal next_s
            now_s = progress.get_time()
            if now_s < next_s and done < total:
                return
            next_s = now_s + REDRAW_S
            speed = progress.tasks[0].speed
            progress.update(
                task,
                completed=done,
                total=total,
                rate=f"{speed:,.0f}/s" if speed else "",
                info=" ".join(f"{name} {value:.4g}" for name, value in (figures or {}).items()),
            )

        yield advance


@contextmanager
def run_bar(seconds: float | None) -> Iterator[Callable[[float, str], None]]:
    """Show a bar of a run on standard error; the value is called with (elapsed_s, words).

    Of a run that never began nothing stays on the screen.
    """
    columns = (
        TextColumn("running"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    progress = Progress(*columns, console=aside(), transient=True)
    task = progress.add_task("running", total=seconds, info="")

    def show(elapsed_s: float, words: str) -> None:
        if elapsed_s:
            progress.live.transient = False
            progress.start()
        progress.update(task, completed=elapsed_s, info=words)

    if progress.console.is_terminal:
        progress.start()
    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


def put_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Show rows with the same names as JSON, or as a table."""
    if as_json:
        put_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    cells = [[_cell(value) for value in row.values()] for row in rows]
    for name, column in zip(rows[0], zip(*cells, strict=True), strict=True):
        widest = max(map(len, (name, *column)))
        narrow = widest if widest <= NARROW else None
        table.add_column(name.replace("_", " "), overflow="fold", min_width=narrow)
    for row in cells:
        table.add_row(*map(escape, row))
    console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        told = ((name, inner) for name, inner in value.items() if inner != "")
        return "  ".join(f"{name} {_text(inner)}" for name, inner in told) or "none"
    if isinstance(value, (list, tuple)):
        between = "\n" if any(isinstance(inner, Mapping) for inner in value) else ", "
        return between.join(_text(inner) for inner in value) or "none"
    return "none" if value is None else str(value)
