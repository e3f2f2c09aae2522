"""What is in a dataset: figures for programs, a table and a histogram for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller.dataset_warnings import Expected, warnings
from controller.stats import Reference, normalised
from controller.transitions import Transitions

CREDIBLE_SCORE = 300.0
"""Beyond it a reward column counts something else, as kitchen's does: tasks done, every step."""
BINS = 12
BAR = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"


def describe_data(
    data: Transitions,
    path: str,
    reference: Reference | None,
    *,
    expected: Expected | None = None,
    dataset: str = "",
    attributes: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the facts of a dataset.

    The first eight are those of every dataset: ``task``, ``episodes``, ``steps``,
    ``return_mean``, ``return_std`` (of the episodes, not of their mean), ``length_mean``,
    ``score_mean`` (None without a reference), ``warnings``. Further ones follow.

    Args:
        data: the transitions; they need not be finite.
        path: where they come from.
        reference: returns that score 0 and 100.
        expected: what is known of the task, to hold the data against.
        dataset: name of the published dataset it is called after.
        attributes: facts that came with the data.
        notes: how the data was understood; they become the first warnings.
    """
    returns, lengths = data.returns(), data.lengths()
    mean = float(returns.mean())
    score = normalised(mean, reference) if reference else None
    found = [*notes, *warnings(data, expected)]
    if score is not None and abs(score) > CREDIBLE_SCORE:
        found.append(f"a mean score of {score:,.0f}: these rewards are not the task's return")
    return {
        "task": data.task or None,
        "episodes": len(returns),
        "steps": len(data),
        "return_mean": mean,
        "return_std": float(returns.std()),
        "length_mean": float(lengths.mean()),
        "score_mean": score,
        "warnings": found,
        "path": path,
        "dataset": dataset or None,
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length_min": int(lengths.min()),
        "length_max": int(lengths.max()),
        "terminals": int(data.terminals.sum()),
        "timeouts": int(data.timeouts.sum()),
        "observation": dict(data.layout),
        "action": int(np.prod(data.actions.shape[1:])),
        "digest": data.digest(),
        "attributes": dict(attributes or {}),
    }


def print_data(facts: Mapping[str, Any], returns: NDArray[np.float64], console: Console) -> None:
    """Print the facts of :func:`describe_data`, and how the returns are distributed."""
    spread = f"{facts['return_mean']:,.4g} ± {facts['return_std']:,.4g}"
    rows = {
        "task": facts["task"] or "unknown",
        "dataset": facts["dataset"],
        "path": facts["path"],
        "episodes": f"{facts['episodes']:,}",
        "steps": f"{facts['steps']:,}",
        "return": f"{spread}, {facts['return_min']:,.4g} to {facts['return_max']:,.4g}",
        "score": None if facts["score_mean"] is None else f"{facts['score_mean']:.1f}",
        "length": (
            f"{facts['length_mean']:,.1f}, {facts['length_min']:,} to {facts['length_max']:,}"
        ),
        "ends": f"{facts['terminals']:,} terminals, {facts['timeouts']:,} timeouts",
        "observation": "  ".join(f"{name} {size}" for name, size in facts["observation"].items()),
        "action": str(facts["action"]),
        "digest": facts["digest"],
        **{name: str(value) for name, value in facts["attributes"].items()},
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, text in rows.items():
        if text is not None:
            table.add_row(escape(name.replace("_", " ")), escape(text))
    console.print(table)
    console.print("\nreturns of the episodes", style="dim")
    for line in histogram(returns):
        console.print(line, markup=False)
    for line in facts["warnings"]:
        console.print(f"[yellow]![/] {escape(line)}", soft_wrap=True)


def histogram(values: NDArray[np.float64], bins: int = BINS, width: int = BAR) -> list[str]:
    """Return a histogram as lines of text, one per bin, its bar as long as the bin is full.

    Values that are not finite are left out.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ["none"]
    if finite.min() == finite.max():
        bins = 1
    counts, edges = np.histogram(finite, bins)
    texts = [f"{edge:,.4g}" for edge in edges]
    room, most = max(map(len, texts)), int(counts.max())
    lines = []
    for count, low, high in zip(counts.tolist(), texts, texts[1:], strict=False):
        eighths = max(round(8 * width * count / most), 1 if count else 0)
        bar = EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()
        lines.append(f"{low:>{room}} … {high:>{room}}  {bar:<{width}} {count:,}")
    if finite.min() == finite.max():
        lines = [f"{finite[0]:,.6g}  {EIGHTHS[8] * width} {len(finite):,}"]
    return lines
