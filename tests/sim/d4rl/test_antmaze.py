"""D4RL's AntMaze: places, starts, goals, and the ant."""

from itertools import pairwise

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import ConfigError
from controller.testing import check_plant
from sim.d4rl.antmaze import EVALUATION, GENERATION, TASKS, Maze, cell_at, centre
from sim.d4rl.antmaze_env import AntMazeEnv
from sim.d4rl.antmaze_waypoints import AntWaypoints, next_cells
from sim.registry import make_plant, task_named

REGIONS = {
    # Where D4RL's evaluation goals lie: x and y ranges in metres.
    "umaze": ((0.0, 1.5), (8.0, 9.5)),
    "medium": ((20.0, 21.5), (20.0, 21.5)),
    "large": ((32.0, 33.5), (24.0, 25.5)),
}


@pytest.mark.parametrize("task", ["antmaze-umaze", "antmaze-large-diverse"])
def test_conforms(task):
    check_plant(lambda: make_plant(task, episode_steps=10), steps=25)


def test_the_six_tasks():
    lengths = {name: task_named(name).episode_steps for name in TASKS}
    assert list(lengths.values()) == [700, 700, 1000, 1000, 1000, 1000]
    for name in TASKS:
        task = task_named(name)
        assert task.datasets == (f"{name}-v0", f"{name}-v2")
        assert task.reference == (0.0, 1.0)
        assert task.spec().observation[0].size == 29
        assert task.spec().rate_hz == pytest.approx(10.0)


@pytest.mark.parametrize("maze", REGIONS)
def test_goals_fill_the_region_and_starts_are_at_the_origin(maze):
    env = AntMazeEnv(EVALUATION[maze])
    goals, starts = [], []
    env.reset(seed=0)
    for _ in range(300):
        observation, _ = env.reset()
        goals.append(env.goal)
        starts.append(observation[:2].copy())
    goals = np.array(goals)
    for axis, (low, high) in enumerate(REGIONS[maze]):
        assert low <= goals[:, axis].min() < low + 0.2
        assert high - 0.2 < goals[:, axis].max() < high
    assert np.abs(starts).max() <= 0.1
    assert np.std(starts) > 0.03


def test_random_starts_avoid_goals_and_walls():
    maze = GENERATION["large"]
    env = AntMazeEnv(maze, multistart=True)
    env.reset(seed=1)
    cells = set()
    for _ in range(400):
        observation, _ = env.reset()
        x, y = observation[:2]
        # 0..1 m beyond the centre of its cell, on both axes.
        cell = (1 + int(y // 4), 1 + int(x // 4))
        assert (np.abs(observation[:2] - centre(cell) - 0.5) <= 0.5).all()
        cells.add(cell)
    assert cells == set(maze.free) - set(maze.goals)


def test_layouts_share_their_walls():
    for name, maze in GENERATION.items():
        assert maze.rows[0] == EVALUATION[name].rows[0]
        assert np.array_equal(maze.walls, EVALUATION[name].walls)
        assert all(not maze.walls[goal] for goal in maze.goals)
    assert {name: maze.walls.shape for name, maze in EVALUATION.items()} == {
        "umaze": (5, 5),
        "medium": (8, 8),
        "large": (9, 12),
    }


def test_walls_stand_where_cells_are():
    env = AntMazeEnv(EVALUATION["medium"])
    boxes = {
        tuple(env.model.geom_pos[i, :2])
        for i in range(env.model.ngeom)
        if env.model.geom_type[i] == mujoco.mjtGeom.mjGEOM_BOX
    }
    walls = EVALUATION["medium"].walls
    assert boxes == {tuple(centre((int(i), int(j)))) for i, j in np.argwhere(walls)}


def test_reward_and_end_at_the_goal():
    for ends in (True, False):
        env = AntMazeEnv(EVALUATION["umaze"], ends_at_goal=ends)
        env.reset(seed=0)
        env.goal = np.array([0.0, 0.55])
        away = env.step(np.zeros(8))
        env.goal = env.data.qpos[:2] + np.array([0.3, 0.3])
        there = env.step(np.zeros(8))
        assert (away[1], away[2], away[4]["success"]) == (0.0, False, False)
        assert (there[1], there[2], there[4]["success"]) == (1.0, ends, True)


def test_an_action_of_one_is_thirty_newton_metres():
    env = AntMazeEnv(EVALUATION["umaze"])
    env.reset(seed=0)
    env.step(np.array([1, -1, 0.5, 0, 2, -2, 0, 0], np.float32))
    assert env.data.ctrl.tolist() == [30, -30, 15, 0, 30, -30, 0, 0]
    assert (env.model.actuator_gear[:, 0] == 1.0).all()
    assert env.data.actuator_force[0] == 30.0


@given(st.floats(-10, 60), st.floats(-10, 60))
def test_cells_are_as_d4rl_rounds_them(x, y):
    row, column = cell_at(x, y)
    assert (row, column) == (1 + int(max(y, 1e-4) // 4), 1 + int(max(x, 1e-4) // 4))


def test_cell_centres_by_hand():
    assert centre((1, 1)).tolist() == [0, 0]
    assert centre((7, 9)).tolist() == [32, 24]


def test_waypoints_lead_along_the_u():
    planner = AntWaypoints(EVALUATION["umaze"])
    random, goal = np.random.default_rng(0), np.array([0.5, 8.5])
    way = [(0.5, 0.5), (4.5, 0.5), (8.5, 0.5), (8.5, 4.5), (8.5, 8.5)]
    for here, there in pairwise(way):
        point = planner.waypoint(np.array(here), goal, random)
        assert (np.abs(point - np.array(there)) <= 0.5).all()
    assert planner.waypoint(np.array([4.5, 8.5]), goal, random) is goal
    direction = planner.direction(np.array([4.5, 8.5]), goal, random)
    assert direction.tolist() == pytest.approx([-1.0, 0.0])


def test_walls_are_left_towards_the_goal():
    """(7.9, 5.5) lies in the corridor (2, 3), and for D4RL in the wall (2, 2) beside (3, 2)."""
    planner = AntWaypoints(EVALUATION["umaze"])
    point = planner.waypoint(np.array([7.9, 5.5]), np.array([0.5, 8.5]), np.random.default_rng(0))
    assert (np.abs(point - (centre((3, 2)) + 0.5)) <= 0.5).all()


@pytest.mark.parametrize("maze", GENERATION)
def test_next_cells_shorten_the_way_by_one(maze):
    walls = GENERATION[maze].walls
    for goal in GENERATION[maze].free:
        # Distances by relaxation, from the definition.
        distance = np.where(walls, np.inf, 1e3)
        distance[goal] = 0.0
        for _ in range(walls.size):
            padded = np.pad(distance, 1, constant_values=np.inf)
            around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
            distance = np.where(walls, np.inf, np.minimum(distance, np.min(around, axis=0) + 1))
        table = next_cells(GENERATION[maze], goal)
        assert set(GENERATION[maze].free) <= set(table)
        for cell, following in table.items():
            if cell == goal:
                assert following == goal
                continue
            around = _neighbours(cell, walls.shape)
            assert following in around
            assert distance[following] == min(distance[beside] for beside in around) < 1e3


def _neighbours(cell, shape):
    row, column = cell
    around = ((row, column - 1), (row, column + 1), (row + 1, column), (row - 1, column))
    return [(i, j) for i, j in around if 0 <= i < shape[0] and 0 <= j < shape[1]]


def test_places_amid_walls_take_the_nearest_free_cell():
    """A maze of one free cell and one far away: D4RL's cell (3, 3) touches no free one."""
    maze = Maze(("#####", "#  ##", "#####", "#####", "#####"), ((1, 1),), 10)
    planner = AntWaypoints(maze)
    point = planner.waypoint(np.array([9.0, 9.0]), np.array([0.0, 0.0]), np.random.default_rng(0))
    assert (np.abs(point - (centre((1, 2)) + 0.5)) <= 0.5).all()


def test_unknown_physics():
    with pytest.raises(ConfigError, match="physics: 'mujoco' is unknown; valid: mujoco210, stock"):
        make_plant("antmaze-umaze", physics="mujoco")


def test_the_ant_is_d4rl_s():
    """Facts of D4RL's model: 20 ms steps, soft contacts, the mass under MuJoCo 2.1.0."""
    model = AntMazeEnv(EVALUATION["umaze"]).model
    assert model.opt.timestep == 0.02
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert model.body_mass.sum() == pytest.approx(0.87871, abs=5e-6)
    assert np.allclose(model.geom_solref, [0.02, 1.0])
    assert np.allclose(model.geom_solimp[:, :3], [0.8, 0.8, 0.01])
