"""Evaluated policies on the terminal: one by its facts, several as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from controller.report_html import number
from controller.scores import Evaluation, Group, groups
from controller.statistics import Interval


def facts_of(one: Evaluation) -> dict[str, Any]:
    """Return what a person wants to know of an evaluation, in words."""
    facts = {
        "bundle": one.bundle,
        "learned": one.algorithm + (f", {one.updates} updates" if one.updates else ""),
        "task": one.task,
        "episodes": f"{one.episodes} of {one.length_mean:.0f} steps, seed {one.seed}, "
        f"in {one.seconds:.1f} s, {one.copies} at a time through the {one.through}",
        "return": f"{_spread(one.return_mean, one.return_std)}, 95 % {_ends(one.return_ci95)}",
        "score": f"{number(one.score_mean, '.1f')}, 95 % {_ends(one.score_ci95)}",
        "success": number(one.success, ".0%"),
        "action": f"{_acting(one)}, {one.action_us_p50:.0f} µs ({one.engine}, {one.device})",
        "selection": f"{one.selection} of {one.checkpoints}" if one.note else one.selection,
        "note": one.note,
    }
    absent = {"score": one.score_mean, "success": one.success, "note": one.note}
    return {name: text for name, text in facts.items() if absent.get(name, text) is not None}


def print_evaluations(evaluations: Sequence[Evaluation], console: Console) -> None:
    """Print a table of several policies and one of their groups."""
    console.print(_table_of(evaluations))
    console.print()
    console.print(_summary_of(groups(evaluations)))
    for note in dict.fromkeys(one.note for one in evaluations if one.note):
        console.print(note, style="yellow")


def _table_of(evaluations: Sequence[Evaluation]) -> Table:
    places = [Path(one.bundle).absolute() for one in evaluations]
    above = Path(os.path.commonpath([place.parent for place in places]))
    tasks = {one.task for one in evaluations}
    here = Path.cwd()
    title = str(above.relative_to(here) if above.is_relative_to(here) else above) + (
        f" · {tasks.pop()}" if len(tasks) == 1 else ""
    )
    table = Table(title=title, title_style="bold", title_justify="left", box=None, pad_edge=False)
    table.add_column("bundle", overflow="fold", min_width=14)
    for name in ("return", "score", "95 %", "success", "µs/action"):
        table.add_column(name, justify="right")
    for one, place in zip(evaluations, places, strict=True):
        table.add_row(
            str(place.relative_to(above)),
            _spread(one.return_mean, one.return_std),
            number(one.score_mean, ".1f"),
            _ends(one.score_ci95 or one.return_ci95),
            number(one.success, ".0%"),
            number(one.action_us_p50, ".0f"),
        )
    return table


def _summary_of(rows: Sequence[Group]) -> Table:
    table = Table(title="Together", title_style="bold", title_justify="left", box=None)
    table.pad_edge = False
    for name in ("task", "policies"):
        table.add_column(name, overflow="fold")
    for name in ("n", "return", "score", "IQM", "95 % of IQM"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.task or f"{row.tasks} tasks",
            f"{row.algorithm}, {_acting(row)}",
            str(row.policies),
            _spread(row.return_mean, row.return_std),
            _spread(row.score_mean, row.score_std),
            number(row.score_iqm, ".1f"),
            _ends(row.score_iqm_ci95),
        )
    return table


def _acting(row: Evaluation | Group) -> str:
    steps = f"{row.steps} steps" if row.steps > 1 else "1 step"
    return steps + (f", {row.select} of {row.candidates}" if row.candidates > 1 else "")


def _spread(value: float | None, std: float | None) -> str:
    return number(value, ".1f") + (f" ± {std:.1f}" if std is not None else "")


def _ends(ends: Interval | None) -> str:
    return "-" if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"
