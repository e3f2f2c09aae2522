"""What the ladder costs at a tick, asked at each tick and ahead, beside the policy's call alone.

The policy answers at once and the clock is virtual, so that only our own work is timed. The ways
take turns; each figure is the fastest of its turns, since whatever else runs on the machine only
takes away.

    python -m tests.benchmarks.asking [--json] [--rounds 20] [--ticks 2000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from controller.chunk_settings import ChunkSettings
from controller.clock import VirtualClock
from controller.display import put_rows
from controller.host import examine_host
from controller.ladder import Ladder, Notices, Patience
from controller.pacing import Tick
from controller.testing import ListSink, example_spec
from controller.types import ActionChunk, Observation, Request
from tests.benchmarks.sim_steps import commit_of

PERIOD_NS = 10_000_000
WAYS = {
    "each_tick": ChunkSettings(),
    "ahead": ChunkSettings(ask="ahead"),
    "ahead, blend 4, prefix 4": ChunkSettings(ask="ahead", blend=4, prefix=4),
}


class Instant:
    """Answers at once with the same rows."""

    version = "instant"

    def __init__(self, horizon: int) -> None:
        self.spec = example_spec()
        self._rows = np.zeros((horizon, 2), np.float32)

    def infer(self, request: Request) -> ActionChunk:
        return ActionChunk(request.tick, self._rows, self.version)

    def close(self) -> None:
        pass


def deciding(horizon: int, chunks: ChunkSettings) -> Callable[[int], None]:
    """Return what decides one tick."""
    clock = VirtualClock()
    ladder = Ladder(
        Instant(horizon),
        None,
        example_spec(),
        clock,
        seed=1,
        patience=Patience(PERIOD_NS, 6_000_000, 5 * PERIOD_NS, 10**12),
        safe=np.zeros(2, np.float32),
        notify=Notices(ListSink(), clock),
        chunks=chunks,
    )
    arrays = (np.zeros(2), np.ones(2))

    def decide(k: int) -> None:
        clock.sleep_until(k * PERIOD_NS)
        ladder.decide(Tick(k, k * PERIOD_NS, k * PERIOD_NS), Observation(arrays, k * PERIOD_NS))

    return decide


def bare(horizon: int) -> Callable[[int], None]:
    """Return what asks the policy, and does nothing else."""
    policy, arrays = Instant(horizon), (np.zeros(2), np.ones(2))

    def call(k: int) -> None:
        policy.infer(Request(k, 1, Observation(arrays, 0), 0, 0)).at(k)

    return call


def measure(rounds: int, ticks: int) -> list[dict[str, Any]]:
    """Return rows {horizon, way, us, ratio}; the ratio is to the call alone."""
    ways: dict[tuple[int, str], Callable[[int], None]] = {}
    for horizon in (4, 16, 64):
        ways[horizon, "call alone"] = bare(horizon)
        for name, chunks in WAYS.items():
            ways[horizon, name] = deciding(horizon, chunks)
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds):
        for key, way in ways.items():
            began = time.perf_counter()
            for k in range(turn * ticks, (turn + 1) * ticks):
                way(k)
            best[key] = min(best[key], (time.perf_counter() - began) / ticks)
    return [
        {
            "horizon": horizon,
            "way": name,
            "us": round(best[horizon, name] * 1e6, 2),
            "ratio": round(best[horizon, name] / best[horizon, "call alone"], 2),
        }
        for horizon, name in ways
    ]


def main() -> None:
    """Print the table."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--json", action="store_true")
    words.add_argument("--rounds", type=int, default=20)
    words.add_argument("--ticks", type=int, default=2000)
    options = words.parse_args()
    rows = measure(options.rounds, options.ticks)
    if not options.json:
        host = examine_host(realtime=False)
        print(f"{host.cpu}, {host.cores} cores, commit {commit_of('.')}")
        print("ratio: to the policy's call alone")
    put_rows(rows, options.json)


if __name__ == "__main__":
    main()
