"""D4RL's maze2d: a ball pushed by two forces to a goal that never moves.

The observation is (x, y, vx, vy) in D4RL's frame, which the published files are in: x grows down
the rows, y along the columns, and a ball at (row, column) exactly is 0.2 m beyond the centre of
that cell on both axes, because D4RL puts the ball's body at (1.2, 1.2) and the cells' centres at
whole numbers from 1. Starts are a random free cell ±0.1 m with velocity N(0, 0.1²); the goal is
(row, column) of its cell. Velocities are clipped to ±5 m/s before every step of 10 ms.

The reward is 1 on every step that ends within 0.5 m of the goal, else 0; in the ``-dense`` tasks
exp(-distance). Nothing ends an episode but time.

The goal is not observed: a policy has to know it from the rewards it was trained with.

Source: D4RL ``d4rl/pointmaze/{maze_model,dynamic_mjc}.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from controller.spec import ArraySpec, Spec
from sim.d4rl.scores import versions_of
from sim.env import Env
from sim.pointmaze import LAYOUTS, Cell, Layout
from sim.task import Task

Floats = NDArray[np.float64]

RATE_HZ = 100.0
RADIUS_M = 0.5
OFF_CENTRE_M = 0.2
SPEED_LIMIT = 5.0

OPEN = Layout(("#######", "#     #", "#     #", "#     #", "#######"), (2, 3), 150)


@dataclass(frozen=True)
class Maze2dTask:
    """One task.

    Attributes:
        name: name of the task.
        layout: walls, goal cell and length.
        dense: whether the reward is exp(-distance).
    """

    name: str
    layout: Layout
    dense: bool

    @property
    def goal(self) -> Floats:
        """(x, y) of the goal, m."""
        return np.array(self.layout.d4rl_goal, np.float64)


MAZE2D: dict[str, Maze2dTask] = {
    f"maze2d-{maze}{ending}": Maze2dTask(f"maze2d-{maze}{ending}", layout, bool(ending))
    for maze, layout in (*LAYOUTS.items(), ("open", OPEN))
    for ending in ("", "-dense")
}


def centre(cell: Cell) -> Floats:
    """Return (x, y) that D4RL's starts, goals and waypoints in a cell (row, column) have, m."""
    return np.array(cell, np.float64)


def cell_at(walls: NDArray[np.bool_], x: float, y: float) -> Cell:
    """Return the cell (row, column) that a position is in, the nearest one if outside."""
    rows, columns = walls.shape
    row, column = int(np.floor(x + 0.5 + OFF_CENTRE_M)), int(np.floor(y + 0.5 + OFF_CENTRE_M))
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


def maze2d_spec(task: str) -> Spec:
    """Return the spec of a task, without building it."""
    names = ("x", "y", "vx", "vy")
    return Spec(
        task=task,
        observation=(ArraySpec("observations", (4,), elements=names),),
        action=ArraySpec(
            "action",
            (2,),
            "float32",
            low=(-1.0, -1.0),
            high=(1.0, 1.0),
            elements=("force_x", "force_y"),
        ),
        rate_hz=RATE_HZ,
    )


def tasks() -> Iterable[Task]:
    """Return the eight tasks."""
    for task in MAZE2D.values():
        reward = "exp(-distance)" if task.dense else "1 at the goal"
        yield Task(
            name=task.name,
            family="maze2d",
            description=f"ball to the goal in cell {list(task.layout.d4rl_goal)}, reward {reward}",
            episode_steps=task.layout.episode_steps,
            make_spec=partial(maze2d_spec, task.name),
            make_env=partial(_make, task),
            has_success=True,
            scored_as=versions_of(task.name)[-1],
            datasets=versions_of(task.name),
        )


def _make(task: Maze2dTask, physics: str = "mujoco210") -> Env:
    from sim.d4rl.maze2d_env import Maze2dEnv

    return Maze2dEnv(task, physics)
