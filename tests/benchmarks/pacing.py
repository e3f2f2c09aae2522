"""Two ratios of the control loop to its floor, each measured in turns within one run.

``wake``: how late the ticks of the loop begin, beside an empty loop of the same pacer at the same
rate in the same process. The loop's ticks ask a policy server in a process of its own.

``answer``: from the observation in hand to the command sent, at 100 Hz, beside a bare ZeroMQ echo
paced alike plus one inference in this process. Both under the same scheduling.

``parts`` are the medians of what an answer is made of, and of the echo. With ``--busy`` a process
per core never rests. Microseconds; ours and its floor take turns, so that a change of the
machine meets both alike.

    python tests/benchmarks/pacing.py [--json] [--turns 10] [--seconds 6] [--rate 200] [--busy]
"""

import argparse
import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    # The libraries read this when numpy is imported.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np

from controller.clock import MonotonicClock
from controller.display import put_json, put_rows
from controller.endpoints import endpoint_for
from controller.floor import echo, lateness, load, pace
from controller.histogram import Histogram
from controller.host import examine_host
from controller.latency.endpoints import resting
from controller.launch import policy_server
from controller.loop import ControlLoop
from controller.loop_config import LoopConfig
from controller.pacer import choose_pacer
from controller.process import RuntimeDirectory, Supervisor
from controller.realtime import has_fifo, realtime_section, urgent
from controller.remote_policy import RemotePolicy
from controller.settings import PolicySettings
from controller.testing import ListSink
from controller.types import Request, Rung
from policies.engine import load_policy
from policies.untrained import untrained_bundle
from tests.benchmarks.sim_steps import commit_of

ANSWER_HZ = 100.0
AIMS = {"wake": 1.2, "answer": 1.3}
HEADER = bytes(64)


class Standing:
    """A plant that never moves: what is measured is the loop, not physics."""

    def __init__(self, spec, clock):
        self.spec, self._clock = spec, clock
        self._seen, self._episode, self._step = resting(spec), 0, 0

    def reset(self, seed=None):
        """Begin an episode, as far as that can be seen."""
        self._episode, self._step = self._episode + 1, -1

    def observe(self):
        """Return the observation of this moment."""
        self._step += 1
        now_ns = self._clock.now_ns()
        return replace(self._seen, stamp_ns=now_ns, episode=self._episode, step=self._step)

    def command(self, action, tick):
        """Take it."""

    def close(self):
        """Do nothing."""


class Bench:
    """A policy server, an echo and a local copy of the policy, with what measures them."""

    def __init__(self, stack, rate_hz):
        directory = Path(stack.enter_context(RuntimeDirectory()))
        bundle = untrained_bundle(directory, "consistency", 1)
        supervisor = stack.enter_context(Supervisor())
        endpoint = endpoint_for(directory, "policy")
        supervisor.start(policy_server(PolicySettings(bundle=str(bundle)), endpoint))
        self.clock, self.rate_hz = MonotonicClock(), rate_hz
        self.local = load_policy(bundle)
        with urgent():
            self.echo = stack.enter_context(echo(endpoint_for(directory, "echo")))
            self.policy = RemotePolicy(endpoint, self.local.spec, self.clock)
            stack.callback(self.policy.close)
            self.policy.connect(60.0)
        self.parts = {name: [] for name in ("transport", "queue", "infer", "act", "echo")}

    def loop(self, rate_hz, seconds):
        """Return the records of a loop of some seconds, those of its first tenth left out."""
        sink = ListSink()
        plant = Standing(self.local.spec, self.clock)
        config = LoopConfig(rate_hz=rate_hz, align=False)
        loop = ControlLoop(plant, self.policy, sink, self.clock, config, seed=0)
        loop.run(ticks=round(1.1 * seconds * rate_hz))
        return sink.records[round(0.1 * seconds * rate_hz) :]

    def empty(self, rate_hz, seconds):
        """Return how late the ticks of an empty loop begin."""
        return lateness(self.clock, rate_hz, 1.1 * seconds)[round(0.1 * seconds * rate_hz) :]

    def floor(self, seconds):
        """Return the durations of an echo and an inference, one pair a tick."""
        seen = resting(self.local.spec)
        frames = (HEADER, *(array.tobytes() for array in seen.arrays))
        taken = []

        def both(tick):
            began_ns = self.clock.now_ns()
            self.parts["echo"].append(self.echo.round_trip_ns(frames))
            self.local.infer(Request(tick, 0, seen, 0, 2**62))
            taken.append(self.clock.now_ns() - began_ns)

        pace(self.clock, ANSWER_HZ, 1.1 * seconds, both)
        return np.array(taken[round(0.1 * seconds * ANSWER_HZ) :], np.int64)


def measure(bench, turns, seconds):
    """Return durations in nanoseconds by name, and how many ticks had no fresh answer."""
    parts = {name: [] for name in ("wake", "bare wake", "answer", "floor")}
    fallbacks = 0
    with realtime_section(LoopConfig()):
        chosen = choose_pacer(LoopConfig())
        bench.clock.spin_ns = chosen.spin_ns
        for _ in range(turns):
            parts["bare wake"].append(bench.empty(bench.rate_hz, seconds))
            records = bench.loop(bench.rate_hz, seconds)
            parts["wake"].append(np.array([record.wake_ns for record in records]))
            fallbacks += sum(record.rung is not Rung.FRESH for record in records)
            parts["floor"].append(bench.floor(seconds))
            records = [each for each in bench.loop(ANSWER_HZ, seconds) if each.rung is Rung.FRESH]
            for name in ("transport", "queue", "infer", "act"):
                bench.parts[name] += [getattr(record, f"{name}_ns") for record in records]
            parts["answer"].append(
                np.array([r.total_ns - r.wake_ns - r.observe_ns for r in records])
            )
        medians = {name: round(float(np.median(ns)) / 1e3) for name, ns in bench.parts.items()}
        facts = {
            "parts": medians,
            "pacer": chosen.why,
            "realtime": has_fifo(),
            "fallbacks": fallbacks,
        }
    return {name: np.concatenate(each) for name, each in parts.items()}, facts


def rows_of(times, rate_hz):
    """Return one row for each ratio: ours, its floor, and the ratio at each percentile."""
    rows = []
    for ours, floor, hz in (("wake", "bare wake", rate_hz), ("answer", "floor", ANSWER_HZ)):
        mine, least = Histogram(times[ours]).quantiles(), Histogram(times[floor]).quantiles()
        row = {"what": ours, "rate_hz": hz, "samples": mine.samples, "aim": AIMS[ours]}
        for name in ("p50", "p99", "p99_9", "max"):
            own, bare = getattr(mine, name), getattr(least, name)
            row |= {name: own, f"floor_{name}": bare, f"ratio_{name}": round(own / bare, 2)}
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each part of a turn")
    parser.add_argument("--rate", type=float, default=200.0, help="of the loop, for its wake-ups")
    parser.add_argument("--busy", action="store_true", help="keep every core busy")
    given = parser.parse_args()
    host = examine_host(realtime=False)
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, given.rate)
        if given.busy:
            stack.enter_context(load(host.cores))
        times, facts = measure(bench, given.turns, given.seconds)
    rows = rows_of(times, given.rate)
    facts |= {"cpu": host.cpu, "cores": host.cores, "busy": given.busy, "commit": commit_of(".")}
    if given.json:
        put_json({**facts, "rows": rows})
        return 0
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    put_rows(rows, False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
