"""Collected data against the simulation it came from."""

import numpy as np
import pytest

from controller.errors import ConfigError
from sim.datasets import collect
from sim.pointmaze import MazeEnv, maze_spec, maze_task, walls
from sim.settings import CollectConfig
from sim.waypoints import WaypointController

GOAL = slice(6, 8)


@pytest.fixture(scope="module")
def data():
    return collect(CollectConfig(task="pointmaze-medium", steps=2000, seed=3))


def test_columns(data):
    data.validate("collected")
    assert data.layout == (("observation", 4), ("achieved_goal", 2), ("desired_goal", 2))
    assert sum(size for _, size in data.layout) == data.observations.shape[1]
    assert data.task == maze_spec("pointmaze-medium").task
    for column in (data.observations, data.actions, data.rewards, data.next_observations):
        assert column.dtype == np.float32
    assert np.abs(data.actions).max() <= 1.0
    assert np.array_equal(data.observations[:, :2], data.observations[:, 4:6])


def test_episodes_end_by_time_alone(data):
    assert not data.terminals.any()
    assert np.flatnonzero(data.timeouts).tolist() == [599, 1199, 1799, 1999]


def test_successors_are_exact_and_keep_the_rows_goal(data):
    inner = np.flatnonzero(~data.timeouts)
    inner = inner[inner + 1 < len(data)]
    assert np.array_equal(data.next_observations[:, GOAL], data.observations[:, GOAL])
    assert np.array_equal(data.next_observations[inner, :6], data.observations[inner + 1, :6])


def test_rewards_are_for_the_rows_goal(data):
    offset = data.next_observations[:, :2] - data.observations[:, GOAL]
    distance = np.linalg.norm(offset.astype(np.float64), axis=1)
    clear = np.abs(distance - 0.45) > 1e-6
    assert np.array_equal(data.rewards[clear], (distance <= 0.45)[clear])


def test_the_goal_moves_only_from_a_reached_goal(data):
    moved = np.any(np.diff(data.observations[:, GOAL], axis=0) != 0, axis=1) & ~data.timeouts[:-1]
    assert moved.sum() >= 8
    assert (data.rewards[:-1][moved] == 1).all()
    assert data.observations[0, GOAL].tolist() != data.observations[600, GOAL].tolist()


def test_the_actions_reproduce_the_states(data):
    env = MazeEnv(maze_task("pointmaze-medium"))
    env.reset(seed=3)
    for row in range(600):
        assert np.array_equal(env.maze.data.qpos.astype(np.float32), data.observations[row, :2])
        observation, *_ = env.step(data.actions[row])
        assert np.array_equal(
            observation["observation"].astype(np.float32), data.next_observations[row, :4]
        )


def test_noise_has_the_stated_size():
    """Where the controller is far from the limits, action - controller is the noise."""
    data = collect(CollectConfig(task="pointmaze-umaze", steps=3000, noise=0.05, stay_s=3.0))
    controller = WaypointController(walls("pointmaze-umaze")[0])
    wanted = np.array(
        [controller.action(row[:4], row[6:8]) for row in data.observations.astype(np.float64)]
    )
    inner = np.abs(wanted) < 0.7
    residual = (data.actions - wanted)[inner]
    assert inner.sum() > 500
    assert residual.std() == pytest.approx(0.05, rel=0.1)
    assert abs(residual.mean()) < 0.01
    silent = collect(CollectConfig(task="pointmaze-umaze", steps=50, noise=0.0))
    wanted = [controller.action(r[:4], r[6:8]) for r in silent.observations.astype(np.float64)]
    assert np.allclose(silent.actions, wanted, atol=1e-4)


def test_one_seed_gives_one_dataset_and_a_longer_one_continues_it(data):
    again = collect(CollectConfig(task="pointmaze-medium", steps=700, seed=3))
    same = data.select(slice(0, 700))
    same.timeouts[-1] = True
    assert again.digest() == same.digest()
    other = collect(CollectConfig(task="pointmaze-medium", steps=700, seed=4))
    assert other.digest() != again.digest()


def test_without_a_stay_the_goal_moves_at_once():
    data = collect(CollectConfig(task="pointmaze-umaze", steps=900, stay_s=0.0))
    reached = (data.rewards[:-1] == 1) & ~data.timeouts[:-1]
    moved = np.any(np.diff(data.observations[:, GOAL], axis=0) != 0, axis=1)
    assert reached.any()
    assert np.array_equal(moved[~data.timeouts[:-1]], reached[~data.timeouts[:-1]])


def test_maze2d_data_is_d4rls_kind():
    data = collect(CollectConfig(task="maze2d-umaze", steps=2000))
    assert data.layout == (("observations", 4),)
    assert np.flatnonzero(data.timeouts).tolist() == [*range(299, 2000, 300), 1999]
    # Rewards are for the task's goal in cell (1, 1), whatever goal is pursued.
    near = np.linalg.norm(data.next_observations[:, :2] - 1.0, axis=1) <= 0.5
    assert np.array_equal(data.rewards, near.astype(np.float32))
    assert 0.02 < near.mean() < 0.98
    goals = data.info["goal"]
    assert len(np.unique(goals, axis=0)) > 5
    # Wherever the pursued goal changes within an episode, the ball had come near it.
    turned = np.any(np.diff(goals, axis=0) != 0, axis=1) & ~data.timeouts[:-1]
    away = np.linalg.norm(data.next_observations[:-1, :2] - goals[:-1], axis=1)
    assert turned.any()
    assert (away[turned] <= 0.5 + 1e-6).all()
    again = collect(CollectConfig(task="maze2d-umaze", steps=2000))
    assert again.digest() == data.digest()


def test_tells_its_progress():
    told = []
    collect(CollectConfig(steps=2500), on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1000, 2500), (2000, 2500), (2500, 2500)]


def test_refuses_a_task_without_a_controller():
    with pytest.raises(ConfigError, match="kitchen-complete has no scripted controller"):
        collect(CollectConfig(task="kitchen-complete", steps=10))
