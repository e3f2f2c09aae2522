"""What live fine-tunings came to, as a Markdown table, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.reproduction.bands import t_interval
from policies.reproduction.online_results import OnlineRow
from policies.reproduction.published import TABLE_4
from policies.reproduction.tables import ABSENT, figure_text, markdown

HEAD = (
    "task", "arm", "seeds", "steps of each", "updates", "minutes", "before", "after", "change",
    "95 % of it", "versions", "refused", "taken back", "published (T4)",
)  # fmt: skip
SCORE, SUCCESS, RETURN = "score", "success", "return"

Group = tuple[str, str, int]
"""Task, arm and planned steps."""


@dataclass(frozen=True)
class Change:
    """What the runs of a group were before and after, each seed one value.

    Attributes:
        measure: score, success in per cent, or return.
        before: of the seeds that began from a policy.
        after: of all.
        change: of the seeds that have both.
    """

    measure: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    change: tuple[float, ...]


def change_of(rows: Sequence[OnlineRow]) -> Change:
    """Return before and after of rows by the best measure they have: score, success, return."""
    for measure in (SCORE, SUCCESS, RETURN):
        pairs = [_pair(row, measure) for row in rows]
        after = tuple(last for _, last in pairs if last is not None)
        if after:
            break
    return Change(
        measure,
        tuple(first for first, _ in pairs if first is not None),
        after,
        tuple(last - first for first, last in pairs if first is not None and last is not None),
    )


def _pair(row: OnlineRow, measure: str) -> tuple[float | None, float | None]:
    if measure == SCORE:
        return row.score_before, row.score_after
    if measure == RETURN:
        return row.return_before, row.return_after
    before, after = row.success_before, row.success_after
    return None if before is None else 100 * before, None if after is None else 100 * after


def groups_of(rows: Sequence[OnlineRow]) -> dict[Group, list[OnlineRow]]:
    """Return rows by task, arm and planned steps."""
    groups: dict[Group, list[OnlineRow]] = {}
    for row in rows:
        groups.setdefault((row.task, row.arm, row.steps), []).append(row)
    return groups


def results_table(rows: Sequence[OnlineRow], planned: Mapping[Group, int]) -> str:
    """Return a line for each task, arm and number of steps that has a row.

    Args:
        rows: what came of the runs.
        planned: runs that the plan has of each, in its order; those of other plans come last.
    """
    groups = groups_of(rows)
    order = [*(key for key in planned if key in groups), *(k for k in groups if k not in planned)]
    return markdown(HEAD, [_cells(key, groups[key], planned.get(key, 0)) for key in order], left=2)


def _cells(key: Group, rows: Sequence[OnlineRow], planned: int) -> list[str]:
    task, arm, steps = key
    found = change_of(rows)
    done = [row.env_steps for row in rows]
    short = min(done) < steps
    unit = {SCORE: "", SUCCESS: " %", RETURN: " return"}[found.measure]
    return [
        f"`{task}`",
        f"`{arm}`",
        f"{len(rows)} of {planned}" if planned else str(len(rows)),
        f"{min(done):,} of {steps:,}" if short else f"{steps:,}",
        f"{np.mean([row.updates for row in rows]):,.0f}",
        f"{np.mean([row.wall_s for row in rows]) / 60:,.1f}",
        _mean_text(found.before, unit),
        _mean_text(found.after, unit),
        _mean_text(found.change, "", signed=True),
        _interval_text(found.change),
        _sum_text([row.versions for row in rows]),
        _sum_text([row.rejected for row in rows]),
        _sum_text([row.rolled_back for row in rows]),
        published_text(rows[0]),
    ]


def _mean_text(values: Sequence[float], unit: str, *, signed: bool = False) -> str:
    """Return the mean, and every value in brackets where there are a few."""
    if not values:
        return ABSENT
    form = "{:+,.1f}" if signed else "{:,.1f}"
    text = form.format(np.mean(values)) + unit
    if 1 < len(values) <= 3:
        text += f" ({', '.join(form.format(value) for value in values)})"
    return text


def _interval_text(values: Sequence[float]) -> str:
    found = t_interval(values)
    return f"{found[0]:+,.1f} to {found[1]:+,.1f}" if found else ABSENT


def _sum_text(counts: Sequence[int]) -> str:
    return f"{np.mean(counts):,.3g}"


def published_text(row: OnlineRow) -> str:
    """Return what the paper has for a run."""
    figure = TABLE_4.get(row.published, {}).get(row.column)
    return figure_text(figure) if figure else ABSENT
