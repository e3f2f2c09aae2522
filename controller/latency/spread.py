"""Clients in further processes, where one cannot ask fast enough."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from controller.clock import MonotonicClock
from controller.floor import READY, collector_paused, say_ready
from controller.key_settings import NO_CLIENT_KEYS, ClientKeySettings
from controller.keys import client_keys
from controller.latency.callers import Kind, caller
from controller.latency.settings import Cell, LatencyConfig
from controller.latency.swarm import COLUMNS, Samples, Swarm, phases
from controller.loop_config import LoopConfig
from controller.process import Child, Supervisor, die_with_parent
from controller.ranges import SchedFifo
from controller.realtime import realtime_section, urgent
from controller.spec import Spec

READY_S = 60.0
LOOK_NS = 10_000_000
LEAD_NS = 200_000_000
"""From saying when to begin to that moment."""

WORK = "import sys; from controller.latency.spread import work; work(sys.argv[1])"


class Job(msgspec.Struct, frozen=True):
    """What a further process does.

    Attributes:
        kind: of server.
        endpoint: its address.
        spec: the robot.
        rate_hz: of each client.
        phases: of its clients.
        sched_fifo: auto or off.
        keys: the clients' keys.
    """

    kind: Kind
    endpoint: str
    spec: Spec
    rate_hz: float
    phases: tuple[float, ...]
    sched_fifo: SchedFifo
    keys: ClientKeySettings = NO_CLIENT_KEYS


class Start(msgspec.Struct, frozen=True):
    """When all begin, and for how long."""

    start_ns: int
    seconds: float
    warm_up_s: float


class Others:
    """The further processes of one turn; none by default."""

    def __init__(self, places: Sequence[Path] = (), supervisor: Supervisor | None = None) -> None:
        self._places, self._supervisor = places, supervisor

    def start(self, start_ns: int, seconds: float, warm_up_s: float) -> int:
        """Tell all to begin, and return when: ``start_ns`` or later."""
        if not self._places:
            return start_ns
        begin = Start(start_ns + LEAD_NS, seconds, warm_up_s)
        for place in self._places:
            scratch = place.with_suffix(".new")
            scratch.write_bytes(msgspec.json.encode(begin))
            scratch.rename(place.with_suffix(".go"))
        return begin.start_ns

    def samples(self) -> list[Samples]:
        """Wait for all to end, and return what they saw."""
        done = [place.with_suffix(".npy") for place in self._places]
        if self._supervisor is not None:
            children = self._supervisor.children
            for child in children:
                child.wait(READY_S)
            for place, child in zip(done, children, strict=True):
                if not place.exists():
                    child.kill()
                    self._supervisor.check()
        return [_read(place) for place in done]


@contextlib.contextmanager
def ask_spread(
    kind: Kind,
    endpoint: str,
    spec: Spec,
    cell: Cell,
    config: LatencyConfig,
    directory: Path,
    keys: ClientKeySettings = NO_CLIENT_KEYS,
) -> Iterator[Others]:
    """Give the processes that hold all clients but those of this one, connected."""
    count = min(config.processes, cell.clients)
    if count == 1:
        yield Others()
        return
    places = []
    with Supervisor() as supervisor:
        for number in range(1, count):
            place = directory / f"clients-{number}"
            for suffix in (".go", ".npy"):
                place.with_suffix(suffix).unlink(missing_ok=True)
            own = tuple(phases(cell.clients)[number :: config.processes])
            job = Job(kind, endpoint, spec, cell.rate_hz, own, config.sched_fifo, keys)
            place.with_suffix(".json").write_bytes(msgspec.json.encode(job))
            command = [sys.executable, "-P", "-c", WORK, str(place)]
            supervisor.start(Child(command, f"clients {number}"))
            places.append(place)
        supervisor.wait_until(
            lambda: all(child.last_error() == READY for child in supervisor.children),
            READY_S,
            "clients",
        )
        yield Others(places, supervisor)


def work(place: str) -> None:
    """Be a further process: connect, wait for the word, ask, write what was seen."""
    die_with_parent()
    path, clock = Path(place), MonotonicClock()
    job = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Job)
    with contextlib.ExitStack() as stack:
        callers = []
        with urgent(job.sched_fifo):
            for _ in job.phases:
                each = caller(job.kind, job.endpoint, job.spec, clock, client_keys(job.keys))
                stack.callback(each.close)
                each.connect(READY_S)
                callers.append(each)
        swarm = Swarm(callers, job.rate_hz, job.phases, clock)
        say_ready()
        while not path.with_suffix(".go").exists():
            clock.sleep_until(clock.now_ns() + LOOK_NS)
        begin = msgspec.json.decode(path.with_suffix(".go").read_bytes(), type=Start)
        with realtime_section(LoopConfig(sched_fifo=job.sched_fifo)), collector_paused():
            clock.sleep_until(begin.start_ns)
            seen = swarm.run(begin.start_ns, begin.seconds, begin.warm_up_s)
    _write(path.with_suffix(".npy"), seen)


def _write(path: Path, seen: Samples) -> None:
    """Write the arrays, and the counts as a last column, so that the file is there whole."""
    last = np.array([[seen.unanswered, seen.skipped, *[0] * (COLUMNS - 2)]], np.int64)
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        np.save(stream, np.concatenate([np.stack(seen[:COLUMNS], axis=1), last]))
    scratch.rename(path)


def _read(path: Path) -> Samples:
    table = np.load(path)
    at, latency, queue, infer, late, evaluations, batch = table[:-1].T
    unanswered, skipped = (int(count) for count in table[-1, :2])
    return Samples(at, latency, queue, infer, late, evaluations, batch, unanswered, skipped)
