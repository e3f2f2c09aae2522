"""A gymnasium environment behind the plant contract, in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from controller.clock import VirtualClock
from controller.errors import PlantLost
from controller.interfaces import Clock
from controller.safety import is_finite
from controller.spec import Spec
from controller.types import Array, Observation
from sim.env import Env, Substepped
from sim.errors import ActionMismatch, EpisodeOver, SimulationUnstable
from sim.stepper import Stepper, reported_success


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
        physics_steps: physics steps of one control step.
        dumps: directory for the states before the simulation became unstable.

    Attributes:
        stepper: the environment and its counts.
        physics_steps: physics steps of one control step between which the command can change;
            1 where the environment is not ``Substepped``.
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
        physics_steps: int = 1,
        dumps: Path | str = "runs/unstable",
    ) -> None:
        env: object = make_env()
        self.stepper = Stepper(
            cast("Env", env), spec, episode_steps=episode_steps, success=success, dumps=dumps
        )
        self.physics_steps = physics_steps if isinstance(env, Substepped) else 1
        self._spec = spec
        self._closed = False
        self._first_seed: int | None = seed
        self._own_clock = VirtualClock() if clock is None else None
        self._clock = clock or self._own_clock or VirtualClock()
        # Looked up once: a spec's properties compute, and this is the path of every step.
        self._period_ns = spec.period_ns
        self._action_shape, self._action_dtype = spec.action.shape, np.dtype(spec.action.dtype)
        self._wanted = tuple((a.name, a.shape, np.dtype(a.dtype)) for a in spec.observation)
        plain = len(self._action_shape) == 1 and self._action_dtype.kind == "f"
        self._is_finite = _is_finite_vector if plain else is_finite
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
        if self._closed:
            raise self._absent()
        return self.stepper.env

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode, determined by ``seed`` where one is given.

        Raises:
            SimulationUnstable: the first observation is not finite.
            PlantLost: the plant is closed.
        """
        if self._closed:
            raise self._absent()
        seed = self._first_seed if seed is None else seed
        self._first_seed = self._now = None
        arrays = self.stepper.begin(seed, self._arrays)
        self._now = Observation(
            arrays=arrays,
            stamp_ns=self._clock.now_ns(),
            episode=self.stepper.episode,
            success=self.stepper.success,
        )

    def observe(self) -> Observation:
        """Return the observation of the last reset or step.

        Raises:
            EpisodeOver: the plant was never reset.
            PlantLost: the plant is closed.
            SimulationUnstable: the last step broke the simulation; reset it.
        """
        now = self._now
        if now is None or self._closed:
            raise self._absent()
        return now

    def command(self, action: Array, tick: int) -> None:
        """Step the environment once.

        Raises:
            ActionMismatch: the action has another shape than the spec's, or is not finite.
            EpisodeOver: the episode has ended, or none has begun.
            PlantLost: the plant is closed.
            SimulationUnstable: this step or an earlier one broke the simulation; reset it.
        """
        last, stepper = self._now, self.stepper
        if last is None or self._closed:
            raise self._absent()
        if last.terminated or last.truncated:
            raise EpisodeOver(
                f"{self._spec.task}: episode {last.episode} ended at step {last.step}; reset first"
            )
        given = np.array(action, self._action_dtype)
        if given.shape != self._action_shape or not self._is_finite(given):
            raise self._mismatch(given)
        try:
            arrays = stepper.advance(given, self._arrays)
        except SimulationUnstable:
            self._now = None
            raise
        if self._own_clock:
            self._own_clock.advance(self._period_ns)
        self._now = Observation(
            arrays,
            self._clock.now_ns(),
            stepper.episode,
            stepper.step,
            stepper.reward,
            stepper.episode_return,
            stepper.terminated,
            stepper.truncated,
            stepper.success,
            tick,
        )

    def close(self) -> None:
        """Release the environment; safe to call twice."""
        if not self._closed:
            self._closed = True
            self.stepper.env.close()

    @property
    def between(self) -> Callable[[], Array] | None:
        """See :class:`sim.env.Substepped`; None where the environment is not."""
        env: object = self.stepper.env
        return env.between if isinstance(env, Substepped) else None

    @between.setter
    def between(self, callback: Callable[[], Array] | None) -> None:
        env: object = self.stepper.env
        assert isinstance(env, Substepped), f"{self._spec.task} has no substeps"
        env.between = callback

    def _absent(self) -> EpisodeOver | PlantLost | SimulationUnstable:
        if self._closed:
            return PlantLost(f"{self._spec.task}: the plant is closed")
        if self.stepper.failure:
            return SimulationUnstable(self.stepper.failure)
        return EpisodeOver(f"{self._spec.task}: no episode has begun; reset first")

    def _mismatch(self, given: Array) -> ActionMismatch:
        if given.shape == self._action_shape:
            return ActionMismatch(f"{self._spec.task}: action is not finite: {given.tolist()}")
        return ActionMismatch(
            f"{self._spec.task}: action has shape {given.shape}, expected {self._action_shape}"
        )

    def _arrays(self, observation: Any) -> tuple[Array, ...]:  # noqa: ANN401
        # Exact types first: they are a fifth of the price of a check against Mapping.
        named = type(observation) is not np.ndarray and isinstance(observation, (dict, Mapping))
        arrays = []
        for name, shape, dtype in self._wanted:
            array = np.array(observation[name] if named else observation, dtype)
            assert array.shape == shape, f"{name}: {array.shape}, expected {shape}"
            array.setflags(write=False)
            arrays.append(array)
        return tuple(arrays)


def _is_finite_vector(values: Any) -> bool:  # noqa: ANN401
    # Half the price of the general check. The sum of squares may overflow where all is well.
    return math.isfinite(values.dot(values)) or is_finite(values)
