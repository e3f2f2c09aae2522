"""The physics D4RL's data was made with, on a MuJoCo of today.

Two things changed since MuJoCo 2.1.0. It took the two half spheres of a capsule for πr³ instead
of 4/3 πr³, so every link was lighter and balanced otherwise. And from 3.5.0 on, the contact
margin of two geoms is the sum of theirs, where it was the larger one. Both are undone on the
compiled model; what remains is rounding (tests/sim/d4rl/test_physics.py).

A third concerns only bodies that slide and never turn, such as the ball of maze2d: see
``sim.d4rl.maze2d_env``.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import msgspec
import mujoco
import numpy as np

from controller.arguments import nearest

MARGINS_ADD_UP_SINCE = (3, 5)


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inertial properties of one body as MuJoCo 2.1.0 computes them from its geoms.

    Attributes:
        name: of the body, empty where the model gives none.
        mass: kg.
        inertia: (3,) principal moments in kg m².
        ipos: (3,) centre of mass in the body's frame, m.
        iquat: (4,) principal axes in the body's frame.
    """

    name: str
    mass: float
    inertia: tuple[float, float, float]
    ipos: tuple[float, float, float]
    iquat: tuple[float, float, float, float]


@functools.cache
def inertials() -> dict[str, tuple[Body, ...]]:
    """Return robot -> its bodies, in the order of the model, measured from MuJoCo 2.1.0."""
    text = resources.files("sim.d4rl").joinpath("inertials.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, tuple[Body, ...]])


def as_mujoco_210(model: Any, robot: str) -> None:  # noqa: ANN401
    """Give a compiled model the physics of MuJoCo 2.1.0, in place.

    Args:
        model: the ``mujoco.MjModel``.
        robot: key of :func:`inertials`.

    Raises:
        ValueError: the robot is unknown, the model has other bodies than the robot's, or geoms
            with different margins.
    """
    if robot not in inertials():
        raise ValueError(f"robot {robot} is unknown; {nearest(robot, inertials())}")
    bodies = inertials()[robot]
    names = [model.body(i).name for i in range(model.nbody)]
    expected = [body.name for body in bodies]
    if names != expected:
        raise ValueError(f"{robot}: the model's bodies are {names}, expected {expected}")
    for name in ("mass", "inertia", "ipos", "iquat"):
        getattr(model, f"body_{name}")[:] = [getattr(body, name) for body in bodies]
    mujoco.mj_setConst(model, mujoco.MjData(model))
    halve_margins(model)


def halve_margins(model: Any) -> None:  # noqa: ANN401
    """Make two margins add up to what the larger one was, where MuJoCo adds them, in place.

    Raises:
        ValueError: the model's geoms have different margins.
    """
    if _version() < MARGINS_ADD_UP_SINCE:
        return
    margins = np.unique(model.geom_margin)
    if len(margins) != 1:
        raise ValueError(f"margins {margins.tolist()}: only a uniform margin can be halved")
    model.geom_margin[:] *= 0.5


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in mujoco.__version__.split(".")[:2])
