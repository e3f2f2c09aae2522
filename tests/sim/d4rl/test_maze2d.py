"""D4RL's maze2d: places, starts, goals and rewards in D4RL's own frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.testing import check_plant
from sim.d4rl.maze2d import MAZE2D, cell_at, centre
from sim.d4rl.maze2d_env import Maze2dEnv
from sim.registry import make_plant, task_named
from sim.waypoints import WaypointController

FREE = {
    name: {(int(i), int(j)) for i, j in np.argwhere(~task.layout.walls)}
    for name, task in MAZE2D.items()
}


@pytest.mark.parametrize("task", ["maze2d-umaze", "maze2d-open-dense"])
def test_conforms(task):
    check_plant(lambda: make_plant(task, episode_steps=20), steps=50)


def test_lengths_datasets_and_references():
    facts = {name: (task_named(name).episode_steps, task_named(name).datasets) for name in MAZE2D}
    assert facts["maze2d-open"] == (150, ("maze2d-open-v0",))
    assert facts["maze2d-umaze"] == (300, ("maze2d-umaze-v1",))
    assert facts["maze2d-medium-dense"] == (600, ("maze2d-medium-dense-v1",))
    assert facts["maze2d-large"] == (800, ("maze2d-large-v1",))
    assert task_named("maze2d-large-dense").reference == (30.569041, 303.4857382709002)


@pytest.mark.parametrize("task", ["maze2d-umaze", "maze2d-large"])
def test_starts(task):
    env = Maze2dEnv(MAZE2D[task])
    env.reset(seed=0)
    states = np.array([env.reset()[0].copy() for _ in range(600)])
    cells = np.round(states[:, :2])
    assert np.abs(states[:, :2] - cells).max() <= 0.1
    assert {tuple(map(int, cell)) for cell in cells} == FREE[task]
    assert states[:, 2:].std() == pytest.approx(0.1, rel=0.1)


def test_a_ball_at_rest_in_a_cell_is_clear_of_the_walls():
    for name, task in MAZE2D.items():
        env = Maze2dEnv(task)
        env.reset(seed=0)
        for cell in FREE[name]:
            env.data.qpos[:], env.data.qvel[:] = centre(cell), 0.0
            env.step(np.zeros(2))
            assert np.array_equal(env.data.qpos, centre(cell)), (name, cell)


def test_walls_are_half_a_metre_from_the_centres_of_cells():
    """From (1, 1) the wall towards row 0 is met at x = 1 - 0.5 - 0.2 + 0.1 and its margin."""
    env = Maze2dEnv(MAZE2D["maze2d-umaze"])
    env.reset(seed=0)
    env.data.qpos[:], env.data.qvel[:] = (1.0, 1.0), 0.0
    for _ in range(200):
        env.step(np.array([-0.2, 0.0]))
    assert env.data.qpos[0] == pytest.approx(1.0 - 0.5 - 0.2 + 0.1, abs=0.02)


@pytest.mark.parametrize(("distance", "reward"), [(0.0, 1.0), (0.499, 1.0), (0.501, 0.0)])
def test_rewards(distance, reward):
    for task in ("maze2d-open", "maze2d-open-dense"):
        env = Maze2dEnv(MAZE2D[task])
        env.reset(seed=0)
        env.data.qpos[:], env.data.qvel[:] = env.goal + np.array([0.0, distance]), 0.0
        _, got, ended, _, info = env.step(np.zeros(2))
        expected = np.exp(-distance) if env.task.dense else reward
        assert got == pytest.approx(expected, abs=1e-9)
        assert info["success"] == bool(reward)
        assert not ended


def test_speeds_are_clipped_before_a_step():
    """After clipping to 5 m/s, 10 ms with implicit damping of 1 N·s/m on the ball's mass."""
    mass_kg = 1000 * 4 / 3 * np.pi * 0.1**3
    env = Maze2dEnv(MAZE2D["maze2d-open"])
    env.reset(seed=0)
    env.data.qpos[:], env.data.qvel[:] = (2.0, 3.0), (50.0, -50.0)
    observation, *_ = env.step(np.zeros(2))
    assert observation[2:] == pytest.approx(np.array([5.0, -5.0]) * mass_kg / (mass_kg + 0.01))


@given(st.integers(0, 8), st.integers(0, 11), st.floats(-0.49, 0.49), st.floats(-0.49, 0.49))
def test_a_position_within_a_cell_is_in_it(row, column, right, down):
    walls = MAZE2D["maze2d-large"].layout.walls
    x, y = centre((row, column)) - 0.2 + (right, down)
    assert cell_at(walls, x, y) == (row, column)


def test_the_controller_reaches_every_goal_and_is_no_worse_than_d4rls():
    """D4RL's score of 100 is the return of its own controller, which slows down at waypoints."""
    task = MAZE2D["maze2d-medium"]
    plant = make_plant(task.name)
    walls = task.layout.walls
    controller = WaypointController(walls, centre, lambda place: cell_at(walls, *place))
    returns = []
    for seed in range(20):
        plant.reset(seed)
        while not plant.observe().done:
            force = controller.action(plant.observe().arrays[0], task.goal)
            plant.command(np.array(force, np.float32), 0)
        assert plant.observe().success
        returns.append(plant.observe().episode_return)
    low, high = task_named(task.name).reference
    score = 100 * (np.mean(returns) - low) / (high - low)
    assert score > 100
