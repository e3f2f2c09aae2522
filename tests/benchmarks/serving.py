"""One policy server and 1 to 64 robots, each a process of its own that asks at a fixed rate.

Times are from a robot's tick to its answer, in microseconds: what a late wake-up costs is part of
them. A request that is not answered by the next tick is missed. ``batch`` is the mean number of
requests in one computation; ``queue`` and ``infer`` are the server's own figures; ``busy`` is the
share of one core that the server took; ``fairness`` is Jain's index of the shares answered.

With ``--swaps`` one robot at 200 Hz, without and with versions being swapped beside it all the
time; ``ratio_max`` is how much longer the longest wait was then.

    python tests/benchmarks/serving.py [--clients 1 2 4 8 16 32 64] [--rate 50] [--seconds 10]
        [--bundle hopper] [--engine numpy] [--phase spread|same] [--swaps 1000] [--json]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    # The libraries read this when numpy is imported.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np

from controller.clock import MonotonicClock
from controller.control import control
from controller.display import put_rows
from controller.endpoints import endpoint_for
from controller.host import examine_host
from controller.launch import command
from controller.process import Child, RuntimeDirectory, Supervisor
from controller.realtime import urgent
from controller.remote_policy import RemotePolicy
from controller.types import Observation, Request
from policies.bundle import load_bundle
from tests.benchmarks.sim_steps import commit_of

ROOT = Path(__file__).parents[2]
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
WARM_UP = 20
READY_S = 120.0
CLOCK = MonotonicClock()


def ask(endpoint, bundle, period_ns, ticks):
    """Say ``ready``, read the time of tick 0, ask at each tick; return what a robot saw.

    Args:
        endpoint: address of the server.
        bundle: whose robot this is.
        period_ns: time between ticks, and for each answer.
        ticks: how many count, after 20 that do not.
    """
    spec = load_bundle(bundle).spec
    draw = np.random.default_rng(0).standard_normal
    arrays = tuple(draw(array.shape).astype(array.dtype) for array in spec.observation)
    took_us, missed, versions = [], 0, set()
    with urgent():
        client = RemotePolicy(endpoint, spec, CLOCK)
        client.connect(READY_S)
        print("ready", flush=True)
        due_ns = int(sys.stdin.readline())
        for tick in range(-WARM_UP, ticks):
            CLOCK.sleep_until(due_ns)
            observation = Observation(arrays, due_ns)
            request = Request(tick + WARM_UP, 7, observation, 0, due_ns + period_ns)
            chunk = client.infer(request)
            if tick >= 0:
                took_us.append((CLOCK.now_ns() - due_ns) / 1e3)
                missed += chunk is None
                versions |= {chunk.version} if chunk else set()
            due_ns += period_ns
        client.close()
    return {"took_us": took_us, "missed": missed, "versions": sorted(versions)}


def robots(endpoint, given, count, period_ns, ticks):
    """Return what ``count`` robots saw, started together."""
    words = [
        sys.executable,
        __file__,
        "--robot",
        endpoint,
        given.bundle,
        str(period_ns),
        str(ticks),
    ]
    children = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        begin_ns = CLOCK.now_ns() + 200_000_000
        phases = np.random.default_rng(0).permutation(count) / count * (given.phase == "spread")
        for child, phase in zip(children, phases.tolist(), strict=True):
            child.stdin.write(f"{begin_ns + round(phase * period_ns)}\n")
            child.stdin.flush()
        return [json.loads(child.communicate()[0]) for child in children]
    finally:
        for child in children:
            child.kill()


def cpu_s(pid):
    """Return the processor time that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def served(given, measure):
    """Return what ``measure(endpoint, pid)`` finds with a server of its own."""
    with RuntimeDirectory() as directory, Supervisor() as supervisor:
        endpoint = endpoint_for(directory, "policy")
        words = (f"bundle={given.bundle}", f"endpoint={endpoint}", f"engine={given.engine}")
        child = supervisor.start(Child(command("serve", *words), "policy server"))
        control(endpoint, "ready", timeout_s=READY_S)
        return measure(endpoint, child.pid)


def crowd(given, count):
    """Return one row: so many robots."""
    period_ns, ticks = round(1e9 / given.rate), round(given.seconds * given.rate)

    def measure(endpoint, pid):
        before = cpu_s(pid), time.monotonic()
        seen = robots(endpoint, given, count, period_ns, ticks)
        busy = (cpu_s(pid) - before[0]) / (time.monotonic() - before[1])
        return seen, busy, control(endpoint, "stats", timeout_s=READY_S)

    seen, busy, stats = served(given, measure)
    return {
        "clients": count,
        "rate_hz": given.rate,
        "engine": given.engine,
        **figures(np.concatenate([one["took_us"] for one in seen])),
        "missed": sum(one["missed"] for one in seen),
        "asked": count * ticks,
        "batch": round(mean_batch(stats["batches"]), 2),
        "queue_p99": round(stats["queue_us"]["p99"], 1),
        "infer_p50": round(stats["infer_us"]["p50"], 1),
        "busy": round(busy, 3),
        "fairness": round(stats["fairness"], 4),
    }


def mean_batch(batches):
    """Return the mean size of computations that are counted by size."""
    return sum(int(size) * n for size, n in batches.items()) / sum(batches.values())


def figures(took_us):
    """Return quantiles of times in microseconds."""
    quantiles = np.percentile(took_us, (50, 99, 99.9, 100), method="higher")
    names = ("p50", "p99", "p99_9", "max")
    return dict(zip(names, np.round(quantiles, 1).tolist(), strict=True))


SWAPS = """
import sys
from controller.control import control
for _ in range(int(sys.argv[3])):
    control(sys.argv[1], "swap", {"bundle": sys.argv[2]}, timeout_s=60.0)
"""
SWAP_S = 0.025
"""Longest time that a swap is expected to take: so long the robot goes on."""


def swapped(given):
    """Return two rows: a robot at 200 Hz, left alone and beside swaps."""

    def measure(endpoint, pid):
        ticks = round(given.swaps * SWAP_S * 200)
        quiet = robots(endpoint, given, 1, 5_000_000, ticks)
        words = (sys.executable, "-c", SWAPS, endpoint, given.bundle, str(given.swaps))
        operator = subprocess.Popen(words, cwd=ROOT)
        try:
            beside = robots(endpoint, given, 1, 5_000_000, ticks)
        finally:
            operator.wait(READY_S + given.swaps)
        assert operator.returncode == 0
        return quiet + beside, control(endpoint, "stats", timeout_s=READY_S)["changes"]

    seen, changes = served(given, measure)
    rows = []
    for one, swaps in zip(seen, (0, changes["swap"]), strict=True):
        row = {"swaps": swaps, "asked": len(one["took_us"]), **figures(one["took_us"])}
        row["missed"] = one["missed"]
        row["ratio_max"] = round(row["max"] / rows[0]["max"], 2) if rows else 1.0
        rows.append(row)
    return rows


def parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--bundle", default="hopper")
    parser.add_argument("--engine", default="numpy")
    parser.add_argument("--phase", choices=("spread", "same"), default="spread")
    parser.add_argument("--swaps", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    if sys.argv[1:2] == ["--robot"]:
        endpoint, bundle, period_ns, ticks = sys.argv[2:]
        json.dump(ask(endpoint, bundle, int(period_ns), int(ticks)), sys.stdout)
        return 0
    given = parse()
    if not given.json:
        host = examine_host(realtime=False)
        print(f"{host.cpu}, {host.cores} cores, {given.bundle}, commit {commit_of(ROOT)}")
        print("p50, p99, p99.9 and max from tick to answer in us")
    rows = swapped(given) if given.swaps else [crowd(given, n) for n in given.clients]
    put_rows(rows, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
