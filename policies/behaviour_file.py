"""Behaviour policies as .npz files: what drove the robot when data was recorded.

The entries are those of the published soft actor-critic snapshots: ``fc0.weight`` (out, in),
``fc0.bias``, ``fc1.*`` and so on, ``last_fc.*`` (mean), ``last_fc_log_std.*``, and in words
``nonlinearity`` and ``output_distribution``. Observations go in as they are; an action is
tanh(μ + σ n), log σ clipped to [-20, 2], and its -1 and 1 are the limits of the robot's action.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from controller.types import Array


def write_behaviour(path: Path, layers: Mapping[str, Array]) -> None:
    """Write a tanh-Gaussian policy with ReLU units, whole or not at all.

    The same policy gives the same bytes.

    Args:
        path: file to make or replace; its directory is made too.
        layers: ``NAME.weight`` (out, in) and ``NAME.bias`` (out,) of fc0 and on, last_fc and
            last_fc_log_std.
    """
    words = {"nonlinearity": "relu", "output_distribution": "tanh_gaussian"}
    entries: dict[str, Any] = {**layers, **{name: np.array(word) for name, word in words.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    try:
        with scratch.open("wb") as file:
            np.savez(file, **entries)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
