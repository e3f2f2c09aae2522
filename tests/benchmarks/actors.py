"""What an actor in lockstep costs per tick, and how close fine-tuning comes to its slower half.

``parts`` are microseconds of the processor per tick in one process, one thing added after the
other: physics alone (``plant``), with the policy's answers (``bare``: the floor), in the control
loop (``loop``), with the log of ``onebeat run`` (``log``); or with an actor's log and rows, block
by block (``rows``). They take turns; a figure is the best of them.
``whole`` is an actor with a replay service, as processes, by the rows that the service has.
``finetune`` runs the whole of ``onebeat finetune --live`` in lockstep, with 1 update per step; with
very few, where actors are all that is waited for; and with very many, where the learner is.

    OMP_NUM_THREADS=1 python tests/benchmarks/actors.py [--task hopper] [--seconds 20] [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from controller.cli.sources import open_plant
from controller.clock import VirtualClock
from controller.config import to_yaml
from controller.control import control
from controller.display import put_json, say
from controller.endpoints import endpoint_for
from controller.fault_settings import FaultsConfig
from controller.feed.rows import Float32
from controller.host import examine_host
from controller.interfaces import Plant, Policy, Sink
from controller.launch import command
from controller.log import McapSink
from controller.loop import ControlLoop, LoopConfig
from controller.process import Child, RuntimeDirectory, Supervisor
from controller.session import header
from controller.settings import RunConfig
from controller.status import StatusBoard
from controller.tuning.actor import RowSink
from controller.tuning.courier import Courier
from controller.types import Request, TickRecord
from policies.bundle import publish
from policies.engine import load_policy
from policies.finetuning.settings import FinetuneConfig, LearnSettings, ReplaySettings

ROUNDS = 7
TICKS = 3_000


class Nowhere:
    """A sink that takes everything and keeps nothing."""

    def tick(self, record: TickRecord) -> bool:
        """Take one tick."""
        return True

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Take one event."""
        return True

    def close(self) -> None:
        """Do nothing."""


class NoCourier:
    """Takes rows and sends them nowhere."""

    def deliver(self, rows: Float32, versions: tuple[str, ...]) -> None:
        """Take rows."""

    def finish(self, rows: Float32, versions: tuple[str, ...], timeout_s: float) -> None:
        """Take the last rows."""


def parts(task: str, bundle: str, directory: Path) -> dict[str, float]:
    """Return microseconds per tick of one thing added after the other."""
    plant = open_plant(task, 0, FaultsConfig(), directory)
    policy = load_policy(bundle, max_batch=1)
    config = RunConfig(task=task, mode="lockstep", seconds=None)

    status = StatusBoard(directory / "status.bin", create=True)
    courier = cast("Courier", NoCourier())

    def nothing() -> None:
        pass

    def log() -> Sink:
        return McapSink(directory / "log.mcap", header(config, plant.spec, {}, {}))

    works: dict[str, Callable[[], float]] = {
        "plant": lambda: _stepped(plant, None),
        "bare": lambda: _stepped(plant, policy),
        "loop": lambda: _looped(plant, policy, Nowhere()),
        "log": lambda: _looped(plant, policy, log()),
        "rows": lambda: _looped(
            plant, policy, RowSink(log(), plant.spec, courier, status, nothing)
        ),
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            best[name] = min(best[name], work())
    plant.close()
    return best


def _stepped(plant: Plant, policy: Policy | None) -> float:
    still = np.zeros(plant.spec.action.shape, plant.spec.action.dtype)
    plant.reset(0)
    begun_ns = time.process_time_ns()
    for tick in range(TICKS):
        seen = plant.observe()
        if seen.done:
            plant.reset()
            seen = plant.observe()
        chunk = policy.infer(Request(tick, 0, seen, 0, 0)) if policy else None
        plant.command(still if chunk is None else chunk.actions[0], tick)
    return (time.process_time_ns() - begun_ns) / TICKS / 1e3


def _looped(plant: Plant, policy: Policy, sink: Sink) -> float:
    loop = ControlLoop(plant, policy, sink, VirtualClock(), LoopConfig(), seed=0)
    begun_ns = time.process_time_ns()
    loop.run(ticks=TICKS)
    took_us = (time.process_time_ns() - begun_ns) / TICKS / 1e3
    sink.close()
    return took_us


def whole(task: str, bundle: str, directory: Path, seconds: float) -> dict[str, float]:
    """Return what an actor and its replay service make of a while, without a learner."""
    out = directory / "whole"
    first = publish(bundle, out / "bundles")
    with RuntimeDirectory() as sockets, Supervisor() as supervisor:
        endpoint = endpoint_for(sockets, "replay")
        config = FinetuneConfig(
            parent=str(first), task=task, live=True, mode="lockstep", out=str(out),
            replay=ReplaySettings(endpoint=endpoint),
        )  # fmt: skip
        (out / "finetune.yaml").write_text(to_yaml(config))
        settings = f"settings={out}/finetune.yaml"
        served = supervisor.start(Child(command("finetune replay", settings), "replay"))
        supervisor.wait_until(Path(endpoint.removeprefix("ipc://")).exists, 30, "replay")
        control(endpoint, "publish", {"bundle": str(first)}, timeout_s=10)
        actor = supervisor.start(Child(command("finetune actor", settings), "actor"))

        def inserted() -> int:
            return int(control(endpoint, "stats", {}, timeout_s=10)["inserted"])

        supervisor.wait_until(lambda: inserted() > 1000, 60, "rows")
        before, cpu, begun_s = inserted(), (_cpu_s(actor), _cpu_s(served)), time.monotonic()
        time.sleep(seconds)
        rows, took_s = inserted() - before, time.monotonic() - begun_s
        used = _cpu_s(actor) - cpu[0], _cpu_s(served) - cpu[1]
        actor.stop()
    return {
        "rows_per_s": rows / took_s,
        "us_per_row": took_s / rows * 1e6,
        "actor_cpu_us": used[0] / rows * 1e6,
        "service_cpu_us": used[1] / rows * 1e6,
    }


def _cpu_s(child: Child) -> float:
    words = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def finetune(task: str, bundle: str, directory: Path, seconds: float) -> dict[str, Any]:
    """Return steps and updates per second of live fine-tuning at one update per step.

    ``share`` is what they come to of the slower of the actors alone and the learner alone.
    """
    both = _tuned(task, bundle, directory / "both", 1.0, seconds)
    actors = _tuned(task, bundle, directory / "actors", 1e-3, seconds)["steps_per_s"]
    learner = _tuned(task, bundle, directory / "learner", 1e3, seconds)["updates_per_s"]
    return {**both, "actors_alone": actors, "learner_alone": learner,
            "share": min(both.values()) / min(actors, learner)}  # fmt: skip


def _tuned(task: str, bundle: str, out: Path, ratio: float, seconds: float) -> dict[str, float]:
    """Run a live fine-tuning and return its pace, without its beginning."""
    learn = LearnSettings(updates_per_step=ratio, warmup_steps=500, critic_updates=0)
    config = FinetuneConfig(
        parent=bundle, task=task, live=True, mode="lockstep", out=str(out), learn=learn,
        minutes=(seconds + 15) / 60, evaluate_episodes=0,
    )  # fmt: skip
    config = msgspec.structs.replace(
        config, gate=msgspec.structs.replace(config.gate, every=1_000_000, score_every=0)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = out.with_suffix(".yaml")
    settings.write_text(to_yaml(config))
    run = subprocess.Popen(
        command("finetune", str(settings), "--json"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return _pace(out, seconds)
    finally:
        run.terminate()
        run.wait(120)


def _pace(out: Path, seconds: float) -> dict[str, float]:
    """Wait for updates, and count steps and updates for a while."""

    def counted() -> tuple[int, int]:
        settings = (out / "finetune.yaml").read_text()
        words = (line.strip() for line in settings.splitlines())
        endpoint = next(w.partition(": ")[2] for w in words if w.startswith("endpoint: ipc"))
        stats = control(endpoint, "stats", {}, timeout_s=10)
        return int(stats["inserted"]), int(stats["updates"])

    end_s = time.monotonic() + 120
    while not (out / "finetune.yaml").exists() or not _counts(counted):
        if time.monotonic() > end_s:
            raise SystemExit(f"{out}: no update within 120 s")
        time.sleep(0.2)
    time.sleep(5)
    before, begun_s = counted(), time.monotonic()
    time.sleep(seconds)
    after, took_s = counted(), time.monotonic() - begun_s
    steps, updates = (b - a for a, b in zip(before, after, strict=True))
    return {"steps_per_s": steps / took_s, "updates_per_s": updates / took_s}


def _counts(counted: Callable[[], tuple[int, int]]) -> bool:
    try:
        return counted()[1] > 0
    except Exception:  # The service is not there yet.
        return False


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="hopper")
    parser.add_argument("--bundle", default="hopper")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onebeat-actors-") as name:
        directory = Path(name)
        each = parts(given.task, given.bundle, directory)
        service = whole(given.task, given.bundle, directory, given.seconds / 2)
        tuned = finetune(given.task, given.bundle, directory, given.seconds)
    found = {
        "task": given.task,
        "parts_us": each,
        "rows_of_bare": each["rows"] / each["bare"],
        "whole": service,
        "whole_of_bare": service["actor_cpu_us"] / each["bare"],
        "finetune": tuned,
        "host": msgspec.structs.asdict(examine_host(realtime=False)),
    }
    if given.json:
        put_json(found)
    else:
        say(json.loads(msgspec.json.encode(found)), as_json=False)


if __name__ == "__main__":
    main()
