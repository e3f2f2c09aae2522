"""The environments behind ``sim.d4rl.locomotion``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.types import Array
from sim.d4rl.locomotion import ROBOTS
from sim.d4rl.physics import as_mujoco_210

Floats = NDArray[np.float64]

PHYSICS = ("mujoco210", "stock")


def assets() -> Path:
    """Return the directory of Gymnasium's MuJoCo models."""
    import gymnasium

    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


def load_robot(robot: str, physics: str) -> Any:  # noqa: ANN401
    """Return the compiled model of a robot.

    Raises:
        ConfigError: no such physics.
    """
    if physics not in PHYSICS:
        raise ConfigError(f"physics: {physics!r} is unknown; {nearest(physics, PHYSICS)}")
    model = mujoco.MjModel.from_xml_path(str(assets() / ROBOTS[robot].model))
    if physics == "mujoco210":
        as_mujoco_210(model, robot)
    return model


class LocomotionEnv:
    """One of the four robots.

    Args:
        robot: key of ``ROBOTS``.
        physics: ``mujoco210``, D4RL's, or ``stock``, that of the installed MuJoCo.

    Attributes:
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``.
        between: see :class:`sim.env.Substepped`.
    """

    def __init__(self, robot: str, physics: str = "mujoco210") -> None:
        self.model = load_robot(robot, physics)
        self.data = mujoco.MjData(self.model)
        self.between: Callable[[], Array] | None = None
        self._random = np.random.default_rng()
        self._rules = RULES[robot](self.data)
        about = ROBOTS[robot]
        self._steps, self._dt = about.physics_steps, about.physics_steps * about.timestep_s
        self._qpos, self._qvel, self._ctrl = self.data.qpos, self.data.qvel, self.data.ctrl
        # Arrays, as a scalar beside an array costs a conversion at every step.
        self._low, self._high = np.full(self.model.nu, -1.0), np.full(self.model.nu, 1.0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin near the rest pose."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.set_state(*self._rules.start(self._random, self.model))
        return self._rules.observe(), {}

    def set_state(self, qpos: Floats, qvel: Floats) -> None:
        """Place the robot, with everything that remembers earlier steps cleared."""
        mujoco.mj_resetData(self.model, self.data)
        self._qpos[:], self._qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def observe(self) -> Floats:
        """Return the observation of the present state."""
        return self._rules.observe()

    def step(self, action: Array) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Drive the motors with an action (A,), clipped to [-1, 1]."""
        control, before = self._ctrl, self._rules.x()
        np.maximum(action, self._low, out=control)
        np.minimum(control, self._high, out=control)
        effort = self._rules.effort * float(control.dot(control))
        if self.between is None:
            mujoco.mj_step(self.model, self.data, self._steps)
        else:
            self._pace(self.between)
        speed = (self._rules.x() - before) / self._dt
        reward = speed + self._rules.alive_bonus - effort
        return self._rules.observe(), reward, not self._rules.healthy(), False, {}

    def close(self) -> None:
        """Release nothing."""

    def _pace(self, between: Callable[[], Array]) -> None:
        mujoco.mj_step(self.model, self.data)
        for _ in range(self._steps - 1):
            self._ctrl[:] = np.clip(between(), -1.0, 1.0)
            mujoco.mj_step(self.model, self.data)


class Rules:
    """What tells one robot's task from another's; base of the four."""

    alive_bonus = 1.0
    effort = 1e-3
    speed_limit = np.inf
    noise = 5e-3

    def __init__(self, data: Any) -> None:  # noqa: ANN401
        self._qpos, self._qvel = data.qpos, data.qvel
        self._shown = np.zeros(self._qpos.size - 1 + self._qvel.size)
        self._limits = np.full(self._qvel.size, self.speed_limit)

    def x(self) -> float:
        """Return the distance run, m."""
        return float(self._qpos[0])

    def observe(self) -> Floats:
        """Return the observation, a buffer that the next call overwrites."""
        positions = self._qpos.size - 1
        self._shown[:positions] = self._qpos[1:]
        self._shown[positions:] = self._qvel
        if self.speed_limit < np.inf:
            speeds = self._shown[positions:]
            np.minimum(speeds, self._limits, out=speeds)
            np.maximum(speeds, -self._limits, out=speeds)
        return self._shown

    def healthy(self) -> bool:
        """Whether the episode goes on."""
        return True

    def start(self, random: np.random.Generator, model: Any) -> tuple[Floats, Floats]:  # noqa: ANN401
        """Return positions and velocities to begin with."""
        qpos = model.qpos0 + random.uniform(-self.noise, self.noise, model.nq)
        return qpos, random.uniform(-self.noise, self.noise, model.nv)


class _Wide(Rules):
    """Starts of the robots that do not fall."""

    def start(self, random: np.random.Generator, model: Any) -> tuple[Floats, Floats]:  # noqa: ANN401
        """Return positions ±0.1 and velocities N(0, 0.1²)."""
        qpos = model.qpos0 + random.uniform(-0.1, 0.1, model.nq)
        return qpos, 0.1 * random.standard_normal(model.nv)


class _HalfCheetah(_Wide):
    alive_bonus, effort = 0.0, 0.1


class _Hopper(Rules):
    speed_limit = 10.0

    def healthy(self) -> bool:
        """Whether it stands and nothing has blown up."""
        state = np.concatenate([self._qpos, self._qvel])
        upright = self._qpos[1] > 0.7 and abs(self._qpos[2]) < 0.2
        # Not finite fails the comparison, too.
        return bool(upright and np.abs(state[2:]).max() < 100.0)


class _Walker2d(Rules):
    speed_limit = 10.0

    def healthy(self) -> bool:
        """Whether it stands."""
        return bool(0.8 < self._qpos[1] < 2.0 and -1.0 < self._qpos[2] < 1.0)


class _Ant(_Wide):
    effort = 0.5

    def __init__(self, data: Any) -> None:  # noqa: ANN401
        super().__init__(data)
        self._torso = data.body("torso").xpos
        self._shown = np.zeros(self._qpos.size - 2 + self._qvel.size + ROBOTS["ant"].padding)

    def x(self) -> float:
        """Return the torso's place in the last evaluation of the dynamics, as Gym took it.

        MuJoCo computes it before it integrates: it is one physics step old.
        """
        return float(self._torso[0])

    def observe(self) -> Floats:
        """Return positions without x and y, velocities, and zeros."""
        positions = self._qpos.size - 2
        self._shown[:positions] = self._qpos[2:]
        self._shown[positions : positions + self._qvel.size] = self._qvel
        return self._shown

    def healthy(self) -> bool:
        """Whether it is neither on its back nor in the air."""
        finite = np.isfinite(self._qpos).all() and np.isfinite(self._qvel).all()
        return bool(finite and 0.2 <= self._qpos[2] <= 1.0)


RULES: dict[str, Callable[[Any], Rules]] = {
    "halfcheetah": _HalfCheetah,
    "hopper": _Hopper,
    "walker2d": _Walker2d,
    "ant": _Ant,
}
