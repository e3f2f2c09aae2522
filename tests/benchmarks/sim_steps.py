"""Steps per second of each family of tasks, with the same random actions, resets included:

(a) ``bare``: the package the task comes from, stepped in a plain loop;
(b) ``lockstep``: our plant, ``command`` and ``observe``;
(c) ``vector``: our vectorised plant, 16 copies over the processors;
(d) ``zmq``: our plant in another process, behind ``onebeat sim serve mode=lockstep`` over ipc.

The four take turns of 0.4 s; each figure is the fastest of its turns, since whatever
else runs on the machine only takes away. Ratios are to (a).

    python tests/benchmarks/sim_steps.py [TASK ...] [--json] [--rounds 8]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from controller.display import put_json
from controller.endpoints import endpoint_for
from controller.host import examine_host
from controller.interfaces import Plant
from controller.lockstep_client import LockstepPlant
from controller.process import Child
from controller.safety import Limits
from sim.env import quiet_import
from sim.registry import make_plant, task_named, tasks
from sim.vector import make_vector

COPIES = 16
TURN_S = 0.4
POOL = 512
"""Different actions, used again and again."""

BARE = {
    "halfcheetah": "gymnasium HalfCheetah-v4",
    "hopper": "gymnasium Hopper-v4",
    "antmaze-umaze": "gymnasium_robotics AntMaze_UMaze-v5",
    "pen": "gymnasium_robotics AdroitHandPen-v1",
    "kitchen-complete": "gymnasium_robotics FrankaKitchen-v1",
    "pointmaze-umaze": "gymnasium_robotics PointMaze_UMaze-v3",
    "maze2d-umaze": "gymnasium_robotics PointMaze_UMaze-v3",
    "FetchReach-v4": "gymnasium_robotics FetchReach-v4",
    "HandReach-v3": "gymnasium_robotics HandReach-v3",
    "dmc-cheetah-run": "dm_control cheetah-run",
}
"""Task -> the package and its name there. AntMaze's robot there is another one."""

Step = Callable[[Any], bool]
Turn = Callable[[int], int]
"""Steps that many times and returns how many steps that made."""


def bare(name: str) -> tuple[Step, Callable[[], object]]:
    """Return ``step(action) -> whether the episode ended`` and ``reset``."""
    package, _, task = name.partition(" ")
    if package == "dm_control":
        from dm_control import suite

        physics = suite.load(*task.split("-"), task_kwargs={"random": 0})
        return (lambda action: physics.step(action).last()), physics.reset
    import gymnasium

    if package == "gymnasium_robotics":
        with quiet_import():
            import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(task).unwrapped

    def step(action: Any) -> bool:
        return env.step(action)[2]

    env.reset(seed=0)
    return step, env.reset


def turns_of_bare(task: str, actions: Any, limit: int) -> Turn:
    step, reset = bare(BARE[task])
    reset()
    since = 0

    def turn(count: int) -> int:
        nonlocal since
        for k in range(count):
            since += 1
            if step(actions[k % POOL]) or since >= limit:
                reset()
                since = 0
        return count

    return turn


def turns_of(plant: Plant, actions: Any) -> Turn:
    plant.reset(0)

    def turn(count: int) -> int:
        for k in range(count):
            plant.command(actions[k % POOL], k)
            if plant.observe().done:
                plant.reset()
        return count

    return turn


def turns_of_vector(vector: Any, actions: Any) -> Turn:
    vector.reset(0)

    def turn(count: int) -> int:
        batches = max(1, count // COPIES)
        for k in range(batches):
            at = k * COPIES % (POOL - COPIES)
            vector.step(actions[at : at + COPIES])
        return batches * COPIES

    return turn


@contextlib.contextmanager
def served(task: str) -> Iterator[LockstepPlant]:
    """Serve a task in another process and connect to it."""
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        endpoint = endpoint_for(path, "p")
        words = ["sim", "serve", task, "mode=lockstep", f"endpoint={endpoint}"]
        child = Child([sys.executable, "-m", "controller.cli", *words], "the server").start()
        plant = LockstepPlant(endpoint, connect_timeout_s=60.0)
        try:
            plant.connect()
            yield plant
        finally:
            plant.close()
            child.stop()


def measure(task: str, rounds: int, processes: int | None) -> dict[str, Any]:
    """Return one row of figures."""
    facts = task_named(task)
    limits = Limits.of(facts.spec())
    low, high = (np.clip(x, -1.0, 1.0).astype(np.float64) for x in (limits.low, limits.high))
    drawn = np.random.default_rng(0).uniform(low, high, (POOL, *facts.spec().action.shape))
    actions = drawn.astype(facts.spec().action.dtype)
    with contextlib.ExitStack() as stack:
        vector = stack.enter_context(make_vector(task, COPIES, processes=processes))
        plant = make_plant(task)
        stack.callback(plant.close)
        turns = {
            "bare": turns_of_bare(task, actions, facts.episode_steps),
            "lockstep": turns_of(plant, actions),
            "vector": turns_of_vector(vector, actions),
            "zmq": turns_of(stack.enter_context(served(task)), actions),
        }
        best = dict.fromkeys(turns, 0.0)
        counts = dict.fromkeys(turns, COPIES)
        for _ in range(rounds + 1):
            for name, turn in turns.items():
                begun = time.perf_counter()
                made = turn(counts[name])
                rate = made / (time.perf_counter() - begun)
                best[name] = max(best[name], rate)
                counts[name] = max(COPIES, round(rate * TURN_S))
    rates = {name: round(rate, 1) for name, rate in best.items()}
    ratios = {name: round(best[name] / best["bare"], 3) for name in best if name != "bare"}
    return {"task": task, "family": facts.family, **rates, "ratios": ratios, "of": BARE[task]}


def show(rows: list[dict[str, Any]], commit: str) -> None:
    """Print a table for people."""
    host = examine_host(realtime=False)
    print(f"{host.cpu}, {host.cores} cores, {host.kernel}, {host.python}, commit {commit}")
    print(f"{'task':<18}{'bare':>9}{'lockstep':>10}{'vector':>9}{'zmq':>9}   ratios to bare")
    for row in rows:
        figures = "".join(f"{row[k]:>{w},.0f}" for k, w in zip(KINDS, (9, 10, 9, 9), strict=True))
        ratios = "  ".join(f"{name} {ratio:.2f}" for name, ratio in row["ratios"].items())
        print(f"{row['task']:<18}{figures}   {ratios}  ({row['of']})")


KINDS = ("bare", "lockstep", "vector", "zmq")


def commit_of(root: Path) -> str:
    """Return the commit of the working tree, empty outside a repository."""
    git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Measure the named tasks, one of each family by default."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(BARE)}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--processes", type=int, default=None, help="of the vector")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    names = given.tasks or [name for name in BARE if name in tasks()]
    if unknown := [name for name in names if name not in BARE]:
        parser.error(f"{', '.join(unknown)}: expected {', '.join(BARE)}")
    rows = []
    for name in names:
        rows.append(measure(name, given.rounds, given.processes))
        print(f"{name}: {rows[-1]['ratios']}", file=sys.stderr)
    if given.json:
        put_json(rows)
    else:
        show(rows, commit_of(Path(__file__).parents[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
