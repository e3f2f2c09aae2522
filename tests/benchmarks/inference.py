"""Microseconds of one encoded action for one observation, on each engine, with one thread:

``hot``: calls back to back;
``act``: the same of the whole policy: noise drawn, observation normalised, action in the robot's
units, as the loop asks for it;
``paced``: 200 calls a second, asleep in between, as a control loop sees it;
``prewarmed``: the same with a dummy call 1 ms before the deadline;
``floor``: the matrix products of an action alone, hot.

Engines take turns. ``ratio_to_eager`` is how many times torch's time, one operation after the
other, a hot call fits; ``max_diff`` the largest difference from its actions, which are within
[-1, 1], over 200 draws. Sizes are those of HalfCheetah: 17 observed, 6 moved, 3 x 256 units;
the weights are random. With candidates, the twin critics' choice is part of the time.

    python tests/benchmarks/inference.py [POLICY ...] [--json] [--rounds 11] [--quick]
"""

import argparse
import os
import sys
import time
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
from policies.engine_shapes import critic_shapes, policy_shapes
from policies.local_policy import LocalPolicy
from policies.make_sampler import Samplers
from policies.model import (
    ChainSettings,
    ConsistencyModel,
    CriticSettings,
    DiffusionModel,
    GaussianModel,
    NetworkSettings,
)
from tests.benchmarks.sim_steps import commit_of
from tests.policies.weights import critics_of, draft_of, robot, weights_of

OBSERVATION, ACTION = 17, 6
PERIOD_S, PREWARM_S = 1 / 200, 1e-3
TURN_S, TICKS = 0.05, 20
WAYS = ("hot", "act", "paced", "prewarmed")
CRITIC = CriticSettings()
POLICIES = {
    "consistency": ConsistencyModel(),
    "consistency_resnet": ConsistencyModel(NetworkSettings("ln_resnet")),
    "diffusion": DiffusionModel(),
    "gaussian": GaussianModel(hidden=(256, 256, 256)),
}
CASES = (
    ("consistency", 1, 1),
    ("consistency", 2, 1),
    ("diffusion", 5, 1),
    ("diffusion", 20, 1),
    ("diffusion", 50, 1),
    ("gaussian", 1, 1),
    ("consistency_resnet", 1, 1),
    ("consistency", 1, 50),
    ("consistency", 2, 50),
    ("diffusion", 5, 50),
    ("gaussian", 1, 50),
)
"""Policy, steps, candidates."""


class Case:
    """A policy of random weights on every engine there is.

    Args:
        policy: its name.
        steps: network evaluations of an action.
        candidates: drawn for each action.
    """

    def __init__(self, policy, steps, candidates):
        self.policy, self.steps, self.candidates = policy, steps, candidates
        self.model = POLICIES[policy]
        if isinstance(self.model, DiffusionModel):
            self.model = DiffusionModel(chain=ChainSettings(steps))
        rng = np.random.default_rng(0)
        self.about = draft_of(self.model, critic=CRITIC, spec=robot(OBSERVATION, ACTION))
        self.condition = rng.standard_normal((200, 1, OBSERVATION)).astype(np.float32)
        shape = (200, steps, candidates, ACTION)
        self.noise = rng.standard_normal(shape).astype(np.float32)
        self.act = ActSettings(self.steps, self.candidates, "argmax")
        self.samplers = {key: self._samplers(*key) for key in engines()}
        settings = self.about.sampler.changed(self.act)
        self.engines = {key: each.of(settings) for key, each in self.samplers.items()}

    def _samplers(self, engine, device):
        return Samplers(
            self.about,
            weights_of(self.model, OBSERVATION, ACTION),
            critics_of(CRITIC, OBSERVATION, ACTION),
            engine,
            device,
        )

    def call(self, sampler):
        """Return a function that draws the k-th action."""
        condition, noise = self.condition, self.noise
        return lambda k: sampler(condition[k % 200], noise[k % 200])

    def acting(self, key):
        """Return a function that asks the whole policy for its k-th action."""
        about, samplers = self.about, self.samplers[key]
        policy = LocalPolicy(about, about.codec, samplers, MonotonicClock(), self.act)
        rows = self.condition[:, 0].astype(np.float64)
        return lambda k: policy.act((rows[k % 200],), 0, k)

    def calls(self):
        """Return what is timed: the engines, and the products alone."""
        made = {key: self.call(sampler) for key, sampler in self.engines.items()}
        return made | {("floor", "cpu"): products(self.model, self.steps, self.candidates)}

    def differences(self):
        """Return how far each engine's actions are from torch's."""
        acts = {
            key: np.concatenate([call(k) for k in range(200)])
            for key, call in ((key, self.call(each)) for key, each in self.engines.items())
        }
        return {key: float(np.abs(got - acts["torch", "cpu"]).max()) for key, got in acts.items()}


def engines():
    """Return the engines and devices that are here."""
    here = [("torch", "cpu"), ("numpy", "cpu"), ("onnx", "cpu")]
    return here + [("torch", "cuda")] * torch.cuda.is_available()


def products(model, steps, candidates):
    """Return a function that does the matrix products of an action and nothing else."""
    rng = np.random.default_rng(0)
    # The features of the noise level are the same for every action.
    known = 0 if isinstance(model, GaussianModel) else model.network.time_features
    own = policy_shapes(model, OBSERVATION - known, ACTION)
    layers = [s for name, s in own.items() if len(s) == 2 and not name.startswith("time.")]
    scored = critic_shapes(CRITIC, OBSERVATION, ACTION).values() if candidates > 1 else ()
    pairs = [_pair(rng, shape, candidates) for shape in layers] * steps
    pairs += [_pair(rng, shape, candidates) for shape in scored if len(shape) == 3]
    product = np.dot if candidates == 1 else np.matmul

    def multiply(_):
        for left, right, out in pairs:
            product(left, right, out=out)

    return multiply


def _pair(rng, shape, rows):
    """Return the factors of a layer's product and room for it."""
    *stack, outputs, inputs = shape
    matrix = rng.standard_normal(shape).astype(np.float32)
    given = rng.standard_normal((*stack, rows, inputs)).astype(np.float32)
    if rows == 1:
        return matrix, given[0], np.empty(outputs, np.float32)
    turned = np.ascontiguousarray(matrix.swapaxes(-1, -2))
    return given, turned, np.empty((*stack, rows, outputs), np.float32)


def hot(call, times):
    """Return the microseconds of each of some calls back to back."""
    taken = np.empty(times)
    for k in range(times):
        start = time.perf_counter_ns()
        call(k)
        taken[k] = time.perf_counter_ns() - start
    return taken / 1e3


def paced(call, ticks, prewarm=False):
    """Return the microseconds of each call of some ticks."""
    taken = np.empty(ticks)
    deadline = time.perf_counter()
    for k in range(ticks):
        deadline += PERIOD_S
        if prewarm:
            sleep_until(deadline - PREWARM_S)
            call(k + 1)
        sleep_until(deadline)
        start = time.perf_counter_ns()
        call(k)
        taken[k] = time.perf_counter_ns() - start
    return taken / 1e3


def sleep_until(moment):
    """Sleep until a time of ``perf_counter``."""
    time.sleep(max(0.0, moment - time.perf_counter()))


def measure(case, rounds):
    """Return one row of figures for each engine."""
    calls = case.calls()
    counts = {key: max(5, int(TURN_S * 1e6 / np.median(hot(c, 20)))) for key, c in calls.items()}
    acting = {key: case.acting(key) for key in case.engines}
    ways = {way: {} for way in WAYS}
    for _ in range(rounds):
        for key, call in calls.items():
            ways["hot"].setdefault(key, []).append(hot(call, counts[key]))
            if key[0] != "floor":
                ways["act"].setdefault(key, []).append(hot(acting[key], counts[key]))
                ways["paced"].setdefault(key, []).append(paced(call, TICKS))
                ways["prewarmed"].setdefault(key, []).append(paced(call, TICKS, prewarm=True))
    return rows_of(case, ways)


def rows_of(case, ways):
    """Return the figures of a case, from all its times in microseconds."""
    times = {
        way: {key: np.concatenate(turns) for key, turns in taken.items()}
        for way, taken in ways.items()
    }
    eager = np.median(times["hot"]["torch", "cpu"])
    floor = round(float(np.median(times["hot"]["floor", "cpu"])), 1)
    rows = []
    for (engine, device), difference in case.differences().items():
        row = {"engine": engine, "device": device, "policy": case.policy, "steps": case.steps}
        row["candidates"] = case.candidates
        for way, taken in times.items():
            p50, p99 = np.percentile(taken[engine, device], (50, 99)).tolist()
            row |= {f"{way}_us_p50": round(p50, 1), f"{way}_us_p99": round(p99, 1)}
        ratio = eager / np.median(times["hot"][engine, device])
        row |= {"ratio_to_eager": round(float(ratio), 2), "max_diff": float(f"{difference:.2g}")}
        rows.append(row | {"floor_us_p50": floor if device == "cpu" else None})
    return rows


def parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policies", nargs="*", help=f"of {', '.join(POLICIES)}; all by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one round: to see that it works")
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    if unknown := [name for name in given.policies if name not in POLICIES]:
        parser.error(f"{', '.join(unknown)}: expected {', '.join(POLICIES)}")
    return given


def main():
    given = parse()
    torch.set_num_threads(1)
    rows = []
    for policy, steps, candidates in CASES:
        if policy in (given.policies or POLICIES):
            rows += measure(Case(policy, steps, candidates), 1 if given.quick else given.rounds)
            print(f"{policy} {steps}, {candidates} candidates: done", file=sys.stderr)
    if not given.json:
        host = examine_host(realtime=False)
        print(f"{host.cpu}, {host.cores} cores, torch {torch.__version__}, commit {commit_of('.')}")
        print("p50 / p99 in us; ratio is to torch on the CPU, hot")
    put_rows(rows if given.json else [told(row) for row in rows], given.json)
    return 0


def told(row):
    """Return a row for people: p50, and p99 where the tail matters, in one column."""
    many = f" x{row['candidates']}" * (row["candidates"] > 1)
    short = {
        "policy": f"{row['policy']} {row['steps']}{many}",
        "engine": row["engine"] if row["device"] == "cpu" else f"{row['engine']} {row['device']}",
    }
    for way in WAYS:
        tail = f" / {row[f'{way}_us_p99']:.0f}" * (way in ("hot", "paced"))
        short[way] = f"{row[f'{way}_us_p50']:.0f}{tail}"
    return short | {"ratio": row["ratio_to_eager"], "differs": row["max_diff"]}


if __name__ == "__main__":
    sys.exit(main())
