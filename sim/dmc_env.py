"""The environments behind ``sim.dmc``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np

from controller.spec import ArraySpec, Spec
from controller.types import Array
from sim.catalogue import Entry
from sim.dmc import MANIPULATION, PREFIX
from sim.env import quiet_import
from sim.spaces import finite_limits

Observed = dict[str, Any]

with quiet_import():
    from dm_control import manipulation, suite

BUILT_FROM = 0
"""Seed of what is random in a model itself."""
UNLIMITED = 1e9
"""dm_control writes 1e10 for a limit that is none."""
UNLIMITED_STEPS = 1000
"""Steps of the episodes that dm_control itself would never end."""


class _DmcEnv:
    """What suite and manipulation share.

    Args:
        environment: dm_control's, with its time limit lifted.
        random: the source that its resets draw from.
    """

    def __init__(self, environment: Any, random: np.random.RandomState) -> None:  # noqa: ANN401
        self._environment, self._random = environment, random

    @property
    def model(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjModel``; manipulation compiles a new one at every reset."""
        return self._environment.physics.model.ptr

    @property
    def data(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjData``."""
        return self._environment.physics.data.ptr

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Begin an episode."""
        if seed is not None:
            self._random.seed(seed % 2**32)
        return dict(self._environment.reset().observation), {}

    def step(self, action: Array) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Apply an action."""
        now = self._environment.step(np.asarray(action, np.float64))
        ended = now.last() and now.discount == 0.0
        return now.observation, float(now.reward or 0.0), ended, False, {}

    def close(self) -> None:
        """Release the environment."""
        self._environment.close()


class SuiteEnv(_DmcEnv):
    """A task of the suite.

    Args:
        domain: as ``cheetah``.
        task: as ``run``.

    Attributes:
        between: see :class:`sim.env.Substepped`.
    """

    def __init__(self, domain: str, task: str) -> None:
        environment = suite.load(domain, task, task_kwargs={"random": BUILT_FROM})
        limit = environment._step_limit
        self.episode_steps = math.ceil(limit) if math.isfinite(limit) else UNLIMITED_STEPS
        environment._step_limit = float("inf")
        _draw_nothing(environment.physics)
        super().__init__(environment, environment.task.random)
        self.between: Callable[[], Array] | None = None
        self._rules, self._physics = environment.task, environment.physics
        self._model, self._data = self._physics.model.ptr, self._physics.data.ptr
        self._steps = environment._n_sub_steps
        self._runge_kutta = self._model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4

    def step(self, action: Array) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Apply an action.

        Bit for bit what dm_control's own loop does, less its search for warnings of physics,
        which costs more than physics itself does for a cheetah: the plant looks at them.
        """
        rules, physics = self._rules, self._physics
        rules.before_step(np.asarray(action, np.float64), physics)
        self._advance()
        rules.after_step(physics)
        reward = rules.get_reward(physics)
        observation = rules.get_observation(physics)
        # None while the episode goes on; a discount above 0 would be an end by time.
        return observation, float(reward), rules.get_termination(physics) == 0.0, False, {}

    def _advance(self) -> None:
        if self.between is None:
            self._whole(self._steps)
            return
        self._whole(1)
        for _ in range(self._steps - 1):
            action = np.asarray(self.between(), np.float64)
            self._rules.before_step(action, self._physics)
            self._whole(1)

    def _whole(self, count: int) -> None:
        """Advance physics; what depends on the new positions and velocities is computed, too.

        It was computed for the present ones before, so that except with Runge and Kutta's
        method the first step is only completed.
        """
        model, data = self._model, self._data
        if self._runge_kutta:
            mujoco.mj_step(model, data, count)
        else:
            mujoco.mj_step2(model, data)
            if count > 1:
                mujoco.mj_step(model, data, count - 1)
        mujoco.mj_step1(model, data)


def _draw_nothing(physics: Any) -> None:  # noqa: ANN401
    """Take the OpenGL contexts away from a suite's physics.

    ``quadruped-escape`` opens one at every reset, to show its terrain to a renderer of
    dm_control's that nothing here uses; machines without a display have none to give.
    """
    kind = type(physics)
    physics.__class__ = type(kind.__name__, (kind,), {"contexts": None})


class ManipulationEnv(_DmcEnv):
    """A task of the manipulation suite, with feature observations.

    Args:
        task: as ``reach_site_features``.

    Attributes:
        between: see :class:`sim.env.Substepped`.
        limit_s: dm_control's own time limit.
    """

    def __init__(self, task: str) -> None:
        self.between: Callable[[], Array] | None = None
        self._task, self._under_way = task, False
        super().__init__(*self._build())
        environment = self._environment
        self.episode_steps = round(self.limit_s / environment.control_timestep())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Begin an episode."""
        if seed is not None and "random_order" in self._task:
            # Its bricks are shuffled in place: their order depends on the episodes before.
            self._environment.close()
            self._environment, self._random = self._build()
        return super().reset(seed=seed)

    def step(self, action: Array) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Apply an action."""
        self._under_way = False
        return super().step(action)

    def _before_physics_step(self, physics: Any, action: Any, random: Any) -> None:  # noqa: ANN401
        if self._under_way and self.between is not None:
            physics.set_control(np.asarray(self.between(), np.float64))
        self._under_way = True

    def _build(self) -> tuple[Any, np.random.RandomState]:
        environment = manipulation.load(self._task, seed=BUILT_FROM)
        self.limit_s = environment._time_limit
        environment._time_limit = float("inf")
        environment.add_extra_hook("before_substep", self._before_physics_step)
        return environment, environment.random_state


def survey() -> tuple[Entry, ...]:
    """Build every task once and return what is known of it then."""
    return tuple(_surveyed())


def _surveyed() -> Iterator[Entry]:
    logging.getLogger("absl").setLevel(logging.ERROR)
    for domain, task in suite.ALL_TASKS:
        env = SuiteEnv(domain, task)
        yield _entry(f"{PREFIX}{domain}-{task}", f"dm_control suite, {domain}: {task}", env)
        env.close()
    for task in manipulation.get_environments_by_tag("features"):
        about = task.removesuffix("_features").replace("_", " ")
        made = ManipulationEnv(task)
        yield _entry(
            f"{PREFIX}{MANIPULATION}-{task}", f"dm_control manipulation, Jaco arm: {about}", made
        )
        made.close()


def _entry(name: str, description: str, env: SuiteEnv | ManipulationEnv) -> Entry:
    observation, _ = env.reset(seed=0)
    environment = env._environment
    action = environment.action_spec()
    low, high = (
        np.where(np.abs(limit) < UNLIMITED, limit, np.inf)
        for limit in np.broadcast_arrays(action.minimum, action.maximum, np.zeros(action.shape))[:2]
    )
    arrays = tuple(
        ArraySpec(key, tuple(map(int, np.shape(value))), "float64")
        for key, value in observation.items()
    )
    spec = Spec(
        task=name,
        observation=arrays,
        action=ArraySpec(
            "action",
            tuple(map(int, action.shape)),
            "float64",
            low=finite_limits(low),
            high=finite_limits(high),
        ),
        rate_hz=float(1.0 / environment.control_timestep()),
    )
    substeps = round(environment.control_timestep() / environment.physics.timestep())
    return Entry(spec, description, env.episode_steps, substeps)
