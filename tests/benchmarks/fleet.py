"""What a fleet of actors costs one replay service and one learner, and at how many it ends.

The service is the real process; its figures are CPU time of all its threads, from the kernel, so
that what else runs on the machine changes them little. Clients insert rows of Hopper's size, draw
batches and fetch a bundle; a real actor in lockstep runs beside it; updates are those of an agent
on one thread. From these follows how many actors one service and one learner serve.

    python -m tests.benchmarks.fleet [--json] [--bundle hopper] [--seconds 3] [--actors 1 16 64]
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from controller.clock import MonotonicClock
from controller.config import load, to_yaml
from controller.display import put_json, put_rows
from controller.endpoints import endpoint_for
from controller.errors import ControllerError
from controller.feed.client import ReplayClient
from controller.feed.rows import RowLayout
from controller.host import examine_host
from controller.keys import ClientKeys, client_keys, write_pair
from controller.launch import command
from controller.process import Child, Supervisor
from controller.reception import MAX_SESSIONS
from controller.spec import Spec
from controller.transport import key_pair
from controller.tuning.watch import asking
from policies.algos.learner import Batch
from policies.bundle import load_bundle, publish
from policies.finetuning.agent import make_agent
from policies.finetuning.settings import FinetuneConfig
from tests.benchmarks.sim_steps import commit_of

BATCH, AHEAD = 256, 8
"""Rows of a batch, and batches of a draw, as the learner has them."""
BLOCK = 32
"""Rows that an actor sends at a time."""
RATE_HZ = 100.0
"""Of a robot's control loop."""
NETWORK_BYTES_S = 1e9 / 8
"""Of a link of 1 Gbit/s."""
PUBLISH_EVERY = 1000
"""Updates between two published versions."""
OTHERS = 4
"""Sessions of a service that are no actors: learner, gate and launcher, and one to ask it."""
PRESETS = {
    "robust": (),
    "paper": ("preset=paper",),
    "sac": ("parent=null", "learn.algorithm=sac"),
}


def cpu_ns(pid: int) -> int:
    """Return the time that all threads of a process have had on a CPU."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


@dataclass
class Served:
    """A service at work."""

    child: Child
    out: Path
    settings: Path
    endpoint: str
    spec: Spec
    keys: ClientKeys | None
    ask: Callable[[str, dict[str, str]], dict[str, Any]]

    def cpu_s(self) -> float:
        return cpu_ns(self.child.pid) / 1e9


def free_port() -> int:
    """Return a port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_words(root: Path) -> list[str]:
    """Make keys of both sides in a directory, and return the settings that name them."""
    for name in ("service", "actor"):
        write_pair(name, *key_pair(), root)
    server, own = f"{root}/service", f"{root}/actor"
    return [
        f"replay.server_keys={{secret: {server}.key, clients: {own}.pub}}",
        f"replay.client_keys={{secret: {own}.key, server: {server}.pub}}",
    ]


@contextmanager
def service(bundle: str, task: str, *, encrypted: bool = False) -> Iterator[Served]:
    """Give a replay service in a process of its own, with the bundle published.

    Args:
        bundle: what is published.
        task: of it.
        encrypted: over tcp with keys, as beyond one machine; else a socket of this one.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ob-fleet-")))
        parent, endpoint = load_bundle(bundle), endpoint_for(root, "socket")
        if encrypted:
            endpoint = f"tcp://127.0.0.1:{free_port()}"
        words = [f"parent={parent.path}", f"task={task}", "live=true", "mode=lockstep",
                 f"out={root}", f"replay.endpoint={endpoint}", "steps=1"]  # fmt: skip
        words += key_words(root) if encrypted else []
        config = load(FinetuneConfig, None, words)
        keys = client_keys(config.replay.client_keys)
        settings = root / "finetune.yaml"
        settings.write_text(to_yaml(config))
        (root / "spec.json").write_bytes(msgspec.json.encode(parent.spec))
        supervisor = stack.enter_context(Supervisor())
        child = Child(command("finetune replay", f"settings={settings}"), "replay")
        supervisor.start(child)
        ask = asking(endpoint, keys)
        supervisor.wait_until(lambda: answers(ask), 30.0, "the replay service")
        ask("publish", {"bundle": str(publish(parent.path, root / "bundles"))})
        yield Served(child, root, settings, endpoint, parent.spec, keys, ask)


def answers(ask: Callable[[str, dict[str, str]], dict[str, Any]]) -> bool:
    """Return whether the service answers."""
    try:
        ask("ready", {})
    except ControllerError:
        return False
    return True


def rows_of(spec: Spec, count: int) -> np.ndarray:
    """Return rows of noise, each of one long episode."""
    layout = RowLayout.of(spec)
    rows = np.random.default_rng(0).normal(size=(count, layout.width)).astype(np.float32)
    rows[:, layout.observation + layout.action : layout.width - layout.observation] = 0.0
    return rows


@contextmanager
def client(served: Served, name: str) -> Iterator[ReplayClient]:
    """Give a client with a session."""
    made = ReplayClient(served.endpoint, served.spec, MonotonicClock(), name, served.keys)
    try:
        made.connect(10.0)
        yield made
    finally:
        made.close()


def inserting(served: Served, actors: int, seconds: float) -> dict[str, float]:
    """Have actors insert blocks in turn, as fast as the service takes them."""
    rows = rows_of(served.spec, BLOCK)
    with ExitStack() as stack:
        fleet = [stack.enter_context(client(served, f"a{actors}-{n}")) for n in range(actors)]
        before = int(served.ask("stats", {})["inserted"])
        cpu, own, start = served.cpu_s(), time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            for each in fleet:
                if each.behind < 4 * BLOCK:
                    each.offer(rows, ("v",))
                each.pump()
        for each in fleet:
            each.flush(10.0)
        wall = time.perf_counter() - start
        spent, mine = served.cpu_s() - cpu, time.process_time() - own
    count = int(served.ask("stats", {})["inserted"]) - before
    return {
        "rows_per_s": count / wall,
        "service_us_per_row": 1e6 * spent / count,
        "client_us_per_row": 1e6 * mine / count,
    }


def drawing(served: Served, seconds: float) -> dict[str, float]:
    """Have a judge draw, which nothing limits; the work is a learner's."""
    with client(served, "gate") as judge:
        cpu, own, start, batches = served.cpu_s(), time.process_time(), time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            answer = judge.draw(AHEAD, BATCH, 0, "", 2_000_000_000)
            batches += answer[0].batches if answer else 0
        wall = time.perf_counter() - start
        spent, mine = served.cpu_s() - cpu, time.process_time() - own
    return {
        "batches_per_s": batches / wall,
        "service_us_per_batch": 1e6 * spent / batches,
        "client_us_per_batch": 1e6 * mine / batches,
        "bytes_per_batch": 4.0 * BATCH * RowLayout.of(served.spec).width,
    }


def fetching(served: Served, count: int = 50) -> dict[str, float]:
    """Have an actor fetch the version in force again and again."""
    version = str(served.ask("stats", {})["version"])
    with client(served, "actor-f") as actor:
        total, took, cpu = 0, [], served.cpu_s()
        for _ in range(count):
            start = time.perf_counter()
            files = actor.fetch(version)
            took.append(time.perf_counter() - start)
            total = sum(map(len, files.values()))
        spent = served.cpu_s() - cpu
    return {
        "bytes": float(total),
        "ms_p50": 1e3 * float(np.median(took)),
        "service_ms": 1e3 * spent / count,
    }


def acting(served: Served, seconds: float) -> dict[str, float]:
    """Run an actor in lockstep as a process, with nobody to wait for."""
    words = [f"settings={served.settings}", "name=actor-0", "index=0"]
    with Supervisor(timeout_s=10.0) as supervisor:
        child = supervisor.start(Child(command("finetune actor", *words), "actor"))
        begun = int(served.ask("stats", {})["inserted"])

        def inserted() -> int:
            return int(served.ask("stats", {})["inserted"]) - begun

        supervisor.wait_until(lambda: inserted() > BLOCK, 60.0, "the actor")
        first, cpu, start = inserted(), cpu_ns(child.pid), time.perf_counter()
        time.sleep(seconds)
        supervisor.check()
        last, spent = inserted(), cpu_ns(child.pid) - cpu
        wall = time.perf_counter() - start
    return {"rows_per_s": (last - first) / wall, "cpu_us_per_row": spent / 1e3 / (last - first)}


def updating(bundle: str, words: tuple[str, ...], seconds: float) -> dict[str, float]:
    """Time updates of critics and policy together, on one thread."""
    parent = load_bundle(bundle)
    task = f"task={parent.spec.task}"
    config = load(FinetuneConfig, None, [f"parent={parent.path}", task, *words])
    agent = make_agent(config, parent.spec, parent if config.parent else None)
    torch.set_num_threads(1)
    dimension, actions = agent.codec.condition_size, agent.codec.action_size
    batch = Batch(
        condition=torch.randn(1, BATCH, dimension),
        action=torch.rand(1, BATCH, actions) * 2 - 1,
        reward=torch.randn(1, BATCH),
        next_condition=torch.randn(1, BATCH, dimension),
        alive=torch.ones(1, BATCH),
        next_action=torch.rand(1, BATCH, actions) * 2 - 1,
    )
    anchors = batch if config.learn.imitation else None
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < 20:
        start = time.process_time()
        step = len(took)
        agent.update_critics(batch, step)
        agent.update_actor(batch.condition, anchors, step)
        took.append(time.process_time() - start)
    return {"ms": 1e3 * float(np.median(took[5:])), "per_row": config.learn.updates_per_step}


def limits(found: dict[str, Any], row_bytes: int, per_row: float, update_ms: float) -> list[Any]:
    """Return at how many actors each part is at its end, for robots and for lockstep.

    The actors are other machines, so that what they cost is that of encrypted connections; the
    learner is on the service's machine. Its updates come as fast as they go, and every
    ``PUBLISH_EVERY``-th is followed by a version that every actor fetches.

    Args:
        found: measured figures.
        row_bytes: of a row.
        per_row: updates that each row allows.
        update_ms: time of one.
    """
    far = found["encrypted"]
    insert_s, fetch_s = far["insert"]["service_us_per_row"] / 1e6, far["fetch"]["service_ms"] / 1e3
    updates_hz = 1e3 / update_ms
    versions_hz = updates_hz / PUBLISH_EVERY
    free = 1.0 - updates_hz * found["draw"]["service_us_per_batch"] / 1e6
    lines = []
    for name, rate in (("robots", RATE_HZ), ("lockstep", found["actor"]["rows_per_s"])):
        lines.append({
            "actors": name,
            "rows/s each": round(rate),
            "learner keeps up": float(f"{updates_hz / per_row / rate:.3g}"),
            "sessions": MAX_SESSIONS - OTHERS,
            "service": int(free / (rate * insert_s + versions_hz * fetch_s)),
            "network": int(
                NETWORK_BYTES_S / (rate * row_bytes + versions_hz * far["fetch"]["bytes"])
            ),
        })  # fmt: skip
    return lines


def broadcast(found: dict[str, Any], actors: int) -> dict[str, float]:
    """Return what a version costs that all actors fetch."""
    fetch = found["encrypted"]["fetch"]
    return {
        "actors": actors,
        "service_s": actors * fetch["service_ms"] / 1e3,
        "link_s": actors * fetch["bytes"] / NETWORK_BYTES_S,
    }


def measure(words: argparse.Namespace) -> dict[str, Any]:
    """Return every figure."""
    found: dict[str, Any] = {}
    task = load_bundle(words.bundle).spec.task
    with service(words.bundle, task) as served:
        found["insert"] = {n: inserting(served, n, words.seconds) for n in words.actors}
        found["draw"] = drawing(served, words.seconds)
        found["fetch"] = fetching(served)
        found["actor"] = acting(served, words.seconds)
        found["row_bytes"] = 4 * RowLayout.of(served.spec).width
    with service(words.bundle, task, encrypted=True) as served:
        found["encrypted"] = {
            "insert": inserting(served, max(words.actors), words.seconds),
            "draw": drawing(served, words.seconds),
            "fetch": fetching(served),
        }
    found["update"] = {name: updating(words.bundle, more, words.seconds)
                       for name, more in PRESETS.items()}  # fmt: skip
    for name, update in found["update"].items():
        every = limits(found, found["row_bytes"], update["per_row"], update["ms"])
        found.setdefault("limits", []).extend({"preset": name, **line} for line in every)
    found["broadcast"] = [broadcast(found, n) for n in (1, 16, 64, 128)]
    host = examine_host(realtime=False)
    found["machine"] = f"{host.cpu}, {host.cores} cores"
    found["commit"] = commit_of(Path(__file__).parents[2])
    return found


def main() -> int:
    """Measure, and print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bundle", default="hopper")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 16, 64])
    words = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    found = measure(words)
    if words.json:
        put_json(found)
        return 0
    put_rows([{"actors": n, **rounded(row)} for n, row in found["insert"].items()], as_json=False)
    for name in ("draw", "fetch", "actor"):
        put_rows([{"what": name, **rounded(found[name])}], as_json=False)
    for name, row in found["encrypted"].items():
        put_rows([{"what": f"{name}, tcp with keys", **rounded(row)}], as_json=False)
    put_rows([{"preset": n, **rounded(row)} for n, row in found["update"].items()], as_json=False)
    put_rows(found["limits"], as_json=False)
    put_rows([rounded(row) for row in found["broadcast"]], as_json=False)
    sys.stdout.write(f"{found['machine']}; {found['commit']}; {found['row_bytes']} bytes a row\n")
    return 0


def rounded(row: dict[str, float]) -> dict[str, float]:
    """Return figures with four digits."""
    return {name: float(f"{value:.4g}") for name, value in row.items()}


if __name__ == "__main__":
    sys.exit(main())
