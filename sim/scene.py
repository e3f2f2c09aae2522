"""The drawing process behind ``sim.render``: a job as JSON on standard input, a file out.

MUJOCO_GL must be set before this module is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sim.d4rl.kitchen import KITCHEN_TASKS, KitchenEnv, kitchen_task
from sim.d4rl.maze2d import MAZE2D
from sim.d4rl.maze2d import RADIUS_M as GOAL_RADIUS_M
from sim.d4rl.maze2d_env import BODY_AT_M, Maze2dEnv
from sim.encode import edges, save
from sim.pointmaze import MAZE_TASKS, RADIUS_M, MazeEnv, maze_task
from sim.render import Job

Floats = NDArray[np.float64]

TRAIL_ROWS = 150
TRAIL_SPACING = 3
JUMP_M = 0.6
"""Successive trail points further apart than this are of different episodes."""

FLOOR = (0.93, 0.94, 0.95, 1.0)
WALL = (0.36, 0.43, 0.55, 1.0)
BALL = (0.13, 0.47, 0.85, 1.0)
TRAIL = (0.50, 0.70, 0.92, 1.0)
GOAL = (0.90, 0.27, 0.24, 1.0)
REACH = (0.90, 0.27, 0.24, 0.22)


class Camera(NamedTuple):
    """A free camera. Angles are in degrees, the rest in metres."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


class MazeScene:
    """A maze from above at an angle: ball, goal, and the way the ball came."""

    def __init__(self, task: str) -> None:
        self._env = MazeEnv(maze_task(task))
        self._env.reset(seed=0)
        self.model, self.data = self._env.maze.model, self._env.maze.data
        rows, columns = self._env.walls.shape
        self.aspect = columns / rows
        self.camera = Camera((0.0, -0.02 * rows, 0.0), 2.12 * rows, 90.0, -66.0)
        self._paint()

    def place(self, row: Floats) -> None:
        """Move ball and goal to where an observation has them."""
        self.data.qpos[:], self.data.qvel[:] = row[:2], row[2:4]
        self._env.set_goal(row[6:8])
        self.model.site("target").pos[2] = 0.1
        mujoco.mj_forward(self.model, self.data)

    def decorate(self, scene: Any, rows: Floats, last: int) -> None:  # noqa: ANN401
        """Add the goal's reach and the trail that leads to row ``last``."""
        _disc(scene, rows[last, 6:8], RADIUS_M)
        _trail(scene, rows[:, :2], last)

    def _paint(self) -> None:
        model = self.model
        _light(model)
        for i in range(model.ngeom):
            name = model.geom(i).name
            model.geom_matid[i] = -1
            if name.startswith("block"):
                model.geom_rgba[i] = WALL
            elif name == "ground":
                model.geom_rgba[i] = FLOOR
        model.site("particle_site").rgba[:] = BALL
        model.site("target").rgba[:] = GOAL
        model.site("target").size[:] = 0.14


class Maze2dScene:
    """D4RL's maze the same way, with row 0 at the top: its x points down in the picture."""

    def __init__(self, task: str) -> None:
        self._env = Maze2dEnv(MAZE2D[task])
        self._env.reset(seed=0)
        self.model, self.data = self._env.model, self._env.data
        rows, columns = self._env.walls.shape
        self.aspect = columns / rows
        middle = ((rows + 1) / 2 + 0.02 * rows, (columns + 1) / 2, 0.0)
        self.camera = Camera(middle, 2.12 * rows, 180.0, -66.0)
        _light(self.model)
        self.model.light_active[:] = 0
        for i in range(self.model.ngeom):
            name = self.model.geom(i).name
            colour = WALL if name.startswith("wall") else FLOOR if name == "ground" else BALL
            self.model.geom_rgba[i] = colour

    def place(self, row: Floats) -> None:
        """Move the ball to where an observation has it."""
        self.data.qpos[:], self.data.qvel[:] = row[:2], row[2:4]
        mujoco.mj_forward(self.model, self.data)

    def decorate(self, scene: Any, rows: Floats, last: int) -> None:  # noqa: ANN401
        """Add the goal's reach and the trail that leads to row ``last``."""
        _disc(scene, self._env.goal + BODY_AT_M, GOAL_RADIUS_M)
        _trail(scene, rows[:, :2] + BODY_AT_M, last)


class KitchenScene:
    """The kitchen from where gymnasium-robotics looks at it."""

    aspect = 1.0
    camera = Camera((-0.2, 0.5, 2.0), 2.2, 70.0, -35.0)

    def __init__(self, task: str) -> None:
        self._env = KitchenEnv(kitchen_task(task), noise=0.0)
        self._env.reset(seed=0)
        self.model, self.data = self._env.kitchen.model, self._env.kitchen.data

    def place(self, row: Floats) -> None:
        """Move robot and objects to where an observation has them."""
        self.data.qpos[:] = row[: self.model.nq]
        mujoco.mj_forward(self.model, self.data)

    def decorate(self, scene: Any, rows: Floats, last: int) -> None:  # noqa: ANN401
        """Add nothing."""


def open_scene(task: str) -> MazeScene | Maze2dScene | KitchenScene:
    """Build what a task's observations are drawn in."""
    if task in MAZE_TASKS:
        return MazeScene(task)
    if task in MAZE2D:
        return Maze2dScene(task)
    if task in KITCHEN_TASKS:
        return KitchenScene(task)
    raise ValueError(f"there is no picture of {task}")


def pictures(job: Job) -> Iterator[Image.Image]:
    """Draw the frames of a job."""
    rows = np.load(job.rows, allow_pickle=False)
    place = open_scene(job.task)
    width, height = edges(job.size, place.aspect)
    model, camera = place.model, mujoco.MjvCamera()
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    camera.lookat[:] = place.camera.lookat
    camera.distance, camera.azimuth, camera.elevation = place.camera[1:]
    with mujoco.Renderer(model, height, width) as renderer:
        # Shadows and reflections cost more than all else without a GPU.
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        for frame in job.frames:
            place.place(rows[frame])
            renderer.update_scene(place.data, camera)
            place.decorate(renderer.scene, rows, frame)
            yield Image.fromarray(renderer.render())


def main() -> int:
    """Do the job on standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    save(list(pictures(job)), Path(job.out), job.fps)
    return 0


def _light(model: Any) -> None:  # noqa: ANN401
    model.vis.global_.fovy = 30.0
    model.vis.headlight.ambient[:] = 0.45
    model.vis.headlight.diffuse[:] = 0.55


def _disc(scene: Any, centre: Floats, radius_m: float) -> None:  # noqa: ANN401
    """Mark the reach of a goal on the floor."""
    size, at = np.array([radius_m, 0.005, 0.0]), np.array([*centre, 0.01])
    _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, size, at, REACH)


def _trail(scene: Any, path: Floats, last: int) -> None:  # noqa: ANN401
    """Draw the way (T, 2) that leads to row ``last``."""
    first = max(0, last - TRAIL_ROWS)
    for start, end in pairwise(path[np.r_[first:last:TRAIL_SPACING, last]]):
        if 1e-6 < np.linalg.norm(end - start) < JUMP_M:
            _add(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, np.zeros(3), np.zeros(3), TRAIL)
            ends = (np.array([*start, 0.05]), np.array([*end, 0.05]))
            geom = scene.geoms[scene.ngeom - 1]
            mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_CAPSULE, 0.035, *ends)


def _add(scene: Any, kind: Any, size: Floats, at: Floats, colour: tuple[float, ...]) -> None:  # noqa: ANN401
    if scene.ngeom < scene.maxgeom:
        rgba = np.array(colour, np.float32)
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, at, np.eye(3).reshape(-1), rgba)
        scene.ngeom += 1


if __name__ == "__main__":
    sys.exit(main())
