"""Drawing in a process of its own.

MuJoCo chooses its OpenGL library when it is imported, and a library that crashes or hangs must
not take the caller with it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from controller.errors import ConfigError
from sim.errors import RenderUnavailable

log = logging.getLogger(__name__)

BACKENDS = ("egl", "osmesa")
REFUSED = 2
"""Exit status of a drawing process that cannot do what was asked for, whatever the library."""
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri (or libosmesa6)"


def draw(
    module: str, job_of: Callable[[Path, Path], msgspec.Struct], out: Path, timeout_s: float
) -> Path:
    """Let a module draw a file, with the first OpenGL library that works.

    Args:
        module: run with ``-m``; takes its job as JSON on standard input and writes a file.
        job_of: returns the job, from a scratch directory and the file to write in it.
        out: where the file goes; its directory is made.
        timeout_s: how long each attempt may take.

    Raises:
        RenderUnavailable: this machine cannot draw; says what to install.
        ConfigError: the module says that the job makes no sense.
    """
    wanted = os.environ.get("MUJOCO_GL")
    faults = []
    with tempfile.TemporaryDirectory(prefix="onebeat-draw-") as directory:
        made = Path(directory) / f"made{out.suffix}"
        job = msgspec.json.encode(job_of(Path(directory), made))
        for backend in (wanted,) if wanted else BACKENDS:
            fault = _attempt(module, job, made, backend, timeout_s)
            if fault is None:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(made.read_bytes())
                return out
            faults.append(f"{backend}: {fault}")
    raise RenderUnavailable(
        f"off-screen OpenGL does not work here ({'; '.join(faults)}); on Debian install {PACKAGES}"
    )


def _attempt(module: str, job: bytes, made: Path, backend: str, timeout_s: float) -> str | None:
    """Draw with one OpenGL library; return what went wrong, or None."""
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=job,
            capture_output=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {timeout_s:g} s"
    if done.returncode == 0 and made.is_file():
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == REFUSED and said:
        raise ConfigError(said[-1])
    log.debug("drawing with %s failed: %s", backend, "\n".join(said))
    return said[-1][:120] if said else f"ended with status {done.returncode}"
