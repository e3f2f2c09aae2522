"""Microseconds of one computation that answers a batch of requests, back to back, one thread.

``us_p50`` and ``us_p99`` are of the whole batch: noise of each request drawn, observations
normalised, answers in the robot's units; ``per_request`` shares them out; ``ratio`` is how many
times as long the same requests take one by one. With a prefix, each request brings 2 rows that
are decided already, and 32 answers are drawn to find one that goes on from them. Batches take
turns. Sizes are those of HalfCheetah: 17 observed, 6 moved, 3 x 256 units; the weights are random.

    python tests/benchmarks/batches.py [--json] [--rounds 11] [--engine numpy ...] [--quick]
"""

import argparse
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    # The libraries read this when numpy is imported.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
import torch

from controller.acting import ActSettings
from controller.clock import MonotonicClock
from controller.display import put_rows
from controller.host import examine_host
from controller.types import Observation, Request
from policies.local_policy import LocalPolicy
from policies.make_sampler import Samplers
from policies.model import ConsistencyModel, DiffusionModel
from tests.benchmarks.inference import ACTION, OBSERVATION, engines, hot
from tests.benchmarks.sim_steps import commit_of
from tests.policies.weights import draft_of, robot, weights_of

BATCHES = (1, 2, 4, 8, 16, 32, 64)
PREFIX = 2
TURN_S = 0.03
CASES = (
    ("consistency", 1, 1, 0),
    ("consistency", 2, 1, 0),
    ("diffusion", 5, 1, 0),
    ("consistency", 1, 8, 0),
    ("consistency", 1, 16, 0),
    ("consistency", 1, 8, PREFIX),
    ("diffusion", 5, 8, 0),
    ("diffusion", 5, 8, PREFIX),
)
"""Policy, steps, rows of an answer, rows of the prefix."""
MODELS = {"consistency": ConsistencyModel(), "diffusion": DiffusionModel()}


def policy_of(name, steps, horizon, key):
    """Return a policy of random weights on an engine."""
    about = draft_of(MODELS[name], spec=robot(OBSERVATION, ACTION), horizon=horizon)
    weights = weights_of(MODELS[name], OBSERVATION, horizon * ACTION)
    samplers = Samplers(about, weights, None, *key)
    return LocalPolicy(about, about.codec, samplers, MonotonicClock(), ActSettings(steps=steps))


def requests_of(prefix):
    """Return as many requests as the largest batch has."""
    rng = np.random.default_rng(0)
    begin = np.zeros((prefix, ACTION), np.float32) if prefix else None
    seen = rng.standard_normal((BATCHES[-1], OBSERVATION))
    return [Request(k, 0, Observation((row,), 0), 0, 0, begin) for k, row in enumerate(seen)]


def measure(case, key, rounds):
    """Return one row of figures for each batch."""
    name, steps, horizon, prefix = case
    policy, requests = policy_of(name, steps, horizon, key), requests_of(prefix)
    calls = {size: lambda _, size=size: policy.infer_batch(requests[:size]) for size in BATCHES}
    counts = {size: max(5, int(TURN_S * 1e6 / np.median(hot(c, 7)))) for size, c in calls.items()}
    turns = {size: [] for size in BATCHES}
    for _ in range(rounds):
        for size, call in calls.items():
            turns[size].append(hot(call, counts[size]))
    times = {size: np.concatenate(taken) for size, taken in turns.items()}
    alone = np.median(times[1])
    told = {"engine": key[0], "device": key[1], "policy": name, "steps": steps}
    told |= {"horizon": horizon, "prefix": prefix}
    return [told | figures(size, taken, alone) for size, taken in times.items()]


def figures(size, taken, alone):
    """Return what a batch of ``size`` took, beside one request alone; microseconds."""
    p50, p99 = np.percentile(taken, (50, 99)).tolist()
    share, ratio = p50 / size, float(alone) * size / p50
    measured = {"us_p50": p50, "us_p99": p99, "per_request": share}
    rounded = {name: round(value, 1) for name, value in measured.items()}
    return {"batch": size} | rounded | {"ratio": round(ratio, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one round: to see that it works")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--engine", nargs="+", choices=["numpy", "torch", "onnx"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for key in engines():
        if given.engine is None or key[0] in given.engine:
            for case in CASES:
                rows += measure(case, key, 1 if given.quick else given.rounds)
            print(f"{key[0]} {key[1]}: done", file=sys.stderr)
    if not given.json:
        host = examine_host(realtime=False)
        print(f"{host.cpu}, {host.cores} cores, torch {torch.__version__}, commit {commit_of('.')}")
        print("p50 / p99 in us; rows: of an answer, + those decided already; ratio: to one by one")
    put_rows(rows if given.json else [told(row) for row in rows], given.json)
    return 0


def told(row):
    """Return a row for people, in few columns."""
    on = row["engine"] if row["device"] == "cpu" else f"{row['engine']} {row['device']}"
    begun = f" + {row['prefix']}" * (row["prefix"] > 0)
    short = {"policy": f"{row['policy']} {row['steps']}", "rows": f"{row['horizon']}{begun}"}
    short |= {"engine": on, "batch": row["batch"]}
    short["us"] = f"{row['us_p50']:.0f} / {row['us_p99']:.0f}"
    return short | {"each": row["per_request"], "ratio": row["ratio"]}


if __name__ == "__main__":
    sys.exit(main())
