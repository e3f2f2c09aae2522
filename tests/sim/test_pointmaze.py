"""The point mazes: facts of the built environments, physics, starts, goals and rewards."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from gymnasium_robotics.envs.maze import maps
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import ConfigError
from controller.testing import check_plant
from sim.pointmaze import (
    LAYOUTS,
    MAZE_TASKS,
    MazeEnv,
    cell_at,
    centre,
    maze_spec,
    maze_task,
    walls,
    xy,
)
from sim.registry import make_plant
from sim.spaces import spec_of_spaces

GR_MAPS = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}


def test_is_a_plant():
    check_plant(lambda: make_plant("pointmaze-medium", episode_steps=20), steps=50)


@pytest.mark.parametrize("task", MAZE_TASKS)
def test_static_facts_are_those_of_the_built_environment(task):
    env = MazeEnv(maze_task(task))
    spec = maze_spec(task)
    built = spec_of_spaces(
        task,
        env.maze.observation_space,
        env.maze.action_space,
        1.0 / env.maze.point_env.dt,
        order=("observation", "achieved_goal", "desired_goal"),
    )
    for ours, theirs in zip(
        (*spec.observation, spec.action), (*built.observation, built.action), strict=True
    ):
        assert (ours.name, ours.shape, ours.dtype) == (theirs.name, theirs.shape, theirs.dtype)
        assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert spec.rate_hz == pytest.approx(built.rate_hz)
    grid, cell_m = walls(task)
    assert cell_m == env.maze.maze.maze_size_scaling
    assert np.array_equal(grid, np.array(GR_MAPS[maze_task(task).maze]) == 1)
    for cell in np.argwhere(~grid):
        assert np.allclose(centre(grid, tuple(cell)), env.maze.maze.cell_rowcol_to_xy(cell))


@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_a_place_in_a_cell_is_in_that_cell(maze, data):
    grid = LAYOUTS[maze].walls
    row = data.draw(st.integers(0, grid.shape[0] - 1))
    column = data.draw(st.integers(0, grid.shape[1] - 1))
    offset = data.draw(st.tuples(*[st.floats(-0.499, 0.499)] * 2))
    assert cell_at(grid, (centre(grid, (row, column)) + offset).tolist()) == (row, column)


def test_a_place_outside_is_in_the_nearest_cell():
    grid = LAYOUTS["umaze"].walls
    assert cell_at(grid, (-9.0, 9.0)) == (0, 0)
    assert cell_at(grid, (9.0, -9.0)) == (4, 4)


def test_d4rl_facts():
    assert {m: (x.d4rl_goal, x.episode_steps) for m, x in LAYOUTS.items()} == {
        "umaze": ((1, 1), 300),
        "medium": ((6, 6), 600),
        "large": ((7, 9), 800),
    }
    plant = make_plant("pointmaze-umaze")
    plant.reset(0)
    for _ in range(300):
        assert not plant.observe().done
        plant.command(np.zeros(2, np.float32), 0)
    assert plant.observe().truncated


def test_first_step_is_the_closed_form():
    """A 0.1 m ball of density 1000 under 100 N·u with implicit damping of 1 N·s/m, 10 ms."""
    mass_kg = 1000 * 4 / 3 * np.pi * 0.1**3
    plant = make_plant("pointmaze-medium")
    plant.reset(0)
    start = plant.observe().arrays[0]
    force = np.array([0.25, -0.5], np.float32)
    plant.command(force, 0)
    velocity = 0.01 * 100 * force / (mass_kg + 0.01 * 1.0)
    moved = plant.observe().arrays[0]
    assert np.allclose(moved[2:], velocity, rtol=1e-9)
    assert np.allclose(moved[:2], start[:2] + 0.01 * velocity, rtol=1e-9)


def test_reward_is_one_within_the_radius():
    radius = 0.45
    env = MazeEnv(maze_task("pointmaze-umaze"))
    env.reset(seed=1)
    still = np.zeros(2, np.float32)
    for distance in (0.0, radius - 1e-3, radius + 1e-3):
        env.maze.point_env.set_state(centre(env.walls, (1, 2)), np.zeros(2))
        env.set_goal(centre(env.walls, (1, 2)) + np.array([distance, 0.0]))
        observation, reward, terminated, truncated, info = env.step(still)
        assert (reward, info["success"]) == (float(distance <= radius), distance <= radius)
        assert not terminated
        assert not truncated
        goals = observation["achieved_goal"], observation["desired_goal"]
        assert reward == env.maze.compute_reward(*goals, {})


def test_success_is_having_been_there():
    plant = make_plant("pointmaze-umaze", seed=0)
    env = plant.env
    plant.reset(0)
    env.maze.point_env.set_state(plant.observe().arrays[2].copy(), np.zeros(2))
    plant.command(np.zeros(2, np.float32), 0)
    assert (plant.observe().reward, plant.observe().success) == (1.0, True)
    env.maze.point_env.set_state(centre(env.walls, (1, 1)) + 9, np.zeros(2))
    plant.command(np.zeros(2, np.float32), 1)
    seen = plant.observe()
    assert (seen.reward, seen.success, seen.episode_return) == (0.0, True, 1.0)


def test_pointmaze_starts_and_goals_are_spread_over_the_free_cells():
    plant = make_plant("pointmaze-medium")
    grid, _ = walls("pointmaze-medium")
    starts, goals = set(), set()
    for seed in range(300):
        plant.reset(seed)
        state, _, goal = plant.observe().arrays
        for place, cells in ((state[:2], starts), (goal, goals)):
            cell = cell_at(grid, place)
            assert np.abs(place - centre(grid, cell)).max() <= 0.25
            cells.add(cell)
        assert np.array_equal(state[2:], [0.0, 0.0])
    free = {(int(i), int(j)) for i, j in np.argwhere(~grid)}
    assert starts == goals == free


def test_goal_cell_fixes_the_goal():
    plant = make_plant("pointmaze-medium", goal_cell=(1, 2))
    grid, _ = walls("pointmaze-medium")
    goals = []
    for seed in range(5):
        plant.reset(seed)
        goals.append(plant.observe().arrays[2])
    assert {cell_at(grid, goal) for goal in goals} == {(1, 2)}
    assert len({tuple(goal) for goal in goals}) == 5


@pytest.mark.parametrize("cell", [(0, 0), (-1, 1), (8, 1), (3, 1)])
def test_goal_cell_must_be_free(cell):
    with pytest.raises(ConfigError, match=r"pointmaze-medium: goal_cell .* is not a free cell"):
        make_plant("pointmaze-medium", goal_cell=cell)


def test_a_moved_goal_shows_in_the_observation():
    env = MazeEnv(maze_task("pointmaze-large"))
    env.reset(seed=2)
    for _ in range(50):
        goal = env.draw_goal()
        assert np.linalg.norm(goal - env.maze.data.qpos) > 0.45
        assert not env.walls[cell_at(env.walls, goal)]
    assert np.array_equal(env.set_goal(goal)["desired_goal"], goal)
    observation, *_ = env.step(np.zeros(2, np.float32))
    assert np.array_equal(observation["desired_goal"], goal)


def test_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_plant("pointmaze-umaze").close()
    assert list(Path(tmp_path).iterdir()) == []


def test_says_nothing(capfd):
    make_plant("pointmaze-umaze").close()
    assert capfd.readouterr() == ("", "")


def test_path_of_observations():
    rows = np.arange(16.0).reshape(2, 8)
    assert np.array_equal(xy(rows), [[0.0, 1.0], [8.0, 9.0]])


def test_unknown_maze():
    with pytest.raises(ConfigError, match="did you mean pointmaze-umaze"):
        maze_task("pointmaze-umase")
