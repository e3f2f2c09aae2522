"""Point mazes: a ball pushed by two forces through gymnasium-robotics' PointMaze.

Start and goal lie in random cells, each ±0.25 m off the centre, at rest. Physics runs at 100 Hz,
one MuJoCo step of 10 ms per command; the reward is 1 on every step that ends within 0.45 m of the
goal, else 0; nothing ends at the goal. Lengths are D4RL's for the same mazes, and so are the
returns that the score is measured by. Those are of a fixed goal, which is far from most starts:
with random goals a score is higher. D4RL's own task is ``sim.d4rl.maze2d``.

Source: gymnasium-robotics ``envs/maze``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.spec import ArraySpec, Spec
from sim.env import quiet_import
from sim.task import Task

Floats = NDArray[np.float64]
Cell = tuple[int, int]

RATE_HZ = 100.0
CELL_M = 1.0
SPEED_LIMIT = 5.0
"""Velocities are clipped to this before each step, m/s."""
RADIUS_M = 0.45
"""Distance to the goal up to which a step is rewarded."""


class Layout(NamedTuple):
    """A maze. ``#`` is a wall; row 0 is at the top, at the largest y."""

    rows: tuple[str, ...]
    d4rl_goal: Cell
    episode_steps: int

    @property
    def walls(self) -> NDArray[np.bool_]:
        """(rows, columns), True where there is a wall."""
        return walls_in(self.rows)


def walls_in(rows: Sequence[str]) -> NDArray[np.bool_]:
    """Return (rows, columns), True where a drawn maze has a ``#``."""
    return np.array([[mark == "#" for mark in row] for row in rows])


LAYOUTS: dict[str, Layout] = {
    "umaze": Layout(("#####", "#   #", "### #", "#   #", "#####"), (1, 1), 300),
    "medium": Layout(
        (
            "########",
            "#  ##  #",
            "#  #   #",
            "##   ###",
            "#  #   #",
            "# #  # #",
            "#   #  #",
            "########",
        ),
        (6, 6),
        600,
    ),
    "large": Layout(
        (
            "############",
            "#    #     #",
            "# ## # # # #",
            "#      #   #",
            "# #### ### #",
            "#  # #     #",
            "## # # # ###",
            "#  #   #   #",
            "############",
        ),
        (7, 9),
        800,
    ),
}


@dataclass(frozen=True)
class MazeTask:
    """One task in a maze.

    Attributes:
        name: name of the task.
        maze: key of ``LAYOUTS``.
    """

    name: str
    maze: str

    @property
    def layout(self) -> Layout:
        """The maze."""
        return LAYOUTS[self.maze]

    @property
    def reference(self) -> str:
        """D4RL's name of the dataset whose reference returns apply."""
        return f"maze2d-{self.maze}-v1"


MAZE_TASKS: dict[str, MazeTask] = {
    f"pointmaze-{maze}": MazeTask(f"pointmaze-{maze}", maze) for maze in LAYOUTS
}


def maze_task(name: str) -> MazeTask:
    """Return a maze task by name.

    Raises:
        ConfigError: there is no such maze task.
    """
    if name not in MAZE_TASKS:
        raise ConfigError(f"{name} is not a maze task; {nearest(name, MAZE_TASKS)}")
    return MAZE_TASKS[name]


def walls(task: str) -> tuple[NDArray[np.bool_], float]:
    """Return (rows, columns) of walls and the edge of a cell in metres.

    The centre of cell (i, j) lies at x = j + ½ - columns/2, y = rows/2 - i - ½ in cell edges.
    """
    return maze_task(task).layout.walls, CELL_M


def xy(observations: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the path (T, 2) in metres of observations (T, D) in the spec's order."""
    return np.asarray(observations)[..., :2]


def centre(walls: NDArray[np.bool_], cell: Cell) -> Floats:
    """Return x, y of the centre of a cell (row, column)."""
    rows, columns = walls.shape
    return np.array([cell[1] + 0.5 - columns / 2, rows / 2 - cell[0] - 0.5]) * CELL_M


def cell_at(walls: NDArray[np.bool_], position: Sequence[float]) -> Cell:
    """Return the cell (row, column) of a position (x, y), the nearest one if it lies outside."""
    rows, columns = walls.shape
    row = math.floor(rows / 2 - position[1] / CELL_M)
    column = math.floor(position[0] / CELL_M + columns / 2)
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


def maze_spec(task: str) -> Spec:
    """Return the spec of a maze task, without building it."""
    return Spec(
        task=maze_task(task).name,
        observation=(
            ArraySpec("observation", (4,), "float64", elements=("x", "y", "vx", "vy")),
            ArraySpec("achieved_goal", (2,), "float64", "m", elements=("x", "y")),
            ArraySpec("desired_goal", (2,), "float64", "m", elements=("x", "y")),
        ),
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


class MazeEnv:
    """gymnasium-robotics' PointMaze with the task's goal, starts and radius.

    Args:
        task: the task.
        goal_cell: (row, column) that the goal is always in; None for the task's own rule.

    Raises:
        ConfigError: the goal cell is a wall or outside the maze.
    """

    def __init__(self, task: MazeTask, goal_cell: Cell | None = None) -> None:
        with quiet_import():
            import mujoco
            from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
        self.task = task
        self.walls = task.layout.walls
        self._free = [(int(i), int(j)) for i, j in np.argwhere(~self.walls)]
        self._goal_cell = None if goal_cell is None else self._free_cell(goal_cell)
        self.maze = PointMazeEnv(
            maze_map=self.walls.astype(int).tolist(), continuing_task=True, reset_target=False
        )
        # The model was compiled from a file that the library leaves in the temporary directory.
        Path(self.maze.tmp_xml_file_path).unlink(missing_ok=True)
        self._forward, self._physics_step = mujoco.mj_forward, mujoco.mj_step
        self._model, self._data = self.maze.model, self.maze.data
        self._qpos, self._qvel = self._data.qpos, self._data.qvel
        self._ctrl = self._data.ctrl

    @property
    def model(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjModel``."""
        return self._model

    @property
    def data(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjData``."""
        return self._data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Floats], dict[str, Any]]:
        """Draw goal and start."""
        fixed = None if self._goal_cell is None else {"goal_cell": np.array(self._goal_cell)}
        observation, _ = self.maze.reset(seed=seed, options=fixed)
        return observation, {"success": self._reached()}

    def step(self, action: NDArray[np.floating]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Push for one control step.

        Bit for bit what the package's own step does, less what only its callers would need.
        """
        np.minimum(np.maximum(self._qvel, -SPEED_LIMIT), SPEED_LIMIT, out=self._qvel)
        # The package evaluates the clipped state with the force of the step before, and so the
        # solver of the next step starts from that.
        self._forward(self._model, self._data)
        self._ctrl[:] = np.minimum(np.maximum(action, -1.0), 1.0)
        self._physics_step(self._model, self._data)
        reached = self._reached()
        return self._observation(), float(reached), False, False, {"success": reached}

    def close(self) -> None:
        """Release the environment."""
        self.maze.close()

    def set_goal(self, goal: Floats) -> dict[str, Floats]:
        """Move the goal to (x, y) and return the observation with it."""
        self.maze.goal = np.array(goal, np.float64)
        self.maze.update_target_site_pos()
        return self._observation()

    def draw_goal(self) -> Floats:
        """Return a place for a new goal, more than the radius away from the ball."""
        random = self.maze.np_random
        while True:
            cell = self._free[int(random.integers(len(self._free)))]
            goal: Floats = centre(self.walls, cell) + random.uniform(-0.25, 0.25, 2)
            if np.linalg.norm(goal - self.maze.data.qpos) > RADIUS_M:
                return goal

    def _observation(self) -> dict[str, Floats]:
        return {
            "observation": np.concatenate([self._qpos, self._qvel]),
            "achieved_goal": self._qpos.copy(),
            "desired_goal": self.maze.goal.copy(),
        }

    def _reached(self) -> bool:
        offset = self._qpos - self.maze.goal
        return bool(offset @ offset <= RADIUS_M**2)

    def _free_cell(self, cell: Cell) -> Cell:
        cell = (int(cell[0]), int(cell[1]))
        if cell not in self._free:
            rows, columns = self.walls.shape
            raise ConfigError(
                f"{self.task.name}: goal_cell {list(cell)} is not a free cell; expected "
                f"[row, column] in 0..{rows - 1}, 0..{columns - 1} and not a wall"
            )
        return cell


def tasks() -> list[Task]:
    """Return the maze tasks."""
    return [_task(maze) for maze in MAZE_TASKS.values()]


def _task(maze: MazeTask) -> Task:
    return Task(
        name=maze.name,
        family="pointmaze",
        description=f"ball in the {maze.maze} maze, random start and goal",
        episode_steps=maze.layout.episode_steps,
        make_spec=partial(maze_spec, maze.name),
        make_env=partial(MazeEnv, maze),
        has_success=True,
        scored_as=maze.reference,
    )
