"""What a dataset looks like, as one picture. Needs matplotlib: the ``report`` extra."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from controller.dataset_warnings import Expected
from controller.plots import MissingExtra
from controller.transitions import Transitions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAZES = ("antmaze", "maze2d", "pointmaze", "PointMaze", "AntMaze")
"""Beginnings of the names of tasks whose observation begins with x and y."""
POSITION = "observation"
SAMPLE = 100_000
"""Rows that ranges are taken from, evenly chosen."""
PATHS, PATH_POINTS = 60, 500
_BLUE, _ORANGE, _INK, _RED = "#4c78a8", "#f58518", "#3b4048", "#e45756"
_DPI = 110


def dataset_png(data: Transitions, title: str, expected: Expected | None = None) -> bytes:
    """Draw returns, lengths, rewards, and the ranges of observations and actions.

    The last panel has the paths of some episodes where the task is a maze, else the mean reward
    by the step within the episode.

    Args:
        data: the transitions; values that are not finite are left out.
        title: what stands above.
        expected: limits of the actions, to be drawn with them.

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
    figure = Figure(figsize=(12, 6.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, color=_INK)
    axes = figure.subplots(2, 3).reshape(-1)
    for panel in axes:
        _style(panel)
    _counts(axes[0], data.returns(), "return of an episode", "episodes")
    _counts(axes[1], data.lengths().astype(np.float64), "steps of an episode", "episodes")
    _counts(axes[2], data.rewards.astype(np.float64), "reward of a step", "steps", log=True)
    rows = slice(None, None, max(1, -(-len(data) // SAMPLE)))
    _ranges(axes[3], data.observations[rows], data)
    _densities(axes[4], data.actions.reshape(len(data), -1)[rows], expected or Expected())
    position = _position(data)
    if position is None:
        _mean_reward(axes[5], data)
    else:
        _paths(axes[5], data, position)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=8, colors=_INK)
    axes.xaxis.label.set(fontsize=8, color=_INK)
    axes.yaxis.label.set(fontsize=8, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)


def _counts(
    axes: Axes, values: NDArray[np.float64], label: str, unit: str, *, log: bool = False
) -> None:
    finite = values[np.isfinite(values)]
    if len(finite):
        axes.hist(finite, bins=50, color=_BLUE)
        mean = float(finite.mean())
        axes.axvline(mean, color=_ORANGE, linewidth=1.2, label=f"mean {mean:,.4g}")
        axes.legend(frameon=False, fontsize=7)
    axes.set(xlabel=label, ylabel=unit)
    if log:
        axes.set(yscale="log", ylim=(0.5, None))
        axes.tick_params(which="minor", labelleft=False)


def _ranges(axes: Axes, observations: NDArray[np.floating], data: Transitions) -> None:
    quantiles = [0.0, 0.05, 0.5, 0.95, 1.0]
    finite = np.where(np.isfinite(observations), observations, np.nan)
    places = np.flatnonzero(~np.isnan(finite).all(axis=0))
    found = np.nanquantile(finite[:, places], quantiles, axis=0)
    low, inner_low, middle, inner_high, high = found
    axes.vlines(places, low, high, color=_BLUE, linewidth=0.8)
    axes.vlines(places, inner_low, inner_high, color=_BLUE, linewidth=3.0)
    axes.plot(places, middle, ".", color=_ORANGE, markersize=4)
    reach = np.nanmax(np.abs([low, high])) if len(places) else 0.0
    if reach > 20:
        axes.set_yscale("symlog", linthresh=1.0)
    start = 0
    for name, size in data.layout if len(data.layout) > 1 else ():
        axes.axvline(start - 0.5, color=_INK, linewidth=0.6, linestyle=":")
        axes.annotate(name, (start, 1.0), xycoords=("data", "axes fraction"), fontsize=7)
        start += size
    axes.set(xlabel="element of the observation", ylabel="least, 5 %, median, 95 %, most")


def _densities(axes: Axes, actions: NDArray[np.floating], expected: Expected) -> None:
    finite = actions[np.isfinite(actions).all(axis=1)]
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    bins = np.linspace(low, high if high > low else low + 1.0, 61)
    counts = np.stack([np.histogram(column, bins)[0] for column in finite.T], axis=1)
    width = finite.shape[1]
    axes.imshow(
        np.log1p(counts),
        origin="lower",
        aspect="auto",
        extent=(-0.5, width - 0.5, float(bins[0]), float(bins[-1])),
        cmap="Blues",
        interpolation="nearest",
    )
    for limit in (expected.low, expected.high):
        if limit is not None and len(limit) == width:
            axes.plot(np.arange(width), limit, "_", color=_RED, markersize=12)
    axes.set(xlabel="element of the action", ylabel="value, by log of count")
    axes.locator_params(axis="x", integer=True)
    axes.grid(visible=False)


def _mean_reward(axes: Axes, data: Transitions) -> None:
    step = np.arange(len(data)) - np.repeat(data.starts, data.lengths())
    rewards = np.where(np.isfinite(data.rewards), data.rewards, 0.0)
    counts = np.bincount(step)
    axes.plot(np.bincount(step, rewards) / counts, color=_BLUE, linewidth=0.8, label="mean")
    axes.set(xlabel="step within the episode", ylabel="mean reward")
    share = axes.twinx()
    share.plot(counts / counts[0], color=_ORANGE, linewidth=0.8)
    share.set_ylabel("share of episodes that long", fontsize=8, color=_ORANGE)
    share.tick_params(labelsize=8)


def _position(data: Transitions) -> int | None:
    """Return where x and y begin within the observation of a maze, None for another task."""
    if not data.task.startswith(MAZES) or data.observations.shape[1] < 2:
        return None
    start = 0
    for name, size in data.layout:
        if name.startswith(POSITION):
            return start
        start += size
    return 0


def _paths(axes: Axes, data: Transitions, position: int) -> None:
    episodes = data.episodes()
    chosen: list[Any] = episodes[:: max(1, len(episodes) // PATHS)][:PATHS]
    xy = data.observations[:, position : position + 2]
    rows = slice(None, None, max(1, -(-len(data) // SAMPLE)))
    axes.plot(xy[rows, 0], xy[rows, 1], ",", color=_BLUE, alpha=0.25, rasterized=True)
    for place in chosen:
        path = xy[place][:: max(1, (place.stop - place.start) // PATH_POINTS)]
        axes.plot(path[:, 0], path[:, 1], linewidth=0.6, alpha=0.7)
        axes.plot(path[:1, 0], path[:1, 1], ".", color=_INK, markersize=2)
    axes.set(xlabel="x (m)", ylabel="y (m)", aspect="equal")
