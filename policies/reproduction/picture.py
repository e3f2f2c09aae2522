"""The scores of a reproduction as one picture. Needs matplotlib: the ``report`` extra."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from controller.plots import MissingExtra
from policies.presets import known as paper_task
from policies.reproduction import published
from policies.reproduction.lines import Line, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "consistency_bc": "#72b7b2", "diffusion_bc": "#eeca3b", "consistency_ac": "#4c78a8",
    "diffusion_ql": "#f58518",
}  # fmt: skip
OTHERS = "#bab0ac"
_INK, _DPI = "#3b4048", 110


def picture_png(lines: Sequence[Line]) -> bytes:
    """Draw the score of every line that has one: mean, seeds, and the published mean.

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
    scored = [line for line in lines if spread(row.score for row in line.rows) is not None]
    figure = Figure(figsize=(9, 1.4 + 0.32 * len(scored)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    _bars(figure.subplots(), scored)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _bars(axes: Axes, lines: Sequence[Line]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("normalised score: bar mean, points seeds, diamond published", color=_INK)
    axes.set_yticks(range(len(lines)), [_name(line) for line in lines], fontsize=8, color=_INK)
    axes.invert_yaxis()
    for place, line in enumerate(lines):
        scores = [row.score for row in line.rows if row.score is not None]
        colour = COLOURS.get(line.algorithm, OTHERS)
        axes.barh(place, sum(scores) / len(scores), color=colour, height=0.7)
        axes.plot(scores, [place] * len(scores), "o", color=_INK, markersize=3)
        known = published.scores(paper_task(line.dataset) or "", line.algorithm, line.variant)
        if known:
            mean = known[0].figure.mean
            axes.plot(mean, place, "D", markerfacecolor="none", color=_INK, markersize=5)


def _name(line: Line) -> str:
    variant = f" {line.variant}" if line.variant else ""
    return f"{line.dataset}\n{line.algorithm}{variant}, {line.updates:,} updates"
