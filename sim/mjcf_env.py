"""The environment of one's own robot; see ``sim.mjcf``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.types import Array
from sim.mjcf_robot import Robot, begin, judge

Floats = NDArray[np.float64]


class MjcfEnv:
    """A robot from a file.

    Positions, velocities and sensors of both are those of the moment of the observation. Forces
    and accelerations are those of the last timestep before it.

    Args:
        robot: what to simulate; its model belongs to the environment from here on.

    Attributes:
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``.
        between: see :class:`sim.env.Substepped`.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.model, self.data = robot.model, mujoco.MjData(robot.model)
        self.between: Callable[[], Array] | None = None
        self._random = np.random.default_rng()
        self._low, self._high = robot.spec.action.bounds()
        self._applied: Floats = robot.spec.action.resting().astype(np.float64)
        self._ctrl = self.data.ctrl
        self._euler = self.model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4
        self._fields = [getattr(self.data, each.field).reshape(-1) for each in robot.columns]
        self._shown = {each.name: np.zeros(len(each.places)) for each in robot.columns}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Floats], dict[str, Any]]:
        """Begin in the keyframe, with noise."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        robot, random = self._robot, self._random
        begin(self.model, self.data, robot.keyframe)
        offset = robot.position_noise * random.uniform(-1.0, 1.0, self.model.nv)
        mujoco.mj_integratePos(self.model, self.data.qpos, offset, 1.0)
        self.data.qvel += robot.velocity_noise * random.uniform(-1.0, 1.0, self.model.nv)
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {"success": False} if robot.has_success else {}

    def step(self, action: Array) -> tuple[dict[str, Floats], float, bool, bool, dict[str, Any]]:
        """Command the actuators with an action (A,), clipped to its limits."""
        steps = self._robot.physics_steps
        self._drive(action)
        if self.between is None:
            self._advance(steps)
        else:
            self._advance(1)
            for _ in range(steps - 1):
                self._drive(self.between())
                self._advance(1)
        result = self._robot.reward(self.model, self.data, self._applied)
        reward, terminated, success = judge(result)
        info = {"success": success} if self._robot.has_success else {}
        return self._observe(), reward, terminated, False, info

    def close(self) -> None:
        """Release nothing."""

    def _drive(self, action: Array) -> None:
        self._applied = np.minimum(np.maximum(action, self._low), self._high, dtype=np.float64)
        self._ctrl[self._robot.actuators] = self._applied

    def _advance(self, steps: int) -> None:
        """Step physics, and bring what depends on positions and velocities up to them.

        ``mj_step`` is step1 (that) and step2 (forces, integration): beginning with the second
        and ending with the first costs nothing. RK4 cannot be cut there.
        """
        if self._euler:
            mujoco.mj_step2(self.model, self.data)
            if steps > 1:
                mujoco.mj_step(self.model, self.data, steps - 1)
        else:
            mujoco.mj_step(self.model, self.data, steps)
        mujoco.mj_step1(self.model, self.data)

    def _observe(self) -> dict[str, Floats]:
        for column, field in zip(self._robot.columns, self._fields, strict=True):
            # Without the mode, numpy writes to a buffer first.
            field.take(column.places, out=self._shown[column.name], mode="clip")
        return self._shown
