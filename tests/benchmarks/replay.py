"""What a row costs on its way into the replay service, and a batch on its way out.

``kept``: microseconds in which the store alone takes a block, or draws a batch of 256 of a full
ring, beside ``memcpy`` of as many bytes. ``wire``: a block there and its answer back, or a batch
asked for and received, between two processes, beside ``echo``: the same bytes through the same
sockets to a server that does nothing. Works take turns; a figure is the median of its turns'
fastest thirds. ``crowd``: rows per second of k processes that insert blocks back to back, each
waiting for its answers, and how much of one core the service took.

    python tests/benchmarks/replay.py [--json] [--quick] [--capacity 1000000] [--clients 1 2 4 8]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    # The libraries read this when numpy is imported.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np

from controller.clock import MonotonicClock
from controller.control import control
from controller.display import put_json, put_rows
from controller.endpoints import endpoint_for
from controller.feed.rows import RowLayout
from controller.greeting import Session
from controller.host import examine_host
from controller.process import Child, RuntimeDirectory, Supervisor
from controller.signals import StopFlag, die_with_parent
from controller.transport import Client, Server
from controller.wire import Draw, Drawn, Insert, Inserted
from policies.finetuning.replay.limiter import Limiter
from policies.finetuning.replay.service import ReplayService
from policies.finetuning.replay.store import Places, Store
from tests.benchmarks.sim_steps import commit_of
from tests.policies.weights import robot

ROBOTS = {"hopper": (11, 3), "kitchen": (60, 9)}
"""Sizes of an observation and of an action."""
BLOCKS = (1, 16, 256)
BATCH = 256
BATCHES = (1, 8)
CROWD_BLOCK = 16
TURNS = 15
TURN_S = 0.02
WAIT_NS = 10**10
CLOCK = MonotonicClock()


def rows_of(layout, count):
    """Return made-up rows of one policy, the last of every 200 the end of an episode."""
    rows = np.random.default_rng(0).standard_normal((count, layout.width)).astype(np.float32)
    parts = layout.split(rows)
    for name in ("terminal", "timeout", "over", "kind", "version", "success"):
        parts[name][:] = 0
    parts["over"][199::200] = 1
    return rows


def turns(works):
    """Return microseconds per call by name, the works taking turns."""
    counts = {}
    for name, work in works.items():
        began = time.perf_counter()
        for _ in range(5):
            work()
        counts[name] = max(1, int(TURN_S / ((time.perf_counter() - began) / 5)))
    times = {name: [] for name in works}
    for _ in range(TURNS):
        for name, work in works.items():
            began = time.perf_counter_ns()
            for _ in range(counts[name]):
                work()
            times[name].append((time.perf_counter_ns() - began) / counts[name] / 1e3)
    best = {name: sorted(seen)[: max(1, TURNS // 3)] for name, seen in times.items()}
    return {name: statistics.median(seen) for name, seen in best.items()}


def filled(spec, directory, capacity):
    """Return a store whose ring is full."""
    store = Store(spec, Places(Path(directory), capacity), 0)
    block = rows_of(store.layout, 1000)
    for first in range(0, capacity, len(block)):
        store.insert("first", first, ("v1",), block)
    return store


def kept(task, directory, capacity):
    """Return rows: the store alone."""
    store = filled(robot(*ROBOTS[task]), Path(directory) / task, capacity)
    rows, works = rows_of(store.layout, max(BLOCKS)), {}
    target = np.empty_like(rows)

    def inserting(block):
        store.insert("arm", store.ledger.rows_of("arm"), ("v1",), rows[:block])

    def copying(count):
        np.copyto(target[:count], rows[:count])

    for block in BLOCKS:
        works["insert", block] = lambda block=block: inserting(block)
        works["memcpy", block] = lambda block=block: copying(block)
    for count in BATCHES:
        works["draw", count] = lambda count=count: store.draw(count, BATCH, counted=True)
    taken = turns(works)
    store.close()
    inserts = [
        figures("kept", task, "insert", block, taken["insert", block], taken["memcpy", block])
        for block in BLOCKS
    ]
    draws = [
        figures("kept", task, "draw", count * BATCH, taken["draw", count],
                count * taken["memcpy", BATCH])
        for count in BATCHES
    ]  # fmt: skip
    return inserts + draws


def figures(where, task, work, rows, us, floor_us):
    """Return a row of figures; ``ratio`` is to the floor."""
    told = {"where": where, "task": task, "work": work, "rows": rows}
    told |= {"us": round(us, 2), "us_per_row": round(us / rows, 3)}
    return told | {"floor_us": round(floor_us, 2), "ratio": round(us / floor_us, 2)}


def serve(endpoint, task, directory, capacity):
    """Be a replay service until SIGTERM; its limiter limits nothing."""
    spec = robot(*ROBOTS[task])
    with StopFlag() as stop:
        store = filled(spec, directory, capacity) if capacity > 1000 else None
        store = store or Store(spec, Places(Path(directory), 200_000), 0)
        limiter = Limiter(1e6, 0, 10**12)
        ReplayService(store, spec, limiter, endpoint, CLOCK).run(stop)


def echo(endpoint):
    """Send back what came, or as many bytes as its header says, until SIGTERM."""
    server, blobs = Server(endpoint), {}
    with StopFlag() as stop:
        while not stop():
            if (item := server.receive(50_000_000)) is not None:
                identity, frames = item
                size = int(frames[0])
                server.send(identity, (b"", blobs.setdefault(size, bytes(size))))
    server.close()


def child(*words):
    """Return a process of this file."""
    return Child([sys.executable, __file__, "--part", *map(str, words)], words[0])


class Asker:
    """A client of a service that waits for each answer."""

    def __init__(self, endpoint, task, name):
        self.spec = robot(*ROBOTS[task])
        self._session = Session(endpoint, "replay", CLOCK, name, self.spec)
        self._session.connect(120.0)
        self._rows = rows_of(RowLayout.of(self.spec), max(BLOCKS))
        self.name, self.kept = name, 0

    def insert(self, block):
        insert = Insert(self.name, self.kept, block, ("v1",))
        assert self._session.send(insert, (self._rows[:block],))
        self.kept = self._answer(Inserted).rows

    def draw(self, batches):
        assert self._session.send(Draw(batches, BATCH, 0, "v1"))
        assert self._answer(Drawn).batches == batches

    def _answer(self, kind):
        while True:
            message, _ = self._session.receive(WAIT_NS)
            if isinstance(message, kind):
                return message

    def close(self):
        self._session.close()


def there_and_back(client, back, frame):
    """Send a frame to the echo and take ``back`` bytes."""
    assert client.send((b"%d" % back, frame))
    assert client.receive(WAIT_NS) is not None


def wire(task, directory, capacity):
    """Return rows: between two processes."""
    with RuntimeDirectory() as sockets, Supervisor() as supervisor:
        replay, other = endpoint_for(sockets, "replay"), endpoint_for(sockets, "echo")
        supervisor.start(child("serve", replay, task, Path(directory) / f"{task}-wire", capacity))
        supervisor.start(child("echo", other))
        asker, client, works = Asker(replay, task, "arm"), Client(other), {}
        row = 4 * RowLayout.of(asker.spec).width
        while not client.send((b"0", b"")):
            time.sleep(0.01)
        client.receive(WAIT_NS)
        for block in BLOCKS:
            works["insert", block] = lambda block=block: asker.insert(block)
            frame = bytes(block * row)
            works["echo in", block] = lambda frame=frame: there_and_back(client, 0, frame)
        for count in BATCHES:
            works["draw", count] = lambda count=count: asker.draw(count)
            back = count * BATCH * row
            works["echo out", count] = lambda back=back: there_and_back(client, back, b"")
        taken = turns(works)
        asker.close()
        client.close()
    inserts = [
        figures("wire", task, "insert", block, taken["insert", block], taken["echo in", block])
        for block in BLOCKS
    ]
    draws = [
        figures("wire", task, "draw", count * BATCH, taken["draw", count], taken["echo out", count])
        for count in BATCHES
    ]
    return inserts + draws


def insert_for(endpoint, task, name, seconds):
    """Say ``ready``, wait for a line, insert blocks for so long; say how many rows."""
    asker = Asker(endpoint, task, name)
    asker.insert(CROWD_BLOCK)
    print("ready", flush=True)
    sys.stdin.readline()
    before, until = asker.kept, time.monotonic() + seconds
    while time.monotonic() < until:
        asker.insert(CROWD_BLOCK)
    print(json.dumps(asker.kept - before), flush=True)
    asker.close()


def crowd(task, directory, clients, seconds):
    """Return one row: so many processes that insert."""
    with RuntimeDirectory() as sockets, Supervisor() as supervisor:
        endpoint = endpoint_for(sockets, "replay")
        where = Path(directory) / f"{task}-{clients}"
        service = supervisor.start(child("serve", endpoint, task, where, 0))
        control(endpoint, "ready", timeout_s=120.0)
        words = [sys.executable, __file__, "--part", "insert", endpoint, task]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        actors = [
            subprocess.Popen([*words, f"arm-{k}", str(seconds)], **pipes) for k in range(clients)
        ]
        try:
            for actor in actors:
                assert actor.stdout.readline() == "ready\n"
            before = cpu_s(service.pid), time.monotonic()
            for actor in actors:
                actor.stdin.write("\n")
                actor.stdin.flush()
            rows = sum(json.loads(actor.stdout.readline()) for actor in actors)
            busy = (cpu_s(service.pid) - before[0]) / (time.monotonic() - before[1])
        finally:
            for actor in actors:
                actor.kill()
                actor.communicate()
        queue = control(endpoint, "stats", timeout_s=20.0)["queue"]
    return {
        "where": "crowd",
        "task": task,
        "clients": clients,
        "rows_per_s": round(rows / seconds),
        "busy": round(busy, 3),
        "insert_us_p50": round(queue["insert_us"]["p50"], 1),
        "insert_us_p99": round(queue["insert_us"]["p99"], 1),
        "save_ms_p50": round(queue["save_us"].get("p50", 0.0) / 1e3, 1),
    }


def cpu_s(pid):
    """Return the processor time that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def measure(capacity, clients, seconds):
    """Return all rows of figures: {kept, wire, crowd}."""
    found = {"kept": [], "wire": [], "crowd": []}
    for task in ROBOTS:
        # The ring's file is large: it goes when it was measured.
        with TemporaryDirectory() as directory:
            found["kept"] += kept(task, directory, capacity)
        with TemporaryDirectory() as directory:
            found["wire"] += wire(task, directory, capacity)
    for count in clients:
        with TemporaryDirectory() as directory:
            found["crowd"].append(crowd("hopper", directory, count, seconds))
    return found


def part(name, *words):
    """Be one of the processes."""
    die_with_parent()
    if name == "serve":
        endpoint, task, directory, capacity = words
        serve(endpoint, task, directory, int(capacity))
    elif name == "echo":
        echo(*words)
    else:
        endpoint, task, actor, seconds = words
        insert_for(endpoint, task, actor, float(seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small: to see that it works")
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part(*given.part)
        return 0
    if given.quick:
        given.capacity, given.clients, given.seconds = 20_000, [1, 2], 0.5
    found = measure(given.capacity, given.clients, given.seconds)
    if given.json:
        put_json(found)
        return 0
    host = examine_host(realtime=False)
    print(f"{host.cpu}, {host.cores} cores, commit {commit_of('.')}, {given.capacity} rows kept")
    print(f"crowd: blocks of {CROWD_BLOCK} rows; kept: floor is memcpy; wire: floor is an echo")
    for rows in found.values():
        put_rows(rows, False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
