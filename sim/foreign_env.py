"""gymnasium-robotics environments behind ``sim.env.Env``.

Their resets leave parts of the simulation as the last episode ended, among them the solver's
warm start, so that the same seed would not lead through the same states twice. Here every reset
first restores the whole state that the environment was built with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.types import Array

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
INNER = ("robot_env", "ant_env", "point_env")
"""Where a task keeps its robot, if it is not the robot itself."""


class ForeignEnv:
    """An environment of gymnasium-robotics.

    Args:
        env: the environment, without wrappers.

    Attributes:
        env: as given.
        between: see :class:`sim.env.Substepped`; absent where :attr:`paced` is False.
        paced: whether a command can change within a control step. Fetch's cannot: its actions
            are displacements of the gripper, measured once a step.
    """

    def __init__(self, env: Any) -> None:  # noqa: ANN401
        self.env = env
        self.between: Callable[[], Array] | None = None
        robots = (getattr(env, name) for name in INNER if hasattr(env, name))
        self._robot = next(robots, env)
        self._built = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, self._built, STATE)
        self.paced = self._pace()
        if not self.paced:
            del self.between

    @property
    def model(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjModel``."""
        return self._robot.model

    @property
    def data(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjData``."""
        return self._robot.data

    @property
    def physics_steps(self) -> int:
        """Physics steps of one control step."""
        return int(getattr(self._robot, "n_substeps", 0) or self._robot.frame_skip)

    @property
    def period_s(self) -> float:
        """Length of one control step."""
        return float(self.model.opt.timestep * self.physics_steps)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        mujoco.mj_setState(self.model, self.data, self._built, STATE)
        observation, info = self.env.reset(seed=seed, options=options)
        return flat(observation), {"success": succeeded(info)}

    def step(self, action: Array) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply an action."""
        observation, reward, terminated, _, info = self.env.step(action)
        return (
            flat(observation),
            float(reward),
            bool(terminated),
            False,
            {"success": succeeded(info)},
        )

    def close(self) -> None:
        """Release the environment."""
        self.env.close()

    def control(self, action: NDArray[Any]) -> NDArray[np.float64]:
        """Return the controls of the actuators that an action asks for, where it does directly."""
        robot, action = self._robot, np.clip(action, -1.0, 1.0)
        if hasattr(robot, "act_mean"):
            return np.asarray(robot.act_mean + action * robot.act_rng)
        if hasattr(robot, "act_mid"):
            wanted = robot._ctrl_velocity_limits(robot.act_mid + action * robot.act_rng)
            return np.asarray(robot._ctrl_position_limits(wanted))
        return np.asarray(action, np.float64)

    def _pace(self) -> bool:
        """Let ``between`` in where the robot advances its physics."""
        robot = self._robot
        if hasattr(robot, "do_simulation"):
            whole = robot.do_simulation

            def advance(ctrl: Any, n_frames: int) -> None:  # noqa: ANN401
                if self.between is None:
                    whole(ctrl, n_frames)
                    return
                whole(ctrl, 1)
                for _ in range(n_frames - 1):
                    whole(self.control(self.between()), 1)

            robot.do_simulation = advance
            return True
        if self.model.nmocap:
            return False
        at_once = robot._mujoco_step

        def pace(action: Any) -> None:  # noqa: ANN401
            if self.between is None:
                at_once(action)
                return
            mujoco.mj_step(self.model, self.data)
            for _ in range(self.physics_steps - 1):
                robot._set_action(np.clip(self.between(), -1.0, 1.0))
                mujoco.mj_step(self.model, self.data)

        robot._mujoco_step = pace
        return True


def succeeded(info: Mapping[str, Any]) -> bool:
    """Return the success flag under either of the names it goes by, or whether nothing is left."""
    if "tasks_to_complete" in info:
        return not info["tasks_to_complete"]
    return bool(info.get("is_success", info.get("success", False)))


def flat(observation: Any) -> Any:  # noqa: ANN401
    """Return an observation with goals within goals named ``outer/inner``."""
    if not isinstance(observation, Mapping):
        return observation
    if not any(isinstance(value, Mapping) for value in observation.values()):
        return observation
    out: dict[str, Any] = {}
    for name, value in observation.items():
        if isinstance(value, Mapping):
            out |= {f"{name}/{inner}": array for inner, array in value.items()}
        else:
            out[name] = value
    return out
