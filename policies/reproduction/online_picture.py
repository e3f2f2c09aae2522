"""Learning curves as one picture. Needs matplotlib: the ``report`` extra."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from controller.plots import MissingExtra
from policies.reproduction.bands import Floats, band
from policies.reproduction.online_results import Point, measure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b",
    "#bab0ac",
)  # fmt: skip
_INK, _DPI = "#3b4048", 110
Measure = Callable[[Point], float | None]


def picture_png(points: Sequence[Point], arms: Sequence[str]) -> bytes:
    """Draw the curves: a row for each task, over control steps and over wall-clock time.

    Args:
        points: of all runs.
        arms: in the order of their colours; others follow.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            f"pictures need matplotlib ({error}); install it with pip install 'onebeat[report]'"
        ) from error
    plots = list(dict.fromkeys((point.task, point.steps) for point in points))
    names = list(dict.fromkeys((*arms, *(point.arm for point in points))))
    figure = Figure(figsize=(11, 0.6 + 3.0 * len(plots)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(plots), 2, squeeze=False, sharey="row")
    for (left, right), (task, steps) in zip(rows, plots, strict=True):
        chosen = [p for p in points if (p.task, p.steps) == (task, steps)]
        measure, value = measure_of(chosen)
        _curves(left, chosen, names, lambda p: float(p.env_steps), value)
        _curves(right, chosen, names, lambda p: p.wall_s / 60, value)
        left.set_title(f"{task}, {steps:,} steps", loc="left", fontsize=10, color=_INK)
        left.set_ylabel(measure, color=_INK)
        left.set_xlabel("control steps", color=_INK)
        right.set_xlabel("wall-clock time, minutes", color=_INK)
        left.legend(fontsize=8, frameon=False)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _curves(
    axes: Axes,
    points: Sequence[Point],
    names: Sequence[str],
    place: Callable[[Point], float],
    value: Measure,
) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for number, name in enumerate(names):
        curves = list(curves_of([p for p in points if p.arm == name], place, value))
        if not curves:
            continue
        colour = COLOURS[number % len(COLOURS)]
        for x, y in curves:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45)
        found = band(curves)
        if found is not None:
            label = f"{name} ({found.seeds} {'seed' if found.seeds == 1 else 'seeds'})"
            axes.plot(found.x, found.mean, color=colour, linewidth=1.8, label=label)
            axes.fill_between(found.x, found.low, found.high, color=colour, alpha=0.15, linewidth=0)


def curves_of(
    points: Sequence[Point], place: Callable[[Point], float], value: Measure
) -> Iterator[tuple[Floats, Floats]]:
    """Yield the curve of each seed: places, rising, and values, shapes (n,)."""
    for seed in sorted({point.seed for point in points}):
        found = [
            (place(point), height)
            for point in points
            if point.seed == seed and (height := value(point)) is not None
        ]
        # Of places that are the same the last counts.
        known = dict(sorted(found, key=lambda pair: pair[0]))
        if known:
            yield np.array(list(known), np.float64), np.array(list(known.values()), np.float64)
