"""How D4RL made its maze2d data: a waypoint controller that goes from one random goal to the next.

The goal that is pursued is not the task's: rewards are for the task's fixed goal, as in the
published files, and the pursued one is kept in the column ``goal``. One difference: a published
reward belongs to the row's own observation, here to its successor, as the task pays it.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from controller.transitions import Transitions, layout_of
from sim.d4rl.maze2d import MAZE2D, RADIUS_M, RATE_HZ, cell_at, centre, maze2d_spec
from sim.d4rl.maze2d_env import Maze2dEnv
from sim.pointmaze import Cell
from sim.settings import CollectConfig
from sim.waypoints import Point, WaypointController

Rows = NDArray[np.float32]


class Maze2dDrive:
    """One collection in progress; row i is filled by ``step(i)``.

    Args:
        config: what to collect.
    """

    def __init__(self, config: CollectConfig) -> None:
        self._task = MAZE2D[config.task]
        self._env = Maze2dEnv(self._task)
        self._controller = WaypointController(
            self._env.walls, place=centre, locate=partial(_locate, self._env.walls)
        )
        rows = config.steps
        self._noise = config.noise * np.random.default_rng(config.seed).standard_normal((rows, 2))
        self._stays = np.random.default_rng([config.seed, 1])
        self._longest_stay = round(config.stay_s * RATE_HZ)
        self._observations: Rows = np.zeros((rows, 4), np.float32)
        self._next: Rows = np.zeros((rows, 4), np.float32)
        self._actions: Rows = np.zeros((rows, 2), np.float32)
        self._goals: Rows = np.zeros((rows, 2), np.float32)
        self._rewards: Rows = np.zeros(rows, np.float32)
        self._timeouts = np.zeros(rows, np.bool_)
        self._now, self._goal = np.zeros(4), np.zeros(2)
        self._episode_step, self._stay = 0, 0
        self._begin(config.seed)

    def step(self, row: int) -> None:
        """Drive one control step."""
        now, goal = self._now, self._goal
        force = self._controller.action(now, goal)
        action = np.clip(force + self._noise[row], -1.0, 1.0).astype(np.float32)
        self._observations[row], self._actions[row], self._goals[row] = now, action, goal
        after, reward, *_ = self._env.step(action)
        self._next[row], self._rewards[row] = after, reward
        self._now = after.copy()
        self._episode_step += 1
        if self._episode_step == self._task.layout.episode_steps or row + 1 == len(self._rewards):
            self._timeouts[row] = True
            self._begin(None)
        elif np.linalg.norm(after[:2] - goal) <= RADIUS_M:
            self._stay -= 1
            if self._stay < 0:
                self._turn()

    def transitions(self) -> Transitions:
        """Return what was driven."""
        return Transitions(
            observations=self._observations,
            actions=self._actions,
            rewards=self._rewards,
            next_observations=self._next,
            terminals=np.zeros(len(self._rewards), np.bool_),
            timeouts=self._timeouts,
            layout=layout_of(maze2d_spec(self._task.name)),
            task=self._task.name,
            info={"goal": self._goals},
        )

    def close(self) -> None:
        """Release the simulation."""
        self._env.close()

    def _begin(self, seed: int | None) -> None:
        self._now = self._env.reset(seed=seed)[0].copy()
        self._episode_step = 0
        self._turn()

    def _turn(self) -> None:
        """Draw the next goal, away from the ball, and how long to stay there."""
        self._stay = int(self._stays.integers(self._longest_stay + 1))
        self._goal = self._env.draw_place()
        while np.linalg.norm(self._goal - self._now[:2]) <= RADIUS_M:
            self._goal = self._env.draw_place()


def _locate(walls: NDArray[np.bool_], position: Point) -> Cell:
    return cell_at(walls, *position)
