"""The environment behind ``sim.d4rl.antmaze``."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.types import Array
from sim.d4rl.antmaze import CELL_M, ORIGIN, PHYSICS_STEPS, RADIUS_M, TIMESTEP_S, Maze, centre
from sim.d4rl.locomotion_env import PHYSICS, assets
from sim.d4rl.physics import as_mujoco_210

Floats = NDArray[np.float64]

TORQUE = 30.0
"""Of an action of 1, N m."""
WALL_HALF_HEIGHT_M = 1.0
POSITIONS, VELOCITIES = 15, 14


class AntMazeEnv:
    """An ant in a maze.

    Args:
        maze: walls and goals.
        multistart: begin in any free cell that is no goal, up to 1 m beyond its centre on both
            axes, as D4RL's data was made; else at the origin.
        ends_at_goal: whether reaching the goal ends the episode.
        physics: ``mujoco210`` or ``stock``; see ``sim.d4rl.physics``.

    Attributes:
        maze: as given.
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``.
        between: see :class:`sim.env.Substepped`.
        goal: (x, y) of the goal, m; drawn at every reset, as in D4RL's ``-v2``.

    Raises:
        ConfigError: no such physics.
    """

    def __init__(
        self,
        maze: Maze,
        *,
        multistart: bool = False,
        ends_at_goal: bool = True,
        physics: str = "mujoco210",
    ) -> None:
        if physics not in PHYSICS:
            raise ConfigError(f"physics: {physics!r} is unknown; {nearest(physics, PHYSICS)}")
        self.maze = maze
        self.model = mujoco.MjModel.from_xml_string(ant_in_maze(maze))
        if physics == "mujoco210":
            as_mujoco_210(self.model, "antmaze")
        self.data = mujoco.MjData(self.model)
        self.between: Callable[[], Array] | None = None
        self.goal: Floats = np.zeros(2)
        self._multistart, self._ends_at_goal = multistart, ends_at_goal
        self._random = np.random.default_rng()
        self._starts = tuple(cell for cell in maze.free if cell not in maze.goals)
        self._qpos, self._qvel, self._ctrl = self.data.qpos, self.data.qvel, self.data.ctrl
        self._shown = np.zeros(POSITIONS + VELOCITIES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode with a new goal."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        random = self._random
        mujoco.mj_resetData(self.model, self.data)
        self._qpos[:] += random.uniform(-0.1, 0.1, POSITIONS)
        self._qvel[:] = 0.1 * random.standard_normal(VELOCITIES)
        if self._multistart:
            self._qpos[:2] = _beyond(self._pick(self._starts), random.uniform(0.0, 1.0, 2))
        mujoco.mj_forward(self.model, self.data)
        self.goal = self.draw_goal()
        return self._observe(), {"success": self._reached()}

    def draw_goal(self) -> Floats:
        """Return (x, y) of a new goal, in one of the maze's goal cells, m."""
        random = self._random
        offset = random.uniform(0.0, 1.0, 2) + random.uniform(0.0, 0.5, 2)
        return _beyond(self._pick(self.maze.goals), offset)

    def step(self, action: Array) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Drive the motors with an action (8,), clipped to [-1, 1], of 30 N m."""
        self._drive(action)
        if self.between is None:
            mujoco.mj_step(self.model, self.data, PHYSICS_STEPS)
        else:
            mujoco.mj_step(self.model, self.data)
            for _ in range(PHYSICS_STEPS - 1):
                self._drive(self.between())
                mujoco.mj_step(self.model, self.data)
        reached = self._reached()
        ended = reached and self._ends_at_goal
        return self._observe(), float(reached), ended, False, {"success": reached}

    def close(self) -> None:
        """Release nothing."""

    def _drive(self, action: Array) -> None:
        self._ctrl[:] = np.minimum(np.maximum(action, -1.0), 1.0)
        self._ctrl *= TORQUE

    def _observe(self) -> Floats:
        self._shown[:POSITIONS] = self._qpos
        self._shown[POSITIONS:] = self._qvel
        return self._shown

    def _reached(self) -> bool:
        away = self._qpos[:2] - self.goal
        return bool(away @ away <= RADIUS_M**2)

    def _pick(self, cells: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        return cells[int(self._random.integers(len(cells)))]


def _beyond(cell: tuple[int, int], offset: Floats) -> Floats:
    """Return a place off the centre of a cell, never behind the origin."""
    return np.maximum(centre(cell) + offset, 0.0)


def ant_in_maze(maze: Maze) -> str:
    """Return the MJCF of D4RL's ant among the walls of a maze.

    It is Gymnasium's ant with softer contacts, a longer physics step and motors without gear;
    every other physical property is the same. Walls are boxes 4 m wide and 2 m high.
    """
    root = ET.parse(assets() / "ant.xml").getroot()
    _find(root, "option").set("timestep", str(TIMESTEP_S))
    _find(root, "default/geom").attrib.update(solref=".02 1", solimp=".8 .8 .01")
    for motor in root.findall("actuator/motor"):
        motor.attrib.pop("gear", None)
        motor.set("ctrlrange", f"{-TORQUE} {TORQUE}")
    world = _find(root, "worldbody")
    for i, j in np.argwhere(maze.walls):
        x, y = CELL_M * (j - ORIGIN[1]), CELL_M * (i - ORIGIN[0])
        world.append(
            ET.Element(
                "geom",
                name=f"wall_{i}_{j}",
                type="box",
                pos=f"{x} {y} {WALL_HALF_HEIGHT_M}",
                size=f"{CELL_M / 2} {CELL_M / 2} {WALL_HALF_HEIGHT_M}",
                contype="1",
                conaffinity="1",
                rgba="0.4 0.4 0.4 1",
            )
        )
    return ET.tostring(root, encoding="unicode")


def _find(root: ET.Element, path: str) -> ET.Element:
    found = root.find(path)
    assert found is not None, f"the ant's model has no {path}"
    return found
