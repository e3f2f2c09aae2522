"""Your own robot: an MJCF file, a YAML that says what of it is a task, and a reward in Python.

A path to the YAML stands wherever a task name does, and is the task's name: relative to the
working directory where the file lies below it, else absolute, so that logs and bundles lead back
to it. ``docs/own-robot.md`` is the manual, ``configs/robots/arm`` the example.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from controller.config import load
from controller.errors import ConfigError
from controller.ranges import NonNegative, Positive
from sim.env import Env
from sim.task import Task

if TYPE_CHECKING:
    from sim.mjcf_robot import Robot

ENDINGS = (".yaml", ".yml")

Source = Literal[
    "joint_positions",
    "joint_velocities",
    "actuator_forces",
    "sensors",
    "site_positions",
    "body_positions",
    "body_orientations",
]

Name = Annotated[str, msgspec.Meta(min_length=1)]


class ArrayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One array of the observation.

    Attributes:
        name: what it is called.
        source: ``from`` in the file: what it is read from. Positions are in metres or radians,
            sites and bodies in the world's frame, orientations quaternions (w, x, y, z).
        of: names of the joints, actuators, sensors, sites or bodies, in this order; null for
            all the model has.
        unit: SI unit.
    """

    name: Name
    source: Source = msgspec.field(name="from")
    of: tuple[str, ...] | None = None
    unit: str = ""


class ActuatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One element of the action.

    Attributes:
        name: of the actuator.
        low: lower limit; null for that of the model's ctrlrange.
        high: upper limit; null for that of the model's ctrlrange.
    """

    name: Name
    low: float | None = None
    high: float | None = None


class ResetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an episode begins.

    Attributes:
        keyframe: name of the model's keyframe; null for its initial state.
        position_noise: half width of what is added evenly to the position of each joint: one
            number for all, or by name of the joint, in metres or radians.
        velocity_noise: the same for the velocities.
    """

    keyframe: str | None = None
    position_noise: NonNegative | dict[str, NonNegative] = 0.0
    velocity_noise: NonNegative | dict[str, NonNegative] = 0.0


class RobotConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task on a robot of one's own. Paths are relative to the file.

    Attributes:
        model: the MJCF file.
        rate_hz: control rate; a period must be a whole number of the model's timesteps.
        episode_seconds: time after which an episode is cut.
        observation: what is observed.
        reward: ``FILE.py:FUNCTION``. The function is given the ``mujoco.MjModel``, the
            ``mujoco.MjData`` and the action after each step, and returns the reward, or
            (reward, terminated), or (reward, terminated, success).
        action: the actuators that are commanded; empty for all in the model's order.
        unit: SI unit of the action.
        reset: how an episode begins.
        description: one line.
    """

    model: Name
    rate_hz: Positive
    episode_seconds: Positive
    observation: tuple[ArrayConfig, ...]
    reward: Name
    action: tuple[ActuatorConfig, ...] = ()
    unit: str = ""
    reset: ResetConfig = ResetConfig()
    description: str = ""


def is_robot_file(name: str) -> bool:
    """Whether a task name is meant as the path of a robot's YAML."""
    return name.endswith(ENDINGS)


def task_of_file(path: str | Path) -> Task:
    """Return the task that a robot's YAML describes; compiles its model and loads its reward.

    Raises:
        ConfigError: the file, its model or its reward is not there or does not fit; says which
            key, what was got, and what is valid.
    """
    robot = robot_of_file(path)
    return Task(
        name=robot.spec.task,
        family="own",
        description=robot.description or f"robot of {robot.spec.task}",
        episode_steps=robot.episode_steps,
        make_spec=lambda: robot.spec,
        make_env=partial(_make, str(path)),
        physics_steps=robot.physics_steps,
        has_success=robot.has_success,
    )


def robot_of_file(path: str | Path) -> Robot:
    """Read a robot's YAML, compile its model and load its reward.

    Raises:
        ConfigError: see :func:`task_of_file`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"task {path}: no such file")
    config = load(RobotConfig, path)
    from sim.mjcf_robot import compile_robot

    return compile_robot(config, path)


def _make(path: str) -> Env:
    from sim.mjcf_env import MjcfEnv

    return MjcfEnv(robot_of_file(path))
