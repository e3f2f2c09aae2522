"""The episodes of one environment: its counts, its ends, and whether its physics still holds.

What a plant and the copies of a vector have in common. They differ in where observations go:
``take`` puts one there, and returns its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.spec import Spec
from controller.types import Array
from sim.env import Env
from sim.errors import SimulationUnstable
from sim.stability import StabilityWatch, dump

Take = Callable[[Any], tuple[Array, ...]]


def reported_success(info: Mapping[str, Any]) -> bool:
    """Return the environment's own ``success`` flag, False where it has none."""
    return bool(info.get("success", False))


class Stepper:
    """Counts steps, cuts episodes, and stops where a simulation breaks down.

    Args:
        env: the environment.
        spec: what it looks like.
        episode_steps: steps after which an episode is truncated.
        success: tells success from the information of a reset or a step.
        dumps: directory for the states before the simulation became unstable.

    Attributes:
        env: the environment.
        episode: number of the episode, from 0; -1 before the first.
        step: control steps since it began.
        reward: of the last step.
        episode_return: sum of rewards since the episode began.
        terminated: it ended of itself; also at the limit of steps.
        truncated: it was cut at the limit of steps.
        success: success was reported since it began.
        failure: why it cannot go on; empty while it can.
    """

    def __init__(
        self,
        env: Env,
        spec: Spec,
        *,
        episode_steps: int,
        success: Callable[[Mapping[str, Any]], bool] = reported_success,
        dumps: Path | str = "runs/unstable",
    ) -> None:
        self.env = env
        self._task = spec.task
        self._episode_steps = episode_steps
        self._success = success
        self._dumps: Path | None = Path(dumps)
        self._watch = StabilityWatch(env, spec.observation)
        self.episode = -1
        self.step = 0
        self.reward = self.episode_return = 0.0
        self.terminated = self.truncated = self.success = False
        self.failure = ""

    def begin(self, seed: int | None, take: Take) -> tuple[Array, ...]:
        """Begin an episode; return the arrays of its first observation.

        Raises:
            SimulationUnstable: the first observation is not finite.
        """
        observation, info = self.env.reset(seed=seed)
        self._watch.begin()
        self.episode += 1
        self.step = 0
        self.reward = self.episode_return = 0.0
        self.terminated = self.truncated = False
        self.failure = ""
        arrays = take(observation)
        if self._watch.trouble(arrays, 0.0):
            raise self._unstable()
        self.success = self._success(info)
        return arrays

    def advance(self, action: Array, take: Take) -> tuple[Array, ...]:
        """Make one control step; return the arrays of the observation it led to.

        Args:
            action: of shape and type of the spec, finite; kept, so not to be written to.
            take: see this module.

        Raises:
            SimulationUnstable: this step broke the simulation.
        """
        watch = self._watch
        watch.note(action)
        try:
            observation, reward, terminated, _, info = self.env.step(action)
        except Exception as error:
            if watch.given_up:
                self.step += 1
                raise self._unstable() from error
            raise
        self.step += 1
        self.reward = reward = float(reward)
        arrays = take(observation)
        if watch.trouble(arrays, reward):
            raise self._unstable()
        self.episode_return += reward
        if terminated:
            self.terminated = True
        elif self.step >= self._episode_steps:
            self.truncated = True
        if info and not self.success:
            self.success = self._success(info)
        return arrays

    def _unstable(self) -> SimulationUnstable:
        """Take note of the failure; the states are dumped the first time."""
        where = "its states were dumped at an earlier failure"
        if self._dumps is not None:
            name = f"{self._task}-episode{self.episode}-step{self.step}"
            where, self._dumps = dump(self._watch.states(self.step), self._dumps, name), None
        self.failure = (
            f"{self._task}: the simulation became unstable in step {self.step} of episode "
            f"{self.episode} ({self._watch.why()}); {where}"
        )
        return SimulationUnstable(self.failure)
