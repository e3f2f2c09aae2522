"""The measurement itself: cell by cell, the servers taking turns within each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from controller.clock import MonotonicClock
from controller.errors import ConfigError
from controller.floor import collector_paused, load
from controller.host import examine_host
from controller.keys import client_keys
from controller.latency.callers import Caller, Kind, PolicyCaller, caller
from controller.latency.rows import LatencyReport, LatencyRow, row_of
from controller.latency.servers import InThread, Running, serving
from controller.latency.settings import Bench, Cell, LatencyConfig, cells
from controller.latency.spread import ask_spread
from controller.latency.swarm import Event, Samples, Swarm, merged, phases
from controller.log_schema import host_facts
from controller.loop_config import LoopConfig
from controller.process import RuntimeDirectory
from controller.realtime import has_fifo, realtime_section, urgent
from controller.spec import Spec

WARM_UP_S = 0.2
STOP_NS = 50_000_000
STOP_EVERY_NS = 500_000_000
LEAD_NS = 20_000_000
"""From the decision to begin to the first request that can be due."""

Open = Callable[[Bench], tuple[str, Spec]]
"""Gives the path of a bench's bundle, and its robot."""
Progress = Callable[[int, int], None]


class Measured(NamedTuple):
    """A cell with what was seen, for pictures."""

    row: LatencyRow
    samples: dict[Kind, Samples]


def sweep(
    config: LatencyConfig,
    open_bundle: Open,
    in_thread: InThread,
    progress: Progress = lambda done, total: None,
) -> tuple[LatencyReport, list[Measured]]:
    """Measure every cell of the settings.

    Args:
        config: settings.
        open_bundle: finds or makes the policies.
        in_thread: serves in this process, for transport inproc.
        progress: told how many of how many cells are done.

    Raises:
        ChildDied: a server could not be started.
        PeerTimeout: a server did not answer.
    """
    todo, found = cells(config), list[Measured]()
    if config.processes > 1 and any(cell.bench.transport == "inproc" for cell in todo):
        raise ConfigError("processes: transport inproc is within one process; expected 1")
    kinds: tuple[Kind, ...] = ("echo", "policy", *(("baseline",) if config.baseline else ()))
    with realtime_section(LoopConfig(sched_fifo=config.sched_fifo)):
        realtime = has_fifo()
    progress(0, len(todo))
    for bench, alike in groupby(todo, key=lambda cell: cell.bench):
        path, spec = open_bundle(bench)
        placed = bench._replace(policy=msgspec.structs.replace(bench.policy, bundle=path))
        with (
            RuntimeDirectory() as directory,
            serving(placed, kinds, Path(directory), in_thread, config.sched_fifo) as servers,
        ):
            for state, loaded in groupby(alike, key=lambda cell: cell.load):
                with _busy(state == "busy"):
                    for cell in loaded:
                        found.append(_measure(cell, servers, spec, config, Path(directory)))
                        progress(len(found), len(todo))
    report = LatencyReport(
        host=host_facts(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        realtime=realtime,
        seconds=config.seconds,
        deadline=config.deadline,
        rows=tuple(each.row for each in found),
    )
    return report, found


@contextlib.contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    with load(examine_host(realtime=False).cores) if wanted else contextlib.nullcontext():
        yield


def _measure(
    cell: Cell, servers: dict[Kind, Running], spec: Spec, config: LatencyConfig, directory: Path
) -> Measured:
    parts: dict[Kind, list[Samples]] = {kind: [] for kind in servers}
    seconds = config.seconds / config.turns
    version, offset_ns = "", (0, 0)
    with contextlib.ExitStack() as stack:
        groups = {
            kind: _connected(kind, server, spec, cell.clients, config, stack)
            for kind, server in servers.items()
        }
        for _ in range(config.turns):
            for kind, callers in groups.items():
                turn = _Turn(cell, kind, servers[kind], seconds, config, directory)
                parts[kind].append(turn.take(callers, spec))
        for each in groups["policy"][:1]:
            assert isinstance(each, PolicyCaller)
            version, offset_ns = each.version, each.offset_ns
    offsets_ns = [round(turn * seconds * 1e9) for turn in range(config.turns)]
    samples = {kind: merged(each, offsets_ns) for kind, each in parts.items()}
    row = row_of(cell, samples, config.deadline, version=version, offset_ns=offset_ns)
    return Measured(row, samples)


def _connected(
    kind: Kind,
    server: Running,
    spec: Spec,
    clients: int,
    config: LatencyConfig,
    stack: contextlib.ExitStack,
) -> list[Caller]:
    """Return the clients of this process; other processes make their own."""
    made: list[Caller] = []
    with urgent(config.sched_fifo):
        for _ in range(-(-clients // config.processes)):
            each = caller(kind, server.endpoint, spec, MonotonicClock(), client_keys(server.keys))
            stack.callback(each.close)
            server.connect(each)
            made.append(each)
    return made


class _Turn(NamedTuple):
    """One piece of the measurement of one server in one cell."""

    cell: Cell
    kind: Kind
    server: Running
    seconds: float
    config: LatencyConfig
    directory: Path

    def take(self, callers: Sequence[Caller], spec: Spec) -> Samples:
        """Ask, in this process and in others if there are to be some."""
        clock, cell = MonotonicClock(), self.cell
        own = phases(cell.clients)[:: self.config.processes]
        swarm = Swarm(callers, cell.rate_hz, own, clock)
        events = self._stops() if cell.load == "faulted" else ()
        near = (self.kind, self.server.endpoint, spec, cell, self.config, self.directory)
        with ask_spread(*near, self.server.keys) as others:
            with (
                realtime_section(LoopConfig(sched_fifo=self.config.sched_fifo)),
                collector_paused(),
            ):
                start_ns = others.start(clock.now_ns() + LEAD_NS, self.seconds, WARM_UP_S)
                clock.sleep_until(start_ns)
                mine = swarm.run(start_ns, self.seconds, WARM_UP_S, events)
            parts = [mine, *others.samples()]
        return merged(parts, [0] * len(parts))

    def _stops(self) -> list[Event]:
        end_ns = round((WARM_UP_S + self.seconds) * 1e9)
        starts = range(round(WARM_UP_S * 1e9) + STOP_EVERY_NS // 4, end_ns, STOP_EVERY_NS)
        stops = [Event(at_ns, self.server.stop) for at_ns in starts]
        return stops + [Event(at_ns + STOP_NS, self.server.go_on) for at_ns in starts]
