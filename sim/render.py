"""Moving pictures of a run, drawn from its logged observations.

Drawing happens in a process of its own: MuJoCo chooses its OpenGL library when it is imported,
and a library that crashes or hangs must not take the caller with it.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.transitions import layout_of
from sim.errors import RenderUnavailable
from sim.registry import task_spec

log = logging.getLogger(__name__)

Columns = NDArray[np.floating] | Mapping[str, NDArray[np.floating]]

BACKENDS = ("egl", "osmesa")
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri (or libosmesa6)"


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


def render_gif(
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
    """Draw a run as an animated GIF.

    Args:
        task: name of the task.
        observations: (T, D) in the spec's order, or the arrays (T, ...) by name. Rows that are
            not finite are left out.
        path: file to write.
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
    fps = fps or max(10.0, task_spec(task).rate_hz / stride)
    return _draw(task, rows, frames, path, size, fps, timeout_s)


def render_png(
    task: str,
    observations: Columns,
    path: Path,
    *,
    size: int = 640,
    timeout_s: float = 60.0,
) -> Path:
    """Draw the last row of a run, with the path to it, as a PNG; else as ``render_gif``."""
    rows = _flat(task, observations)
    return _draw(task, rows, (len(rows) - 1,), path, size, 1.0, timeout_s)


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
    wanted = os.environ.get("MUJOCO_GL")
    faults = []
    with tempfile.TemporaryDirectory(prefix="onebeat-render-") as directory:
        kept, made = Path(directory) / "rows.npy", Path(directory) / f"made{path.suffix}"
        np.save(kept, rows, allow_pickle=False)
        job = Job(task, str(kept), frames, str(made), size, fps)
        for backend in (wanted,) if wanted else BACKENDS:
            fault = _attempt(job, backend, timeout_s)
            if fault is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(made.read_bytes())
                return path
            faults.append(f"{backend}: {fault}")
    raise RenderUnavailable(
        f"off-screen OpenGL does not work here ({'; '.join(faults)}); on Debian install {PACKAGES}"
    )


def _attempt(job: Job, backend: str, timeout_s: float) -> str | None:
    """Draw with one OpenGL library; return what went wrong, or None."""
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sim.scene"],
            input=msgspec.json.encode(job),
            capture_output=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {timeout_s:g} s"
    if done.returncode == 0 and Path(job.out).is_file():
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    log.debug("drawing with %s failed: %s", backend, "\n".join(said))
    return said[-1][:120] if said else f"ended with status {done.returncode}"
