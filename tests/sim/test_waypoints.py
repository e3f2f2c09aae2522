"""Routes are shortest, and the controller reaches every goal."""

import numpy as np
import pytest

from sim.pointmaze import LAYOUTS, centre, maze_task, walls
from sim.registry import make_plant
from sim.waypoints import WaypointController, route_table


def distances(grid: np.ndarray) -> dict:
    """Floyd and Warshall over the free cells: an oracle that shares nothing with a search."""
    free = [tuple(map(int, cell)) for cell in np.argwhere(~grid)]
    cells = np.array(free)
    steps = np.abs(cells[:, None] - cells[None]).sum(-1).astype(float)
    steps[steps > 1] = np.inf
    for k in range(len(free)):
        steps = np.minimum(steps, steps[:, k : k + 1] + steps[k : k + 1])
    return {(a, b): steps[i, j] for i, a in enumerate(free) for j, b in enumerate(free)}


@pytest.mark.parametrize("maze", LAYOUTS)
def test_every_route_is_shortest(maze):
    grid = LAYOUTS[maze].walls
    for (start, goal), length in distances(grid).items():
        table, cell, steps = route_table(grid, goal), start, 0
        while cell != goal:
            following = table[cell]
            assert abs(following[0] - cell[0]) + abs(following[1] - cell[1]) == 1
            assert not grid[following]
            cell, steps = following, steps + 1
        assert steps == length


def test_pd_law_by_hand():
    grid, _ = walls("pointmaze-umaze")
    controller = WaypointController(grid)
    goal = centre(grid, (1, 1))
    state = np.array([goal[0] + 0.05, goal[1] - 0.02, 0.3, -0.1])
    assert controller.action(state, goal) == pytest.approx((-0.5 - 0.3, 0.2 + 0.1))
    # From (1, 3) the way to (3, 1) leads down through (2, 3): y is 1 m away, so -1 + 0.4.
    state = np.array([*centre(grid, (1, 3)), 0.0, -9.6])
    assert controller.action(state, centre(grid, (3, 1))) == pytest.approx((0.0, -0.4))


@pytest.mark.parametrize("task", ["pointmaze-medium", "pointmaze-large"])
def test_reaches_every_goal_and_stays(task):
    plant = make_plant(task)
    controller = WaypointController(walls(task)[0])
    noise = np.random.default_rng(0)
    steps = maze_task(task).layout.episode_steps
    for seed in range(20):
        plant.reset(seed)
        rewards = []
        while not (seen := plant.observe()).done:
            force = controller.action(seen.arrays[0], seen.arrays[2])
            action = np.clip(force + 0.1 * noise.standard_normal(2), -1, 1)
            plant.command(action.astype(np.float32), 0)
            rewards.append(plant.observe().reward)
        first = rewards.index(1.0)
        assert first < 0.6 * steps
        assert rewards[first:].count(1.0) == len(rewards) - first
