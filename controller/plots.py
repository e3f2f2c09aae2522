"""Pictures of a run, as PNG bytes. Needs matplotlib: the ``report`` extra."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.errors import ControllerError
from controller.run_log import RunLog
from controller.stats import stages
from controller.types import Rung

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERSION_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")
RUNG_COLOURS = {
    Rung.FRESH: "#54a24b",
    Rung.TAIL: "#eeca3b",
    Rung.LOCAL: "#4c78a8",
    Rung.HOLD: "#bab0ac",
    Rung.STOP: "#e45756",
    Rung.HUMAN: "#b279a2",
}
STAGE_COLOURS = {
    "wake": "#bab0ac",
    "observe": "#72b7b2",
    "transport": "#4c78a8",
    "queue": "#b279a2",
    "infer": "#f58518",
    "act": "#54a24b",
    "rest": "#e45756",
}
_INK = "#3b4048"
_DPI = 110
_MAX_POINTS = 20_000


class MissingExtra(ControllerError, ImportError):
    """A picture was asked for, and the library that draws it is not installed."""


@dataclass(frozen=True, slots=True)
class Track:
    """A driven path.

    Attributes:
        xy: (T, 2) positions in metres.
        version: policy version that drove it.
    """

    xy: NDArray[np.floating]
    version: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """Durations to be drawn.

    Attributes:
        times_ns: (T,) nanoseconds; negative ones are absent.
        colour: of the curve.
        seconds: (T,) when each was, for pictures over time.
    """

    times_ns: NDArray[np.int64]
    colour: str
    seconds: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """A bar made of parts, by name, in microseconds."""

    name: str
    parts_us: Mapping[str, float]


def tracks_of(log: RunLog, position: str) -> list[Track]:
    """Return the paths of a run, cut where the episode or the policy version changes.

    Args:
        log: the run.
        position: name of the observation array whose first two elements are x and y.
    """
    if not len(log):
        return []
    xy = log.observations[position].reshape(len(log), -1)[:, :2].astype(np.float64)
    acting = _acting_versions(log)
    changed = np.diff(log.episode) != 0
    changed |= np.array([a != b for a, b in pairwise(acting)], dtype=np.bool_)
    starts = [0, *(np.flatnonzero(changed) + 1).tolist()]
    stops = [*starts[1:], len(log)]
    return [Track(xy[a:b], acting[a]) for a, b in zip(starts, stops, strict=True)]


def latency_histogram_png(log: RunLog) -> bytes:
    """Draw how many ticks took how long, on logarithmic axes: the tail is what matters."""
    figure, axes = _canvas(7.2, 3.0)
    total_us = _present(log.stages["total"])
    if len(total_us):
        low, high = max(1.0, total_us.min() * 0.9), total_us.max() * 1.1
        axes.hist(
            total_us, bins=np.geomspace(low, max(high, low * 2), 80).tolist(), color="#4c78a8"
        )
        for quantile, style in ((50.0, ":"), (99.0, "--"), (99.9, "-")):
            value = float(np.percentile(total_us, quantile, method="higher"))
            label = f"p{quantile:g}  {value:,.0f} µs"
            axes.axvline(value, color=_INK, linestyle=style, linewidth=1, label=label)
    period_us, label = _next_deadline(log)
    axes.axvline(period_us, color="#e45756", linewidth=1, label=label)
    axes.set(xscale="log", yscale="log", xlabel="deadline to command sent (µs)", ylabel="ticks")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes)
    return _png(figure)


def tail_png(curves: Mapping[str, Curve], period_ns: int | None = None) -> bytes:
    """Draw what share of the durations is longer, so that each decade of the tail is as wide.

    Args:
        curves: durations by name.
        period_ns: the control period, for a line; None for none.
    """
    figure, axes = _canvas(7.2, 3.2)
    decades = 1
    for name, curve in curves.items():
        times_us = np.sort(_present(curve.times_ns))
        if not len(times_us):
            continue
        # Of n values the k-th, from 0, is exceeded by n - k - 1; the last stands at 1/n.
        rarity = len(times_us) / np.maximum(len(times_us) - np.arange(1, len(times_us) + 1), 1.0)
        axes.step(rarity, times_us, where="pre", color=curve.colour, linewidth=1.2, label=name)
        decades = max(decades, int(np.ceil(np.log10(len(times_us)))))
    if period_ns is not None:
        axes.axhline(period_ns / 1e3, color=_INK, linewidth=0.8, linestyle=":", label="period")
    marks = [1.0, 2.0, *(10.0**k for k in range(1, decades + 1))]
    names = ["0", "50 %", *(f"{100.0 - 100.0 / 10**k:.10g} %" for k in range(1, decades + 1))]
    axes.set(xscale="log", yscale="log", xlabel="no longer than this", ylabel="µs")
    axes.set_xticks(marks, names)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes)
    return _png(figure)


def dots_png(curves: Mapping[str, Curve], period_ns: int) -> bytes:
    """Draw durations over time, the longest on top.

    Args:
        curves: durations by name, with ``seconds``.
        period_ns: the control period, for a line.
    """
    figure, axes = _canvas(7.2, 2.8)
    for name, curve in curves.items():
        if curve.seconds is None or not len(curve.times_ns):
            continue
        rows = _some(curve.times_ns)
        times_us = curve.times_ns[rows] / 1e3
        axes.plot(
            curve.seconds[rows],
            times_us,
            ".",
            markersize=2,
            color=curve.colour,
            rasterized=True,
            label=name,
        )
    axes.axhline(period_ns / 1e3, color=_INK, linewidth=0.8, linestyle=":", label="period")
    axes.set(yscale="log", xlabel="time (s)", ylabel="µs")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes)
    return _png(figure)


def stacks_png(stacks: Sequence[Stack], colours: Mapping[str, str]) -> bytes:
    """Draw horizontal bars, each made of parts in microseconds."""
    figure, axes = _canvas(7.2, 0.9 + 0.19 * len(stacks))
    places = np.arange(len(stacks))
    left = np.zeros(len(stacks))
    for part, colour in colours.items():
        widths = np.array([stack.parts_us.get(part, 0.0) for stack in stacks])
        axes.barh(places, widths, left=left, height=0.75, color=colour, label=part)
        left += widths
    axes.set_yticks(places, [stack.name for stack in stacks], fontsize=7)
    axes.margins(y=0.5 / max(1, len(stacks)))
    axes.invert_yaxis()
    axes.set(xlabel="µs")
    axes.grid(visible=False, axis="y")
    _legend(axes)
    return _png(figure)


def timeline_png(log: RunLog) -> bytes:
    """Draw the time of every tick over the run, with the arrival of each policy version."""
    figure, axes = _canvas(7.2, 3.0)
    seconds = _seconds(log)
    chosen = _thinned(log)
    total_us = np.where(log.stages["total"] >= 0, log.stages["total"] / 1e3, np.nan)
    axes.plot(
        seconds[chosen], total_us[chosen], ".", markersize=2, color="#4c78a8", rasterized=True
    )
    period_us, label = _next_deadline(log)
    axes.axhline(period_us, color="#e45756", linewidth=1, label=label)
    for version, colour in _version_colours(log).items():
        first = seconds[log.versions.index(version)]
        axes.axvline(first, color=colour, linewidth=1.5, label=f"{version[:16]} from {first:.1f} s")
    axes.set(yscale="log", xlabel="time (s)", ylabel="deadline to command (µs)")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes)
    return _png(figure)


def stages_png(log: RunLog) -> bytes:
    """Draw where a tick's time goes: the median of each stage over the run, stacked."""
    figure, axes = _canvas(7.2, 2.6)
    edges = np.linspace(0, len(log), min(len(log), 120) + 1).astype(int)
    at = _seconds(log)[edges[:-1]] if len(log) else np.zeros(0)
    times = stages(log)
    medians = {
        name: np.array([_median_us(times[name][a:b]) for a, b in pairwise(edges)])
        for name in STAGE_COLOURS
    }
    if len(at):
        axes.stackplot(
            at, *medians.values(), labels=list(medians), colors=list(STAGE_COLOURS.values())
        )
    axes.set(xlabel="time (s)", ylabel="median stage (µs)")
    _legend(axes, columns=7)
    return _png(figure)


def rungs_png(log: RunLog) -> bytes:
    """Draw two strips over the run: the rung of every tick, and the acting policy version."""
    figure, axes = _canvas(7.2, 1.5)
    seconds = _seconds(log)
    for rung, colour in RUNG_COLOURS.items():
        _strip(axes, seconds, log.rung == rung, 1.0, colour, rung.name.lower())
    acting = np.array(_acting_versions(log), dtype=object)
    for version, colour in _version_colours(log).items():
        _strip(axes, seconds, acting == version, 0.0, colour, version[:16])
    axes.set(xlabel="time (s)", ylim=(-0.5, 1.5))
    axes.set_yticks([0.0, 1.0], ["policy", "rung"])
    axes.grid(visible=False)
    _legend(axes, columns=8)
    return _png(figure)


def maze_paths_png(
    walls: NDArray[np.bool_], cell_size: float, tracks: Sequence[Track], goals: ArrayLike
) -> bytes:
    """Draw a maze from above with the driven paths, one colour per policy version.

    The centre of cell (i, j) lies at x = (j + ½)·s - columns·s/2, y = rows·s/2 - (i + ½)·s
    with s the cell size, gymnasium-robotics' convention.

    Args:
        walls: (rows, columns), True where there is a wall.
        cell_size: edge of a cell in metres.
        tracks: the paths.
        goals: (M, 2) positions of the goals.
    """
    rows, columns = walls.shape
    half_x, half_y = columns * cell_size / 2, rows * cell_size / 2
    figure, axes = _canvas(4.2 * columns / max(rows, columns), 4.2 * rows / max(rows, columns))
    axes.imshow(
        np.where(walls, 0.72, 1.0),
        extent=(-half_x, half_x, -half_y, half_y),
        cmap="gray",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
    )
    versions = list(dict.fromkeys(track.version for track in tracks))
    for track in tracks:
        number = versions.index(track.version)
        colour = VERSION_COLOURS[number % len(VERSION_COLOURS)]
        axes.plot(track.xy[:, 0], track.xy[:, 1], color=colour, linewidth=1.0, alpha=0.7)
    for number, version in enumerate(versions):
        colour = VERSION_COLOURS[number % len(VERSION_COLOURS)]
        axes.plot([], [], color=colour, label=version[:16] or "no policy")
    places = np.asarray(goals, dtype=np.float64).reshape(-1, 2)
    axes.plot(places[:, 0], places[:, 1], "*", color="#e45756", markersize=10, label="goal")
    axes.set(xlabel="x (m)", ylabel="y (m)", aspect="equal")
    axes.grid(visible=False)
    _legend(axes, columns=3)
    return _png(figure)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            f"pictures need matplotlib ({error}); install it with pip install 'onebeat[report]'"
        ) from error
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8, colors=_INK)
    axes.xaxis.label.set(fontsize=8, color=_INK)
    axes.yaxis.label.set(fontsize=8, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _legend(axes: Axes, columns: int = 4) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            frameon=False,
            fontsize=7,
            ncols=columns,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderpad=0,
        )


def _next_deadline(log: RunLog) -> tuple[float, str]:
    period_us = log.header.period_ns / 1e3
    return period_us, f"next deadline  {period_us:,.0f} µs"


def _strip(
    axes: Axes,
    seconds: NDArray[np.float64],
    mask: NDArray[np.bool_],
    y: float,
    colour: str,
    label: str,
) -> None:
    if not mask.any():
        return
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    ends = np.append(seconds, seconds[-1] + (seconds[-1] - seconds[0]) / max(1, len(seconds) - 1))
    spans = [(seconds[a], ends[b] - seconds[a]) for a, b in zip(starts, stops, strict=True)]
    axes.broken_barh(
        spans, (y - 0.35, 0.7), facecolors=colour, edgecolors=colour, linewidth=0.8, label=label
    )


def _version_colours(log: RunLog) -> dict[str, str]:
    versions = dict.fromkeys(version for version in log.versions if version)
    return {
        version: VERSION_COLOURS[n % len(VERSION_COLOURS)] for n, version in enumerate(versions)
    }


def _acting_versions(log: RunLog) -> list[str]:
    """Return T versions, with that before it where no policy acted."""
    acting, newest = [], next((version for version in log.versions if version), "")
    for version in log.versions:
        newest = version or newest
        acting.append(newest)
    return acting


def _present(times_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    return times_ns[times_ns >= 0] / 1e3


def _median_us(times_ns: NDArray[np.int64]) -> float:
    present = _present(times_ns)
    return float(np.median(present)) if len(present) else 0.0


def _seconds(log: RunLog) -> NDArray[np.float64]:
    return (log.deadline_ns - log.deadline_ns[:1]) / 1e9


def _thinned(log: RunLog) -> NDArray[np.int64]:
    return _some(log.stages["total"])


def _some(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows for a plot: all, or an even selection and all the worst."""
    rows = np.arange(len(times_ns))
    if len(rows) <= _MAX_POINTS:
        return rows
    worst = np.argsort(times_ns)[-_MAX_POINTS // 10 :]
    return np.union1d(rows[:: -(-len(rows) // _MAX_POINTS)], worst)
