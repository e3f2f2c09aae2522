"""What drives an environment while data is recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError
from controller.interfaces import Policy
from controller.spec import Spec
from controller.types import Array, Observation, Request
from sim.env import Env
from sim.generate.behaviour import Behaviour, load_behaviour
from sim.generate.rollout import Actor, Job
from sim.registry import make_env

Floats = NDArray[np.float64]


def make_environment(job: Job) -> Env:
    """Build the task's environment, or the one that navigation data is recorded in.

    Raises:
        ConfigError: there is no such task or option.
    """
    if job.driver == "navigation":
        from sim.generate.antmaze import generation_env

        return generation_env(job.task, **job.options)
    return make_env(job.task, **job.options)


def make_actor(job: Job, spec: Spec) -> Actor:
    """Return the driver that a job names.

    Raises:
        ConfigError: the policy is not one for the task, or the task has no scripted controller.
        DataError: the file is no policy.
    """
    if job.driver == "random":
        return RandomActor(spec)
    if job.driver == "scripted":
        from sim.generate.scripted import ScriptedActor

        return ScriptedActor(spec, job.noise)
    behaviour = load_behaviour(job.policy)
    if job.driver == "navigation":
        from sim.generate.antmaze import NavigationActor

        return NavigationActor(behaviour, job.noise)
    return PolicyActor(behaviour, spec, job.noise)


class RandomActor:
    """Draws actions evenly within the limits; without limits, normal ones."""

    def __init__(self, spec: Spec) -> None:
        low, high = (limit.reshape(-1) for limit in spec.action.bounds())
        self._bounded = np.isfinite(low) & np.isfinite(high)
        self._low = np.where(self._bounded, low, 0.0)
        self._width = np.where(self._bounded, high, 1.0) - self._low
        self._all = bool(self._bounded.all())

    def begin(self, env: Env, observation: Floats, rng: np.random.Generator) -> None:
        """Nothing to do."""

    def act(self, observation: Floats, rng: np.random.Generator) -> Array:
        """Draw an action."""
        action = self._low + self._width * rng.random(len(self._low))
        if not self._all:
            action[~self._bounded] = rng.standard_normal(int((~self._bounded).sum()))
        return action

    def log_probs(self) -> None:
        """Return nothing."""


class PolicyActor:
    """A behaviour policy. What a squashed one calls -1 and 1 are the limits of the action.

    Raises:
        ConfigError: the policy is for other observations or actions than the task's.
    """

    def __init__(self, behaviour: Behaviour, spec: Spec, noise: float = 0.0) -> None:
        width = sum(array.size for array in spec.observation)
        got = behaviour.observation_size, behaviour.action_size
        if got != (width, spec.action.size):
            raise ConfigError(
                f"{behaviour.source}: takes {got[0]} numbers and gives {got[1]}; {spec.task} "
                f"observes {width} and takes {spec.action.size}: a policy of another task"
            )
        self._behaviour, self._noise = behaviour, noise
        self._draws: list[tuple[Floats, Floats, Floats]] = []
        low, high = (limit.reshape(-1) for limit in spec.action.bounds())
        bounded = np.isfinite(low) & np.isfinite(high) & ((low != -1) | (high != 1))
        self._scales = behaviour.squashed and bool(bounded.any())
        self._middle = np.where(bounded, (low + high) / 2, 0.0) if self._scales else 0.0
        self._half = np.where(bounded, (high - low) / 2, 1.0) if self._scales else 1.0

    def begin(self, env: Env, observation: Floats, rng: np.random.Generator) -> None:
        """Forget the episode before."""
        self._draws = []

    def act(self, observation: Floats, rng: np.random.Generator) -> Array:
        """Draw an action."""
        action = self._behaviour.act(observation, rng)
        if self._noise:
            action = action + self._noise * rng.standard_normal(len(action))
        else:
            self._draws.append(self._behaviour.last)
        return self._middle + self._half * action if self._scales else action

    def log_probs(self) -> Floats | None:
        """Return the log densities of the policy's actions, in its own units; None with noise."""
        if not self._draws:
            return None
        return self._behaviour.log_density(
            *(np.array(part) for part in zip(*self._draws, strict=True))
        )


@dataclass
class RequestActor:
    """A policy of the runtime's contract, asked anew at every step.

    Its noise derives from (seed of the episode, step), so that any action can be recomputed.

    Attributes:
        policy: the policy.
        noise: standard deviation of noise on the actions.
    """

    policy: Policy
    noise: float = 0.0

    def __post_init__(self) -> None:
        self._step = self._seed = 0

    def begin(self, env: Env, observation: Floats, rng: np.random.Generator) -> None:
        """Draw the seed of the episode's noise."""
        self._step, self._seed = 0, int(rng.integers(2**32))

    def act(self, observation: Floats, rng: np.random.Generator) -> Array:
        """Ask the policy.

        Raises:
            ConfigError: it has no answer.
        """
        seen = Observation(self._arrays(observation), stamp_ns=0, step=self._step)
        chunk = self.policy.infer(Request(self._step, self._seed, seen, 0, 2**62))
        if chunk is None:
            raise ConfigError(f"policy {self.policy.version} gave no answer")
        self._step += 1
        action: Floats = chunk.actions[0].reshape(-1).astype(np.float64)
        if self.noise:
            action += self.noise * rng.standard_normal(len(action))
        return action

    def log_probs(self) -> None:
        """Return nothing."""

    def _arrays(self, observation: Floats) -> tuple[Array, ...]:
        arrays, start = [], 0
        for wanted in self.policy.spec.observation:
            values = observation[start : start + wanted.size]
            arrays.append(values.reshape(wanted.shape).astype(wanted.dtype))
            start += wanted.size
        return tuple(arrays)
