"""Pictures of a run, drawn from its logged observations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.transitions import layout_of
from sim.offscreen import draw
from sim.registry import task_spec

Columns = NDArray[np.floating] | Mapping[str, NDArray[np.floating]]


class Job(msgspec.Struct, frozen=True):
    """What the drawing process is asked for.

    Attributes:
        task: name of the task.
        rows: .npy file of observations (T, D).
        frames: rows to draw.
        out: file to write; the ending tells GIF from PNG.
        size: longer edge of the picture in pixels.
        fps: frames per second.
    """

    task: str
    rows: str
    frames: tuple[int, ...]
    out: str
    size: int
    fps: float


def draw_run(
    task: str,
    observations: Columns,
    path: Path,
    *,
    fps: float | None = None,
    size: int = 320,
    max_frames: int = 100,
    stride: int | None = None,
    timeout_s: float = 120.0,
) -> Path:
    """Draw a run as a GIF or MP4, or its last row and the path to it as a PNG.

    Args:
        task: name of the task.
        observations: (T, D) in the spec's order, or the arrays (T, ...) by name. Rows that are
            not finite are left out.
        path: file to write; its ending tells which.
        fps: frames per second; None plays at the speed of the run, but at 10 or more.
        size: longer edge in pixels.
        max_frames: most frames to draw; beyond them rows are left out evenly.
        stride: draw every so many rows, the first ``max_frames`` of them.
        timeout_s: how long each attempt to draw may take.

    Raises:
        RenderUnavailable: this machine cannot draw; says what to install.
        DataError: the observations are not of the task, or there are none.
    """
    rows = _flat(task, observations)
    stride = stride or math.ceil(len(rows) / max_frames)
    frames = tuple(range(0, len(rows), stride))[:max_frames]
    if path.suffix == ".png":
        frames = (len(rows) - 1,)
    fps = fps or max(10.0, task_spec(task).rate_hz / stride)
    return _draw(task, rows, frames, path, size, fps, timeout_s)


def _flat(task: str, observations: Columns) -> NDArray[np.float64]:
    layout = layout_of(task_spec(task))
    if isinstance(observations, Mapping):
        parts = [np.asarray(observations[name], np.float64) for name, _ in layout]
        observations = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    rows = np.asarray(observations, np.float64)
    width = sum(size for _, size in layout)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise DataError(f"{task}: observations have shape {rows.shape}, expected (T, {width})")
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        raise DataError(f"{task}: there is no finite observation to draw")
    return rows


def _draw(
    task: str,
    rows: NDArray[np.float64],
    frames: tuple[int, ...],
    path: Path,
    size: int,
    fps: float,
    timeout_s: float,
) -> Path:
    def job(scratch: Path, made: Path) -> Job:
        kept = scratch / "rows.npy"
        np.save(kept, rows, allow_pickle=False)
        return Job(task, str(kept), frames, str(made), size, fps)

    return draw("sim.scene", job, path, timeout_s)
