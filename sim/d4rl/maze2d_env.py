"""The environment behind ``sim.d4rl.maze2d``."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.types import Array
from sim.d4rl.locomotion_env import PHYSICS
from sim.d4rl.maze2d import OFF_CENTRE_M, RADIUS_M, SPEED_LIMIT, Maze2dTask, centre
from sim.d4rl.physics import halve_margins

Floats = NDArray[np.float64]

BODY_AT_M = 1.0 + OFF_CENTRE_M


class Maze2dEnv:
    """A ball in a maze.

    Args:
        task: walls, goal and reward.
        physics: ``mujoco210``, D4RL's contacts, or ``stock``, those of the installed MuJoCo.

    Attributes:
        task: as given.
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``.
        goal: (x, y) of the goal, m.
        walls: (rows, columns), True where there is a wall.

    Raises:
        ConfigError: no such physics.
    """

    def __init__(self, task: Maze2dTask, physics: str = "mujoco210") -> None:
        if physics not in PHYSICS:
            raise ConfigError(f"physics: {physics!r} is unknown; {nearest(physics, PHYSICS)}")
        self.task, self.walls = task, task.layout.walls
        self.model = mujoco.MjModel.from_xml_string(ball_in_maze(self.walls))
        if physics == "mujoco210":
            halve_margins(self.model)
            _average_over_three_axes(self.model)
        self.model.site("goal").pos[:2] = task.goal + BODY_AT_M
        self.data = mujoco.MjData(self.model)
        self.goal = task.goal
        self._random = np.random.default_rng()
        self._free = [(int(i), int(j)) for i, j in np.argwhere(~self.walls)]
        self._qpos, self._qvel, self._ctrl = self.data.qpos, self.data.qvel, self.data.ctrl
        self._shown = np.zeros(4)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin in a random cell; the goal is the task's again."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.goal = self.task.goal
        mujoco.mj_resetData(self.model, self.data)
        self._qpos[:] = self.draw_place() + self._random.uniform(-0.1, 0.1, 2)
        self._qvel[:] = 0.1 * self._random.standard_normal(2)
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {"success": self._distance() <= RADIUS_M}

    def step(self, action: Array) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Push with forces (2,), clipped to [-1, 1]."""
        np.minimum(np.maximum(self._qvel, -SPEED_LIMIT), SPEED_LIMIT, out=self._qvel)
        self._ctrl[:] = np.minimum(np.maximum(action, -1.0), 1.0)
        mujoco.mj_step(self.model, self.data)
        distance = self._distance()
        reached = distance <= RADIUS_M
        reward = float(np.exp(-distance)) if self.task.dense else float(reached)
        return self._observe(), reward, False, False, {"success": reached}

    def close(self) -> None:
        """Release nothing."""

    def draw_place(self) -> Floats:
        """Return (x, y) of a random free cell, m."""
        return centre(self._free[int(self._random.integers(len(self._free)))])

    def _distance(self) -> float:
        away = self._qpos - self.goal
        return float(np.sqrt(away @ away))

    def _observe(self) -> Floats:
        self._shown[:2], self._shown[2:] = self._qpos, self._qvel
        return self._shown


def _average_over_three_axes(model: Any) -> None:  # noqa: ANN401
    """Give the ball the inverse weight that MuJoCo 2.1.0 scales its contacts by, in place.

    It is the mean of the inverse inertia over the axes. 2.1.0 took all three, of which the ball
    moves along two; MuJoCo of today gives 1 / mass, and a ball bounces off a wall otherwise.
    """
    ball = model.body("particle").id
    model.body_invweight0[ball, 0] = 2.0 / (3.0 * model.body_mass[ball])


def ball_in_maze(walls: NDArray[np.bool_]) -> str:
    """Return the MJCF of the ball and the walls; x runs down the rows, y along the columns."""
    boxes = "\n".join(
        f'<geom name="wall_{i}_{j}" type="box" conaffinity="1" rgba="0.4 0.4 0.4 1" '
        f'pos="{i + 1.0} {j + 1.0} 0" size="0.5 0.5 0.2"/>'
        for i, j in np.argwhere(walls)
    )
    rows, columns = walls.shape
    # High enough for the usual 45 degrees to take in the maze in a picture of 4:3.
    above = f"{(rows + 1) / 2} {(columns + 1) / 2} {1.3 * max(rows, 0.75 * columns)}"
    return f"""
<mujoco model="maze2d">
  <compiler inertiafromgeom="true" angle="radian"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction=".5 .1 .1" density="1000" margin="0.002" condim="1" contype="2" conaffinity="1"/>
  </default>
  <worldbody>
    <light pos="4 4 10" dir="0 0 -1" directional="true"/>
    <camera name="fixed" pos="{above}" xyaxes="0 1 0 -1 0 0"/>
    <geom name="ground" type="plane" size="40 40 0.25" pos="0 0 -0.1" contype="1" conaffinity="0"
          rgba="0.9 0.9 0.9 1"/>
    <body name="particle" pos="{BODY_AT_M} {BODY_AT_M} 0">
      <geom name="particle_geom" type="sphere" size="0.1" contype="1" rgba="0.1 0.4 0.8 1"/>
      <joint name="ball_x" type="slide" axis="1 0 0"/>
      <joint name="ball_y" type="slide" axis="0 1 0"/>
    </body>
    <site name="goal" pos="1 1 0" size="0.15" rgba="0.9 0.27 0.24 1"/>
    {boxes}
  </worldbody>
  <actuator>
    <motor joint="ball_x" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
    <motor joint="ball_y" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
  </actuator>
</mujoco>"""
