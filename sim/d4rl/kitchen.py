"""The Franka kitchen as D4RL has it, on gymnasium-robotics' model.

One array of 60 numbers: robot joints (9), object joints (21), goal (30, zero outside the task
set). The action is nine joint velocities in [-1, 1] of 2 rad/s (m/s for the fingers), 12.5 Hz,
at most 280 steps. The reward of a step is the number of tasks newly completed in it; the episode
ends when all four are. A return therefore counts completed tasks, and D4RL's score is 25 per
task. The stored rewards of D4RL's dataset are something else: the number of tasks complete at
each step.

Differences to gymnasium-robotics' FrankaKitchen-v1, all towards D4RL:

- positions instead of positions and velocities, and the goal with them;
- observation noise: D4RL adds U(-1, 1) · 0.1 · amplitude to robot and object positions, which
  the published dataset shows (objects at rest scatter by it); FrankaKitchen has a tenth of it
  on the robot, 0.5 % of it on the objects, and reads the object amplitudes off by one;
- a task is judged complete by the noisy object positions.

A control step is 40 physics steps. In real time a command may come between two of them: its
velocities, too, count from the positions that the arm reported last.

The reset pose is the same. In the dataset the arm starts elsewhere, up to 0.16 rad away: its
demonstrations do not begin at the reset.

Source: D4RL ``d4rl/kitchen/kitchen_envs.py``, ``adept_envs/franka``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.spec import ArraySpec, Spec
from controller.types import Array
from sim.d4rl.scores import versions_of
from sim.env import quiet_import
from sim.task import Task

Floats = NDArray[np.float64]

RATE_HZ = 12.5
EPISODE_STEPS = 280
DONE_DISTANCE = 0.3
NOISE = 0.1
ROBOT, OBJECTS = 9, 21

ELEMENTS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "bottom burner": ((11, 12), (-0.88, -0.01)),
    "top burner": ((15, 16), (-0.92, -0.01)),
    "light switch": ((17, 18), (-0.69, -0.05)),
    "slide cabinet": ((19,), (0.37,)),
    "hinge cabinet": ((20, 21), (0.0, 1.45)),
    "microwave": ((22,), (-0.75,)),
    "kettle": (tuple(range(23, 30)), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
"""Element -> (places within the 30 positions, goal)."""

OBJECT_NOISE = np.array(
    [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3 + [0.005] * 3 + [0.1] * 3 + [0.005]
)
"""Noise amplitude of each object position."""


@dataclass(frozen=True)
class KitchenTask:
    """A set of kitchen tasks.

    Attributes:
        name: name of the task.
        elements: what has to reach its goal.
    """

    name: str
    elements: tuple[str, ...]

    @property
    def reference(self) -> str:
        """D4RL's name of the dataset whose reference returns apply."""
        return f"{self.name}-v0"

    @property
    def goal(self) -> Floats:
        """The goal (30,), zero outside the elements."""
        goal = np.zeros(ROBOT + OBJECTS)
        for element in self.elements:
            places, target = ELEMENTS[element]
            goal[list(places)] = target
        return goal


_SLIDE = ("microwave", "kettle", "light switch", "slide cabinet")
_BURNER = ("microwave", "kettle", "bottom burner", "light switch")
KITCHEN_TASKS: dict[str, KitchenTask] = {
    name: KitchenTask(name, elements)
    for name, elements in (
        ("kitchen-complete", _SLIDE),
        ("kitchen-partial", _SLIDE),
        ("kitchen-mixed", _BURNER),
    )
}


def kitchen_task(name: str) -> KitchenTask:
    """Return a kitchen task by name.

    Raises:
        ConfigError: there is no such kitchen task.
    """
    if name not in KITCHEN_TASKS:
        raise ConfigError(f"{name} is not a kitchen task; {nearest(name, KITCHEN_TASKS)}")
    return KITCHEN_TASKS[name]


def kitchen_spec(task: str) -> Spec:
    """Return the spec of a kitchen task, without building it."""
    robot = [f"joint{i}" for i in range(1, 8)] + ["finger1", "finger2"]
    objects = [f"object{i}" for i in range(OBJECTS)]
    goal = [f"goal_{name}" for name in (*robot, *objects)]
    return Spec(
        task=kitchen_task(task).name,
        observation=(
            ArraySpec("observations", (60,), "float64", elements=(*robot, *objects, *goal)),
        ),
        action=ArraySpec(
            "action", (9,), "float64", low=(-1.0,) * 9, high=(1.0,) * 9, elements=tuple(robot)
        ),
        rate_hz=RATE_HZ,
    )


class KitchenEnv:
    """D4RL's kitchen.

    Args:
        task: what is to be done.
        noise: scale of the observation noise; D4RL's is 0.1, without it 0. The robot's
            controller integrates the noisy positions, so this is part of the dynamics.
    """

    def __init__(self, task: KitchenTask, noise: float = NOISE) -> None:
        with quiet_import():
            from gymnasium_robotics.envs.franka_kitchen.kitchen_env import (
                KitchenEnv as FrankaKitchen,
            )

            from sim.foreign_env import ForeignEnv

        self.task, self._noise = task, noise
        self.kitchen = FrankaKitchen(
            tasks_to_complete=list(task.elements), robot_noise_ratio=noise, object_noise_ratio=0.0
        )
        self._physics = ForeignEnv(self.kitchen)
        self._goal = task.goal
        self._open: set[str] = set()

    @property
    def model(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjModel``."""
        return self._physics.model

    @property
    def data(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjData``."""
        return self._physics.data

    @property
    def between(self) -> Callable[[], Array] | None:
        """See :class:`sim.env.Substepped`; joint targets start from the same noisy reading."""
        return self._physics.between

    @between.setter
    def between(self, callback: Callable[[], Array] | None) -> None:
        self._physics.between = callback

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Return to the initial pose with nothing done."""
        observation, _ = self._physics.reset(seed=seed)
        self._open = set(self.task.elements)
        return self._observe(observation["observation"]), {"success": False, "open": self._open}

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Move for one control step."""
        result, *_ = self.kitchen.step(action)
        observation = self._observe(result["observation"])
        completed = {name for name in self._open if self._is_done(name, observation)}
        self._open = self._open - completed
        info = {"success": not self._open, "open": self._open}
        return observation, float(len(completed)), not self._open, False, info

    def close(self) -> None:
        """Release the environment."""
        self.kitchen.close()

    def _observe(self, reported: Floats) -> Floats:
        robot = reported[:ROBOT]
        objects = self.kitchen.data.qpos[ROBOT : ROBOT + OBJECTS].copy()
        if self._noise:
            drawn = self.kitchen.np_random.uniform(-1.0, 1.0, OBJECTS)
            objects += self._noise * OBJECT_NOISE * drawn
        return np.concatenate([robot, objects, self._goal])

    def _is_done(self, element: str, observation: Floats) -> bool:
        places, target = ELEMENTS[element]
        return bool(np.linalg.norm(observation[list(places)] - target) < DONE_DISTANCE)


def tasks() -> list[Task]:
    """Return the three kitchen tasks."""
    return [
        Task(
            name=task.name,
            family="kitchen",
            description=f"Franka arm, four tasks in any order: {', '.join(task.elements)}",
            episode_steps=EPISODE_STEPS,
            make_spec=partial(kitchen_spec, task.name),
            make_env=partial(KitchenEnv, task),
            physics_steps=40,
            has_success=True,
            scored_as=task.reference,
            datasets=versions_of(task.name),
        )
        for task in KITCHEN_TASKS.values()
    ]
