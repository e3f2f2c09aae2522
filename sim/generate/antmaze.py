"""AntMaze data as D4RL made it: a navigation policy led by waypoints, relabelled for one goal.

The ant walks the generation layout to goals drawn there, for 1001 steps an episode, whatever it
reaches. It is steered by the unit vector to the next waypoint, which the navigation policy sees
ten times enlarged behind the 27 numbers that remain of the observation without x and y. Then
every row is labelled anew for one goal of the evaluation maze: reward 1 and terminal where the
row's successor lies within 0.5 m of it. The trajectory goes on after a terminal row, as in
D4RL's files.

D4RL takes the successor from the next row, also where that begins another trajectory, and labels
the last row 0; here each row has its own successor.

Source: D4RL ``scripts/generation/generate_ant_maze_datasets.py``,
``scripts/generation/relabel_antmaze_rewards.py``, ``d4rl/locomotion/maze_env.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError
from controller.transitions import Transitions
from controller.types import Array
from sim.d4rl.antmaze import GENERATION, RADIUS_M, TASKS, Maze
from sim.d4rl.antmaze_waypoints import AntWaypoints
from sim.env import Env
from sim.generate.behaviour import Behaviour
from sim.generate.rollout import reset_seed
from sim.task import Task

if TYPE_CHECKING:
    from sim.d4rl.antmaze_env import AntMazeEnv

Floats = NDArray[np.float64]

DIRECTION_SCALE = 10.0
EVALUATION_STREAM = 1000
"""From it on, streams of the seed that draw the goals to label for."""


def generation_env(task: str, *, multistart: bool, physics: str = "mujoco210") -> AntMazeEnv:
    """Build what D4RL recorded in: the generation layout, without an end at the goal.

    Args:
        task: name of the task.
        multistart: begin anywhere; else at the origin.
        physics: see ``sim.d4rl.physics``.
    """
    from sim.d4rl.antmaze_env import AntMazeEnv

    maze = GENERATION[TASKS[task]]
    return AntMazeEnv(maze, multistart=multistart, ends_at_goal=False, physics=physics)


class NavigationActor:
    """D4RL's navigation policy on its way from waypoint to waypoint.

    Raises:
        ConfigError: the policy is not one that navigates the ant.
    """

    def __init__(self, behaviour: Behaviour, noise: float) -> None:
        if (behaviour.observation_size, behaviour.action_size) != (29, 8):
            raise ConfigError(
                f"{behaviour.source}: takes {behaviour.observation_size} numbers and gives "
                f"{behaviour.action_size}; a navigation policy takes 27 of the ant and 2 of the "
                "way, and gives 8"
            )
        self._behaviour, self._noise = behaviour, noise
        self._input = np.zeros(29)
        self._maze: Maze | None = None
        self._waypoints: AntWaypoints | None = None

    def begin(self, env: Env, observation: Floats, rng: np.random.Generator) -> None:
        """Look at the maze and its goal."""
        maze = cast("AntMazeEnv", env)
        if self._waypoints is None or maze.maze != self._maze:
            self._waypoints, self._maze = AntWaypoints(maze.maze), maze.maze
        self._goal = maze.goal

    def act(self, observation: Floats, rng: np.random.Generator) -> Array:
        """Draw an action."""
        assert self._waypoints is not None
        way = self._waypoints.direction(observation[:2], self._goal, rng)
        self._input[:27] = observation[2:]
        self._input[27:] = DIRECTION_SCALE * way
        return self._behaviour.act(self._input, rng) + self._noise * rng.standard_normal(8)

    def log_probs(self) -> None:
        """Return nothing: the noise is not part of the policy."""


def relabelled(
    data: Transitions, task: Task, seed: int, stream: int = 0
) -> tuple[Transitions, dict[str, str | int | float]]:
    """Label rows for one goal of the evaluation maze, drawn from ``seed`` and ``stream``.

    Returns:
        The transitions with new rewards, terminals and timeouts; facts: the goal, and the share
        of trajectories that came to it.
    """
    env: Any = task.make_env()
    env.reset(seed=reset_seed(seed, EVALUATION_STREAM + stream, 0))
    goal = np.array(env.goal, np.float64)
    env.close()
    labelled = label(data, goal)
    ends = np.flatnonzero(data.terminals | data.timeouts) + 1
    trajectories = np.split(labelled.rewards, ends[:-1])
    facts: dict[str, str | int | float] = {
        "goal_x": float(goal[0]),
        "goal_y": float(goal[1]),
        "success_rate": float(np.mean([rewards.any() for rewards in trajectories])),
    }
    return labelled, facts


def label(data: Transitions, goal: Floats) -> Transitions:
    """Return transitions with reward 1 and an end where the successor has come to ``goal``."""
    offset = data.next_observations[:, :2].astype(np.float64) - goal
    reached = (offset**2).sum(axis=1) <= RADIUS_M**2
    return replace(
        data,
        rewards=reached.astype(np.float32),
        terminals=reached,
        timeouts=(data.terminals | data.timeouts) & ~reached,
    )
