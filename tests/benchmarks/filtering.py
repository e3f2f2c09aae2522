"""What the safety filter and an idle door for people cost at a tick, beside clipping alone.

The ways take turns; each figure is the fastest of its turns, since whatever else runs on the
machine only takes away.

    python -m tests.benchmarks.filtering [--json] [--rounds 20] [--ticks 2000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from controller.clock import MonotonicClock
from controller.display import put_rows
from controller.host import examine_host
from controller.safety_filter import SafetyFilter
from controller.safety_settings import SafetySettings, WorkspaceAxis, WorkspaceSettings
from controller.spec import ArraySpec, Spec
from controller.teleop import Seat
from controller.teleop_server import TeleopServer
from controller.types import Mode, Observation, Rung
from tests.benchmarks.sim_steps import commit_of

SIZE = 7
SPEC = Spec(
    "arm",
    (ArraySpec("place", (SIZE,), "float64"), ArraySpec("pace", (SIZE,), "float64")),
    ArraySpec("drive", (SIZE,), "float32", low=(-1.0,) * SIZE, high=(1.0,) * SIZE),
    rate_hz=100.0,
)
BOX = WorkspaceSettings(
    tuple(WorkspaceAxis(f"place[{i}]", -1.0, 1.0, rate=f"pace[{i}]", action=i) for i in range(SIZE))
)
WAYS = {
    "limits": SafetySettings(),
    "slew": SafetySettings(slew_per_s=20.0),
    "slew, acceleration": SafetySettings(slew_per_s=20.0, acceleration_per_s2=500.0),
    "slew, acceleration, workspace": SafetySettings(
        slew_per_s=20.0, acceleration_per_s2=500.0, workspace=BOX
    ),
}


def clipping() -> Callable[[int], None]:
    """Return the floor: clip to the limits and nothing else."""
    low, high = (bound.astype(np.float32) for bound in SPEC.action.bounds())
    actions = _actions()
    return lambda tick: _drop(np.minimum(np.maximum(actions[tick % 64], low), high))


def filtering(settings: SafetySettings) -> Callable[[int], None]:
    """Return what filters the command of one tick."""
    safety, actions = SafetyFilter(SPEC, settings), _actions()
    seen = Observation((np.zeros(SIZE), np.zeros(SIZE)), 0)

    def tick(number: int) -> None:
        safety.look(seen)
        safety.command(number, Rung.FRESH, actions[number % 64])

    return tick


def waiting(seat: Seat) -> Callable[[int], None]:
    """Return what a tick does about people while nobody is there."""
    executed = np.zeros(SIZE, np.float32)

    def tick(number: int) -> None:
        seat.poll()
        seat.show(number, Mode.RUN, Rung.FRESH, executed)

    return tick


def measure(rounds: int, ticks: int) -> list[dict[str, Any]]:
    """Return a row for every way: microseconds per tick, and how many times clipping."""
    clock = MonotonicClock()
    with tempfile.TemporaryDirectory() as directory:
        door = TeleopServer(f"ipc://{directory}/teleop", SPEC, clock)
        seat = Seat(door, clock, 0.25, lambda kind, detail: None, None)
        ways = {"clipping": clipping()} | {name: filtering(s) for name, s in WAYS.items()}
        ways["a door, nobody there"] = waiting(seat)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, act in ways.items():
                begin = time.perf_counter()
                for number in range(ticks):
                    act(number)
                best[name] = min(best[name], (time.perf_counter() - begin) / ticks * 1e6)
        seat.close()
    floor = best["clipping"]
    return [
        {"way": name, "us": round(us, 2), "ratio": round(us / floor, 2)}
        for name, us in best.items()
    ]


def _actions() -> list[np.ndarray]:
    draws = np.random.default_rng(0).uniform(-1.2, 1.2, (64, SIZE)).astype(np.float32)
    return list(draws)


def _drop(array: np.ndarray) -> None:
    del array


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
        print(f"{SIZE} elements; ratio: to clipping alone")
    put_rows(rows, options.json)


if __name__ == "__main__":
    main()
