"""Whole episodes of one environment, each determined by its number alone.

Episode k of a stream takes the seed of its reset and all noise of its driver from (seed, stream,
k), and nothing is carried from one episode to the next. So it does not matter which process runs
which episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.spec import Spec
from controller.types import Array
from sim.env import Env, Simulated
from sim.errors import SimulationUnstable
from sim.generate.recipes import Driver
from sim.stability import StabilityWatch

Floats = NDArray[np.float64]
Columns = dict[str, Array]

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
QPOS, QVEL, LOG_PROBS = "infos/qpos", "infos/qvel", "infos/action_log_probs"


class Job(msgspec.Struct, frozen=True):
    """What runs and what drives it.

    Attributes:
        task: name of the task.
        driver: what drives.
        seed: seed of the dataset.
        stream: part of the dataset; see ``recipes.Part``.
        policy: file of the policy, for a driver that has one.
        noise: standard deviation of noise on the actions.
        options: options of the environment.
        episode_steps: steps after which an episode is cut.
        state: whether to keep the state of the physics, where the environment shows it.
    """

    task: str
    driver: Driver
    seed: int
    stream: int = 0
    policy: str = ""
    noise: float = 0.0
    options: dict[str, Any] = {}
    episode_steps: int = 1000
    state: bool = True


class Actor(Protocol):
    """What drives an environment. All it draws comes from the generator it is given."""

    def begin(self, env: Env, observation: Floats, rng: np.random.Generator) -> None:
        """Learn that an episode has begun with this flat observation."""
        ...

    def act(self, observation: Floats, rng: np.random.Generator) -> Array:
        """Return an action (A,) for a flat observation (D,); it is clipped to the limits."""
        ...

    def log_probs(self) -> Floats | None:
        """Return the log densities (T,) of the actions since ``begin``; None where unknown."""
        ...


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
        columns: arrays of its length, by column name.
        success: whether the task said so at any step.
    """

    columns: Columns
    success: bool


def reset_seed(seed: int, stream: int, episode: int) -> int:
    """Return the seed of an episode's reset, below 2**32.

    Episodes of one stream never share it: the first is drawn, the others count on from it.
    """
    first = int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])
    return (first + episode) % 2**32


class Rollout:
    """Runs episodes and keeps them in columns.

    Observations are recorded in float32, as D4RL does, and driven by in float64; the action that
    is recorded is, bit for bit, the one that was executed.

    Args:
        env: the environment.
        spec: what it looks like.
        actor: what drives it.
        job: the rest.
    """

    def __init__(self, env: Env, spec: Spec, actor: Actor, job: Job) -> None:
        self._env, self._actor, self._job = env, actor, job
        self._shape, self._dtype = spec.action.shape, np.dtype(spec.action.dtype)
        self._low, self._high = (x.reshape(-1).astype(np.float32) for x in spec.action.bounds())
        self._flatten = flattener(spec)
        rows, width = job.episode_steps, sum(array.size for array in spec.observation)
        self._now: Floats = np.zeros(width)
        self._observations = np.zeros((rows + 1, width), np.float32)
        self._actions = np.zeros((rows, spec.action.size), np.float32)
        self._rewards = np.zeros(rows, np.float32)
        self._state: Columns = {}
        self._keeps_state = job.state and isinstance(env, Simulated)
        self._watch = StabilityWatch(env, spec.observation)

    def run(self, number: int) -> Episode:
        """Run episode ``number`` from its reset to its end.

        Raises:
            SimulationUnstable: the physics broke down.
        """
        job, env = self._job, self._env
        observation, info = env.reset(seed=reset_seed(job.seed, job.stream, number))
        rng = np.random.default_rng([job.seed, job.stream, number])
        self._flatten(observation, self._now)
        self._observations[0] = self._now
        self._actor.begin(env, self._now, rng)
        self._watch.begin()
        steps, terminated, success = self._drive(rng)
        columns = self._cut(steps, terminated)
        finite = all(np.isfinite(columns[name]).all() for name in ("next_observations", "rewards"))
        if self._watch.given_up or not finite:
            raise SimulationUnstable(
                f"{job.task}: episode {number} of seed {job.seed}, stream {job.stream}, broke "
                f"down within {steps} steps: {self._watch.why()}"
            )
        return Episode(columns, success or bool(info.get("success", False)))

    def _drive(self, rng: np.random.Generator) -> tuple[int, bool, bool]:
        """Step to the end; return steps, whether the task ended, whether it succeeded."""
        now, observations, actions, rewards = (
            self._now,
            self._observations,
            self._actions,
            self._rewards,
        )
        act, do, flatten, state = self._actor.act, self._env.step, self._flatten, self._states()
        low, high, success = self._low, self._high, False
        for row in range(self._job.episode_steps):
            for column, values in state:
                column[row] = values
            action = actions[row]
            action[:] = act(now, rng)
            np.maximum(action, low, out=action)
            np.minimum(action, high, out=action)
            observation, reward, terminated, _, info = do(self._executed(action))
            flatten(observation, now)
            observations[row + 1] = now
            rewards[row] = reward
            if info.get("success"):
                success = True
            if terminated:
                return row + 1, True, success
        return self._job.episode_steps, False, success

    def _executed(self, action: Array) -> Array:
        if self._dtype == np.float32 and len(self._shape) == 1:
            return action
        return action.astype(self._dtype).reshape(self._shape)

    def _states(self) -> tuple[tuple[Array, Array], ...]:
        """Return each column of the state with the memory it is copied from.

        That memory may move with a reset, never within an episode.
        """
        if not self._keeps_state:
            return ()
        assert isinstance(self._env, Simulated)
        data = self._env.data
        pairs = []
        for name, values in ((QPOS, data.qpos), (QVEL, data.qvel)):
            if name not in self._state:
                self._state[name] = np.zeros((len(self._rewards), len(values)), np.float32)
            pairs.append((self._state[name], values))
        return tuple(pairs)

    def _cut(self, steps: int, terminated: bool) -> Columns:
        ends = np.arange(steps) == steps - 1
        columns: Columns = {
            "observations": self._observations[:steps].copy(),
            "actions": self._actions[:steps].copy(),
            "rewards": self._rewards[:steps].copy(),
            "next_observations": self._observations[1 : steps + 1].copy(),
            "terminals": ends & terminated,
            "timeouts": ends & (not terminated),
        }
        columns |= {name: column[:steps].copy() for name, column in self._state.items()}
        log_probs = self._actor.log_probs()
        if log_probs is not None:
            columns[LOG_PROBS] = log_probs.astype(np.float32)
        return columns


def flattener(spec: Spec) -> Callable[[Any, Floats], None]:
    """Return what writes an observation of the spec into a flat array."""
    places, start = [], 0
    for array in spec.observation:
        places.append((array.name, slice(start, start + array.size)))
        start += array.size

    def flatten(observation: Any, out: Floats) -> None:  # noqa: ANN401
        if isinstance(observation, np.ndarray):
            out[:] = observation.reshape(-1)
            return
        for name, place in places:
            out[place] = np.reshape(observation[name], -1)

    return flatten
