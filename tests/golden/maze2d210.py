"""What D4RL's ball does in MuJoCo 2.1.0: into walls and along them, for 300 steps a maze.

``python -m tests.golden.maze2d210`` writes the golden file anew, with the library that
``tests.golden.mujoco210`` tells of.
"""

import sys
from pathlib import Path

import numpy as np

from sim.d4rl.maze2d import MAZE2D, SPEED_LIMIT
from sim.d4rl.maze2d_env import ball_in_maze
from tests.golden.mujoco210 import Simulation

GOLDEN = Path(__file__).parent / "maze2d210.npz"
TASKS = ("maze2d-open", "maze2d-umaze", "maze2d-large")
STEPS, HELD = 300, 25


def scenario(task):
    """Return the start (4,) and 300 actions in [-1, 1]: pushes that last, and noise on them."""
    random = np.random.RandomState(TASKS.index(task))
    pushes = np.repeat(random.uniform(-1.3, 1.3, (STEPS // HELD, 2)), HELD, axis=0)
    actions = np.clip(pushes + 0.2 * random.standard_normal((STEPS, 2)), -1.0, 1.0)
    return np.array([1.05, 0.95, 0.1, -0.1]), actions


def trajectory(task):
    """Return the states (STEPS, 4): D4RL clips the speed and evaluates the state before a step."""
    start, actions = scenario(task)
    simulation = Simulation(ball_in_maze(MAZE2D[task].layout.walls), 2, 2, 2)
    simulation.set_state(start[:2], start[2:])
    states = []
    for action in actions:
        simulation.qvel[:] = np.clip(simulation.qvel, -SPEED_LIMIT, SPEED_LIMIT)
        simulation.forward()
        simulation.step(action, 1)
        states.append(np.concatenate([simulation.qpos, simulation.qvel]))
    simulation.close()
    return np.array(states)


def main():
    np.savez_compressed(GOLDEN, **{task: trajectory(task) for task in TASKS})
    return 0


if __name__ == "__main__":
    sys.exit(main())
