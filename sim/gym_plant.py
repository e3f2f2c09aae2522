"""A gymnasium environment behind the plant contract, in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from controller.clock import VirtualClock
from controller.errors import PlantLost
from controller.interfaces import Clock
from controller.spec import ArraySpec, DType, Spec
from controller.types import Array, Observation
from sim.env import Env
from sim.errors import ActionMismatch, EpisodeOver

if TYPE_CHECKING:
    from gymnasium.spaces import Space


def reported_success(info: Mapping[str, Any]) -> bool:
    """Return the environment's own ``success`` flag, False where it has none."""
    return bool(info.get("success", False))


class GymPlant:
    """A lockstep plant: each command is one step of an environment.

    Episodes are cut by the plant's own count of steps, so that tasks without an end of their
    own have the same length everywhere; ``gymnasium.make`` with its time limit is not needed.
    A step that both ends the task and reaches the limit is ``terminated``.

    Args:
        make_env: builds the environment, once.
        spec: names, order and types of what it observes. A dict observation is read by the
            names of the spec, any other is the spec's only array.
        episode_steps: steps after which an episode is truncated.
        seed: of the first ``reset()`` without a seed; later ones continue the environment's
            own random stream.
        clock: stamps the observations. None keeps a virtual clock that advances by one period
            a step.
        success: tells success from the information of a reset or a step.
    """

    def __init__(
        self,
        make_env: Callable[[], Env],
        spec: Spec,
        *,
        episode_steps: int,
        seed: int = 0,
        clock: Clock | None = None,
        success: Callable[[Mapping[str, Any]], bool] = reported_success,
    ) -> None:
        self._env: Env | None = make_env()
        self._spec = spec
        self._episode_steps = episode_steps
        self._first_seed: int | None = seed
        self._own_clock = VirtualClock() if clock is None else None
        self._clock = clock or self._own_clock or VirtualClock()
        self._success = success
        self._now: Observation | None = None

    @property
    def spec(self) -> Spec:
        """What it looks like."""
        return self._spec

    @property
    def env(self) -> Env:
        """The environment.

        Raises:
            PlantLost: the plant is closed.
        """
        if self._env is None:
            raise PlantLost(f"{self._spec.task}: the plant is closed")
        return self._env

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode, determined by ``seed`` where one is given."""
        seed = self._first_seed if seed is None else seed
        self._first_seed = None
        observation, info = self.env.reset(seed=seed)
        self._now = Observation(
            arrays=self._arrays(observation),
            stamp_ns=self._clock.now_ns(),
            episode=0 if self._now is None else self._now.episode + 1,
            success=self._success(info),
        )

    def observe(self) -> Observation:
        """Return the observation of the last reset or step.

        Raises:
            EpisodeOver: the plant was never reset.
            PlantLost: the plant is closed.
        """
        return self._running(self.env)[1]

    def command(self, action: Array, tick: int) -> None:
        """Step the environment once.

        Raises:
            ActionMismatch: the action has another shape than the spec's, or is not finite.
            EpisodeOver: the episode has ended, or none has begun.
            PlantLost: the plant is closed.
        """
        env, last = self._running(self.env)
        if last.done:
            raise EpisodeOver(
                f"{self._spec.task}: episode {last.episode} ended at step {last.step}; reset first"
            )
        observation, reward, terminated, _, info = env.step(self._checked(action))
        if self._own_clock:
            self._own_clock.advance(self._spec.period_ns)
        step, terminated = last.step + 1, bool(terminated)
        self._now = Observation(
            arrays=self._arrays(observation),
            stamp_ns=self._clock.now_ns(),
            episode=last.episode,
            step=step,
            reward=float(reward),
            episode_return=last.episode_return + float(reward),
            terminated=terminated,
            truncated=not terminated and step >= self._episode_steps,
            success=last.success or self._success(info),
            applied_tick=tick,
        )

    def close(self) -> None:
        """Release the environment; safe to call twice."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _running(self, env: Env) -> tuple[Env, Observation]:
        if self._now is None:
            raise EpisodeOver(f"{self._spec.task}: no episode has begun; reset first")
        return env, self._now

    def _checked(self, action: Array) -> Array:
        wanted = self._spec.action
        given = np.array(action, dtype=wanted.dtype)
        if given.shape != wanted.shape:
            raise ActionMismatch(
                f"{self._spec.task}: action has shape {given.shape}, expected {wanted.shape}"
            )
        if not np.isfinite(given).all():
            raise ActionMismatch(f"{self._spec.task}: action is not finite: {given.tolist()}")
        return given

    def _arrays(self, observation: Any) -> tuple[Array, ...]:  # noqa: ANN401
        wanted = self._spec.observation
        if not isinstance(observation, Mapping):
            return (_frozen(observation, wanted[0]),)
        return tuple(_frozen(observation[array.name], array) for array in wanted)


def spec_of_spaces(
    task: str,
    observation: Space[Any],
    action: Space[Any],
    rate_hz: float,
    *,
    order: Sequence[str] | None = None,
) -> Spec:
    """Describe an environment by its spaces.

    Args:
        task: name of the task.
        observation: a Box, which becomes one array named ``observations``, or a Dict of Boxes.
        action: a Box.
        rate_hz: control rate.
        order: keys of a Dict in wire order; None for the Dict's own.

    Raises:
        TypeError: a space of another kind, or a Box of a type that has no place in a spec.
    """
    from gymnasium import spaces

    if isinstance(observation, spaces.Dict):
        names = tuple(order) if order is not None else tuple(observation.spaces)
        arrays = tuple(_array_of_box(name, observation.spaces[name]) for name in names)
    else:
        arrays = (_array_of_box("observations", observation),)
    return Spec(task, arrays, _array_of_box("action", action), rate_hz)


def _array_of_box(name: str, space: Space[Any]) -> ArraySpec:
    from gymnasium import spaces

    if not isinstance(space, spaces.Box) or space.dtype not in (np.float32, np.float64, np.uint8):
        raise TypeError(f"{name}: expected a Box of float32, float64 or uint8, got {space}")
    return ArraySpec(
        name,
        tuple(int(length) for length in space.shape),
        cast("DType", str(space.dtype)),
        low=_finite(space.low),
        high=_finite(space.high),
    )


def _finite(limits: Array) -> tuple[float | None, ...]:
    values = [float(x) for x in np.asarray(limits, np.float64).reshape(-1)]
    if not any(math.isfinite(x) for x in values):
        return ()
    return tuple(x if math.isfinite(x) else None for x in values)


def _frozen(values: Any, wanted: ArraySpec) -> Array:  # noqa: ANN401
    array = np.array(values, dtype=wanted.dtype)
    assert array.shape == wanted.shape, f"{wanted.name}: {array.shape}, expected {wanted.shape}"
    array.flags.writeable = False
    return array
