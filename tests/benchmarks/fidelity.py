"""How close the D4RL tasks come to what is published.

    ONEBEAT_DATA=DIR python -m tests.benchmarks.fidelity docs/measurements

writes ``golden.json`` (distance from trajectories of MuJoCo 2.1.0) and ``returns.json`` (returns
of known policies), which ``onebeat sim table`` reads. The second needs the behaviour policies and
the published returns in DIR.
"""

import argparse
import json
import os
import sys
from itertools import chain
from pathlib import Path

import numpy as np

from sim.d4rl.antmaze import EVALUATION, TASKS
from sim.d4rl.antmaze_env import AntMazeEnv
from sim.d4rl.antmaze_waypoints import AntWaypoints
from sim.generate.behaviour import load_behaviour
from sim.registry import make_plant
from tests.golden import mujoco210
from tests.sim.d4rl.test_physics import GOLDEN, TOLERANCE, deviations

DATA = Path(os.environ.get("ONEBEAT_DATA", ""))
EPISODES = {"locomotion": 20, "antmaze": 100, "adroit": 100}
NOISE = 0.2
FOLDERS = {"walker2d": "walker"}


def trajectories():
    """Yield the largest deviation of a position from MuJoCo 2.1.0."""
    for robot in mujoco210.ROBOTS:
        for physics, bound in (("mujoco210", True), ("stock", False)):
            found = deviations(robot, physics, GOLDEN[robot])
            tested, largest = TOLERANCE[robot]
            for steps in sorted({50, 200, tested}):
                yield {
                    "task": "antmaze-umaze" if robot == "antmaze" else robot,
                    "reference": f"MuJoCo 2.1.0, physics={physics}",
                    "steps": steps,
                    "deviation": float(found[:steps].max()),
                    "bound": largest if bound and steps <= tested else None,
                }


def roll(task, behaviour, episodes):
    """Return (returns, lengths, successes) of a stochastic policy."""
    plant, rows = make_plant(task), []
    for episode in range(episodes):
        noise = np.random.default_rng([1, episode])
        plant.reset(episode)
        while not plant.observe().done:
            now = plant.observe()
            action = behaviour.act(now.arrays[0], noise)
            plant.command(np.clip(action, -1.0, 1.0).astype(plant.spec.action.dtype), now.step)
        now = plant.observe()
        rows.append((now.episode_return, now.step, now.success))
    plant.close()
    return np.array(rows, float).T


def snapshots():
    """Yield the returns of the SAC snapshots beside the published ones."""
    table = json.loads((DATA / "dope_published_returns.json").read_text())
    published = {row["policy_path"]: (row["return_mean"], row["return_std:"]) for row in table}
    for robot in ("halfcheetah", "hopper", "walker2d"):
        folder = FOLDERS.get(robot, robot)
        for index in range(11):
            path = DATA / "policies" / robot / f"sac_snapshot_{index:02d}.npz"
            returns, lengths, _ = roll(robot, load_behaviour(path), EPISODES["locomotion"])
            mean, std = published[f"{folder}/{folder}_online_{index}.pkl"]
            yield {
                "task": robot,
                "policy": f"SAC snapshot {index}",
                "mean": float(returns.mean()),
                "std": float(returns.std()),
                "episodes": len(returns),
                "published_mean": mean,
                "published_std": std,
                "length": float(lengths.mean()),
            }


def mazes():
    """Yield how often D4RL's navigation policy comes to the goal of the evaluation mazes."""
    behaviour = load_behaviour(DATA / "policies/antmaze/ant_navigation.npz")
    for task, maze in TASKS.items():
        if task.endswith("diverse"):
            continue
        env, planner = AntMazeEnv(EVALUATION[maze]), AntWaypoints(EVALUATION[maze])
        rows = [_walk(env, planner, behaviour, k) for k in range(EPISODES["antmaze"])]
        reached, steps = np.array(rows, float).T
        yield {
            "task": task,
            "policy": "D4RL's navigation policy and waypoints",
            "mean": float(reached.mean()),
            "std": float(reached.std()),
            "episodes": len(rows),
            "published_mean": None,
            "published_std": None,
            "quantity": "success",
            "length": float(steps.mean()),
        }


def _walk(env, planner, behaviour, episode):
    random = np.random.default_rng([2, episode])
    observation, _ = env.reset(seed=episode)
    step = 0
    while step < env.maze.episode_steps:
        step += 1
        direction = 10.0 * planner.direction(observation[:2], env.goal, random)
        action = behaviour.act(np.concatenate([observation[2:], direction]), random)
        action = action + NOISE * random.standard_normal(8)
        observation, _, reached, *_ = env.step(np.clip(action, -1.0, 1.0))
        if reached:
            break
    return reached, step


def hands():
    """Yield the returns of the experts that D4RL rolled out for pen and door."""
    for task, reference in (("pen", 3076.8331017826877), ("door", 2880.5693087298737)):
        behaviour = load_behaviour(DATA / f"policies/{task}/dapg_expert.npz")
        returns, lengths, success = roll(task, behaviour, EPISODES["adroit"])
        yield {
            "task": task,
            "policy": "DAPG expert, of D4RL's expert dataset",
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "episodes": len(returns),
            "published_mean": reference,
            "published_std": None,
            "length": float(lengths.mean()),
            "success": float(success.mean()),
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="where the files go")
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "golden.json", trajectories())
    if (DATA / "policies").is_dir():
        _write(directory / "returns.json", chain(snapshots(), mazes(), hands()))
    return 0


def _write(path, rows):
    lines = []
    for row in rows:
        lines.append(json.dumps(row))
        print(lines[-1], flush=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    sys.exit(main())
