"""The ball of maze2d against MuJoCo 2.1.0, through free motion and into walls."""

import mujoco
import numpy as np
import pytest

from controller.errors import ConfigError
from sim.d4rl.maze2d import MAZE2D
from sim.d4rl.maze2d_env import Maze2dEnv
from sim.registry import make_env
from tests.golden import maze2d210, mujoco210

GOLDEN = np.load(maze2d210.GOLDEN, allow_pickle=False)
TOLERANCE = 1e-8
"""D4RL evaluated each state once more than is needed, which moves the solver by rounding."""


def follow(env: Maze2dEnv, task: str) -> np.ndarray:
    """Return the states (300, 4) that an environment goes through."""
    start, actions = maze2d210.scenario(task)
    env.reset(seed=0)
    env.data.qpos[:], env.data.qvel[:] = start[:2], start[2:]
    mujoco.mj_forward(env.model, env.data)
    return np.array([env.step(action)[0].copy() for action in actions])


@pytest.mark.parametrize("task", maze2d210.TASKS)
def test_follows_the_library_of_2021(task):
    states = follow(Maze2dEnv(MAZE2D[task]), task)
    assert np.abs(states - GOLDEN[task]).max() < TOLERANCE


@pytest.mark.parametrize("task", maze2d210.TASKS)
def test_each_correction_is_needed(task):
    env = Maze2dEnv(MAZE2D[task])
    env.model.geom_margin[:] *= 2.0
    assert np.abs(follow(env, task) - GOLDEN[task]).max() > 1e-3
    env = Maze2dEnv(MAZE2D[task])
    env.model.body_invweight0[1, 0] *= 1.5
    assert np.abs(follow(env, task) - GOLDEN[task]).max() > 1e-2
    assert np.abs(follow(Maze2dEnv(MAZE2D[task], "stock"), task) - GOLDEN[task]).max() > 1e-2


@pytest.mark.parametrize("task", maze2d210.TASKS)
def test_the_comparison_has_walls_in_it(task):
    """Both components of the velocity are turned round by walls."""
    velocities = GOLDEN[task][:, 2:]
    _, actions = maze2d210.scenario(task)
    jumps = np.abs(np.diff(velocities, axis=0)) > 0.3  # A force alone gives 0.24 m/s a step.
    assert jumps.sum(axis=0).min() >= 1
    assert np.abs(actions).max() <= 1.0


def test_unknown_physics():
    with pytest.raises(
        ConfigError, match=r"physics: 'mujoco21' is unknown; did you mean mujoco210"
    ):
        make_env("maze2d-umaze", physics="mujoco21")


@pytest.mark.slow
@pytest.mark.skipif(not mujoco210.LIBRARY, reason="ONEBEAT_MUJOCO210 names no library")
@pytest.mark.parametrize("task", maze2d210.TASKS)
def test_the_golden_file_is_what_the_library_does(task):
    assert np.array_equal(maze2d210.trajectory(task), GOLDEN[task])
