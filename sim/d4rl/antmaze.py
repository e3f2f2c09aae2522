"""D4RL's AntMaze: its ant, its mazes, its starts and goals.

Gymnasium-robotics' AntMaze is another robot in other mazes; results do not compare.

A cell is 4 m wide and cell (1, 1), where the ant starts, has its centre at the origin: x grows
with the column, y with the row. The reward is 1, and the episode ends, when the torso is within
0.5 m of the goal; else 0. Falling over ends nothing. Goals lie up to 1.5 m beyond the centre of
their cell, on the positive side of both axes, as D4RL draws them.

The tasks differ in the maze and the length; ``play`` and ``diverse`` name datasets of the same
task. The datasets were made in the ``GENERATION`` layouts, which have the same walls and more
goals, from random starts and without an end at the goal.

Source: D4RL ``d4rl/locomotion/{ant,maze_env,goal_reaching_env}.py`` and
``scripts/generation/generate_ant_maze_datasets.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from controller.spec import ArraySpec, Spec
from sim.d4rl.locomotion import ROBOTS
from sim.d4rl.scores import versions_of
from sim.env import Env
from sim.pointmaze import LAYOUTS, Cell, walls_in
from sim.task import Task

CELL_M = 4.0
ORIGIN: Cell = (1, 1)
RADIUS_M = 0.5
PHYSICS_STEPS = 5
TIMESTEP_S = 0.02


@dataclass(frozen=True)
class Maze:
    """Walls and goals.

    Attributes:
        rows: ``#`` is a wall; row 0 has the smallest y.
        goals: cells that a goal may lie in.
        episode_steps: steps of an episode.
    """

    rows: tuple[str, ...]
    goals: tuple[Cell, ...]
    episode_steps: int

    @property
    def walls(self) -> NDArray[np.bool_]:
        """(rows, columns), True where there is a wall."""
        return walls_in(self.rows)

    @property
    def free(self) -> tuple[Cell, ...]:
        """Cells without a wall, row by row."""
        return tuple((int(i), int(j)) for i, j in np.argwhere(~self.walls))


EVALUATION: dict[str, Maze] = {
    "umaze": Maze(LAYOUTS["umaze"].rows, ((3, 1),), 700),
    "medium": Maze(LAYOUTS["medium"].rows, ((6, 6),), 1000),
    "large": Maze(LAYOUTS["large"].rows, ((7, 9),), 1000),
}
"""The mazes that policies are scored in."""

GENERATION: dict[str, Maze] = {
    "umaze": EVALUATION["umaze"],
    "medium": Maze(LAYOUTS["medium"].rows, ((2, 6), (5, 1), (6, 5)), 1000),
    "large": Maze(
        LAYOUTS["large"].rows, ((1, 6), (3, 5), (3, 10), (5, 2), (7, 4), (7, 6), (7, 9)), 1000
    ),
}
"""The mazes that D4RL's data was made in."""

TASKS: dict[str, str] = {
    "antmaze-umaze": "umaze",
    "antmaze-umaze-diverse": "umaze",
    "antmaze-medium-play": "medium",
    "antmaze-medium-diverse": "medium",
    "antmaze-large-play": "large",
    "antmaze-large-diverse": "large",
}
"""Task -> maze."""


def centre(cell: Cell) -> NDArray[np.float64]:
    """Return (x, y) of the centre of a cell (row, column), m."""
    return CELL_M * np.array([cell[1] - ORIGIN[1], cell[0] - ORIGIN[0]], np.float64)


def cell_at(x: float, y: float) -> Cell:
    """Return the cell that D4RL takes a position for.

    It rounds down, and takes what lies beyond the origin for cell (1, 1): a position a little
    before a cell's centre counts as the cell before, which D4RL's offsets of goals and
    waypoints into the positive quadrant make up for.
    """
    return int(1 + max(y, 1e-4) / CELL_M), int(1 + max(x, 1e-4) / CELL_M)


def antmaze_spec(task: str) -> Spec:
    """Return the spec of a task, without building it."""
    ant = ROBOTS["ant"]
    names = ("x", "y", *ant.positions, *(f"{name}_velocity" for name in ant.velocities))
    return Spec(
        task=task,
        observation=(ArraySpec("observations", (29,), elements=names),),
        action=ant.spec.action,
        rate_hz=1.0 / (PHYSICS_STEPS * TIMESTEP_S),
    )


def tasks() -> Iterable[Task]:
    """Return the six tasks."""
    for name, maze in TASKS.items():
        yield Task(
            name=name,
            family="antmaze",
            description=f"walk an ant to the goal in the {maze} maze",
            episode_steps=EVALUATION[maze].episode_steps,
            make_spec=partial(antmaze_spec, name),
            make_env=partial(_make, maze),
            physics_steps=PHYSICS_STEPS,
            has_success=True,
            scored_as=f"{name}-v2",
            datasets=versions_of(name),
        )


def _make(maze: str, physics: str = "mujoco210") -> Env:
    from sim.d4rl.antmaze_env import AntMazeEnv

    return AntMazeEnv(EVALUATION[maze], physics=physics)
