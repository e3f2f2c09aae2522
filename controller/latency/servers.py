"""The servers of a measurement: ours, one of today's design and an echo, started and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from controller.endpoints import endpoint_for
from controller.errors import PeerTimeout
from controller.floor import ECHO, READY, serve_echo_until
from controller.key_settings import (
    NO_CLIENT_KEYS,
    NO_SERVER_KEYS,
    ClientKeySettings,
    ServerKeySettings,
)
from controller.keys import write_pair
from controller.latency.callers import Caller, Kind
from controller.latency.endpoints import free_tcp_endpoint
from controller.latency.settings import Bench
from controller.launch import command, policy_server
from controller.process import Child, Supervisor
from controller.ranges import SchedFifo
from controller.realtime import urgent
from controller.settings import PolicySettings
from controller.transport import key_pair

READY_S = 60.0
"""Torch alone takes seconds to import on a busy machine."""

LOOK_S = 1.0
"""Between two looks at whether a server that does not answer still lives."""

Stop = Callable[[], bool]
InThread = Callable[[Kind, Bench, str, Stop], None]
"""Serves policy or baseline of a bench at an address until told to stop."""


class Running(NamedTuple):
    """A server that runs.

    Attributes:
        endpoint: its address.
        pid: its process; 0 for a thread of this one.
        keys: what its clients need.
        check: raises ChildDied when it has ended.
    """

    endpoint: str
    pid: int
    keys: ClientKeySettings = NO_CLIENT_KEYS
    check: Callable[[], None] = lambda: None

    def connect(self, caller: Caller, timeout_s: float = READY_S) -> None:
        """Wait for the server, but not for one that has ended.

        Raises:
            ChildDied: it has.
            PeerTimeout: it did not answer.
        """
        for _ in range(max(1, round(timeout_s / LOOK_S)) - 1):
            self.check()
            with contextlib.suppress(PeerTimeout):
                caller.connect(LOOK_S)
                return
        caller.connect(LOOK_S)

    def stop(self) -> None:
        """Stop it as a debugger would, or a machine that swaps."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def serving(
    bench: Bench,
    kinds: tuple[Kind, ...],
    directory: Path,
    in_thread: InThread,
    sched_fifo: SchedFifo = "auto",
) -> Iterator[dict[Kind, Running]]:
    """Start the servers of a bench.

    All three under the same scheduling: a ratio of theirs is one of designs, not of rights.

    Args:
        bench: the policy and the way to it; its bundle is a path.
        kinds: which servers.
        directory: for sockets.
        in_thread: serves in this process, for transport inproc.
        sched_fifo: auto or off.

    Raises:
        ChildDied: a server ended.
        PeerTimeout: a server did not start.
    """
    endpoints = {kind: _endpoint(bench, kind, directory) for kind in kinds}
    if bench.transport == "inproc":
        with _threads(bench, endpoints, in_thread, sched_fifo):
            yield {kind: Running(endpoint, 0) for kind, endpoint in endpoints.items()}
        return
    own, theirs = (
        _keys(directory) if bench.transport == "curve" else (NO_SERVER_KEYS, NO_CLIENT_KEYS)
    )
    with Supervisor() as supervisor:
        children = {
            kind: supervisor.start(_child(kind, bench, endpoint, sched_fifo, own))
            for kind, endpoint in endpoints.items()
        }
        for kind, child in children.items():
            if kind != "policy":
                supervisor.wait_until(partial(_is_ready, child), READY_S, child.name)
        yield {
            kind: Running(endpoints[kind], child.pid, theirs, supervisor.check)
            for kind, child in children.items()
        }


def _is_ready(child: Child) -> bool:
    return child.last_error() == READY


def _endpoint(bench: Bench, kind: Kind, directory: Path) -> str:
    if bench.transport == "inproc":
        return f"inproc://{directory.name}-{kind}"
    return endpoint_for(directory, kind) if bench.transport == "ipc" else free_tcp_endpoint()


def _keys(directory: Path) -> tuple[ServerKeySettings, ClientKeySettings]:
    """Make keys of a server and a client, and return where each finds its own."""
    for name in ("server", "client"):
        write_pair(name, *key_pair(), directory)
    at = {
        name: str(directory / name)
        for name in ("server.key", "server.pub", "client.key", "client.pub")
    }
    return (
        ServerKeySettings(at["server.key"], at["client.pub"]),
        ClientKeySettings(at["client.key"], at["server.pub"]),
    )


def _child(
    kind: Kind, bench: Bench, endpoint: str, sched_fifo: SchedFifo, keys: ServerKeySettings
) -> Child:
    entry = bench.policy
    places = (keys.secret, *keys.places) if keys.secret else ()
    match kind:
        case "policy":
            about = PolicySettings(
                bundle=entry.bundle, engine=bench.engine, device=bench.device, act=entry.act
            )
            plain = policy_server(about, endpoint, sched_fifo)
            named = zip(("secret", "clients"), places, strict=False)
            words = tuple(f"keys.{name}={place}" for name, place in named)
            return Child((*plain.args, *words), plain.name)
        case "baseline":
            act = msgspec.structs.asdict(entry.act).items()
            words = (
                f"bundle={entry.bundle}",
                f"endpoint={endpoint}",
                f"device={bench.device}",
                f"sched_fifo={sched_fifo}",
                *(f"act.{name}={value}" for name, value in act if value is not None),
            )
            return Child(command("baseline", *words), "baseline server")
    return Child([sys.executable, "-P", "-c", ECHO, endpoint, sched_fifo, *places], "echo server")


@contextlib.contextmanager
def _threads(
    bench: Bench, endpoints: dict[Kind, str], in_thread: InThread, sched_fifo: SchedFifo
) -> Iterator[None]:
    stop = threading.Event()

    def serve(kind: Kind, endpoint: str) -> None:
        if kind == "echo":
            serve_echo_until(endpoint, stop.is_set)
        else:
            in_thread(kind, bench, endpoint, stop.is_set)

    with urgent(sched_fifo):
        threads = [
            threading.Thread(target=serve, args=pair, name=pair[0], daemon=True)
            for pair in endpoints.items()
        ]
        for thread in threads:
            thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(READY_S)
