"""Datasets of tasks that have a scripted controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError
from controller.transitions import Transitions, layout_of
from sim.d4rl.maze2d import MAZE2D
from sim.pointmaze import MAZE_TASKS, RATE_HZ, Floats, MazeEnv, maze_spec, maze_task
from sim.settings import CollectConfig
from sim.waypoints import WaypointController

if TYPE_CHECKING:
    from sim.d4rl.maze2d_drive import Maze2dDrive

REPORT_STEPS = 1000
"""Steps between two reports of progress."""


class Progress(Protocol):
    """Told how far a collection is."""

    def __call__(self, done: int, total: int, /) -> object:
        """Take the number of steps done, of ``total``."""
        ...


def collect(config: CollectConfig, on_progress: Progress | None = None) -> Transitions:
    """Drive a maze with its waypoint controller, as D4RL made its maze2d data.

    An episode begins at a random start and goes to random goals, one after another: near a goal
    the ball stays for a random time, then the goal moves while the episode goes on. Episodes
    end by time alone; the last row is a timeout too. The stay teaches to stop: a regression on
    150 000 steps of pointmaze-medium reached every goal with and without it, but its mean return
    was 497 with half a second and 215 without.

    A row's ``next_observations`` is its own successor under the row's own goal, and the reward
    is for that goal: where the goal moves, the next row's observation differs from it in the
    goal.

    Returns:
        float32 columns; actions are those executed, with noise and clipped.

    Raises:
        ConfigError: the task has no scripted controller.
    """
    drive = _drive_of(config)
    for done in range(1, config.steps + 1):
        drive.step(done - 1)
        if on_progress and (done % REPORT_STEPS == 0 or done == config.steps):
            on_progress(done, config.steps)
    drive.close()
    return drive.transitions()


def _drive_of(config: CollectConfig) -> _Drive | Maze2dDrive:
    if config.task in MAZE2D:
        from sim.d4rl.maze2d_drive import Maze2dDrive

        return Maze2dDrive(config)
    if config.task in MAZE_TASKS:
        return _Drive(config)
    raise ConfigError(
        f"task: {config.task} has no scripted controller; those that have: "
        f"{', '.join((*MAZE_TASKS, *MAZE2D))}"
    )


class _Drive:
    """One collection in progress; row i is filled by ``step(i)``."""

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._task = maze_task(config.task)
        self._spec = maze_spec(config.task)
        self._env = MazeEnv(self._task)
        self._controller = WaypointController(self._env.walls)
        rows, width = config.steps, sum(array.size for array in self._spec.observation)
        self._noise = config.noise * np.random.default_rng(config.seed).standard_normal((rows, 2))
        self._stays = np.random.default_rng([config.seed, 1])
        self._observations = np.zeros((rows, width), np.float32)
        self._next = np.zeros((rows, width), np.float32)
        self._actions = np.zeros((rows, 2), np.float32)
        self._rewards = np.zeros(rows, np.float32)
        self._timeouts = np.zeros(rows, np.bool_)
        self._episode_step, self._stay = 0, 0
        self._now = self._begin(config.seed)

    def step(self, row: int) -> None:
        """Drive one control step."""
        before = self._now
        force = self._controller.action(before["observation"], before["desired_goal"])
        action = np.clip(force + self._noise[row], -1.0, 1.0).astype(np.float32)
        after, reward, *_ = self._env.step(action)
        self._put(self._observations[row], before)
        self._put(self._next[row], after)
        self._actions[row], self._rewards[row] = action, reward
        self._episode_step += 1
        if self._episode_step == self._task.layout.episode_steps or row + 1 == len(self._rewards):
            self._timeouts[row] = True
            self._now = self._begin(None)
        else:
            self._now = self._turn_goal(after, reward)

    def transitions(self) -> Transitions:
        """Return what was driven."""
        return Transitions(
            observations=self._observations,
            actions=self._actions,
            rewards=self._rewards,
            next_observations=self._next,
            terminals=np.zeros(len(self._rewards), np.bool_),
            timeouts=self._timeouts,
            layout=layout_of(self._spec),
            task=self._task.name,
        )

    def close(self) -> None:
        """Release the simulation."""
        self._env.close()

    def _begin(self, seed: int | None) -> dict[str, Floats]:
        self._env.reset(seed=seed)
        self._episode_step, self._stay = 0, self._draw_stay()
        return self._env.set_goal(self._env.draw_goal())

    def _turn_goal(self, after: dict[str, Floats], reward: float) -> dict[str, Floats]:
        """Return the observation to act on next: ``after``, or with a new goal."""
        if not reward:
            return after
        if self._stay > 0:
            self._stay -= 1
            return after
        self._stay = self._draw_stay()
        return self._env.set_goal(self._env.draw_goal())

    def _draw_stay(self) -> int:
        longest = round(self._config.stay_s * RATE_HZ)
        return int(self._stays.integers(longest + 1))

    def _put(self, row: NDArray[np.float32], observation: dict[str, Any]) -> None:
        start = 0
        for array in self._spec.observation:
            row[start : start + array.size] = observation[array.name]
            start += array.size
