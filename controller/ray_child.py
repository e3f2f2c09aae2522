"""Processes on the nodes of a Ray cluster, kept like processes of this machine.

Needs the ``ray`` extra. Ray places each process where a CPU is free, sees nodes die, and ends what
is left when the launcher ends; everything else is as on one machine: the same command line, the
same settings, and rows and weights over our own encrypted sockets. Ray serialises its calls itself,
by means that can carry code, so whoever reaches a cluster can run code on it: keep it in a trusted
network. Of ours, only JSON text crosses; see :mod:`controller.ray_node`.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import msgspec

from controller.errors import ConfigError
from controller.process import Child, ChildDied
from controller.ray_node import Order, Report, Seat, version

log = logging.getLogger(__name__)

LOCAL = "ray"
SCHEME = "ray://"
LOST = -signal.SIGKILL
"""Exit status of a process whose node or Ray worker died: it was killed with that."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}
"""Read when Ray is imported: it reports nothing to anyone, and says nothing of dead workers on
standard output, which is for results."""
STORE_BYTES = 80 << 20
"""Of Ray's object store, which nothing of ours uses: the least it takes."""
LOOK_S = 0.5
"""Between two questions to a node: one costs about a millisecond of each side."""
ANSWER_S = 5.0
"""Time for a node's answer beyond that which it was given for the matter itself."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def check_address(address: str) -> str:
    """Return the address of a cluster if it is one.

    Raises:
        ConfigError: it is none.
    """
    if address in (LOCAL, "auto") or (address.startswith(SCHEME) and address != SCHEME):
        return address
    raise ConfigError(
        f"{address}: not a Ray cluster; expected {LOCAL} for one of this machine, "
        f"{SCHEME}HOST:PORT, or auto for the one this machine is a node of"
    )


def check_reach(address: str, endpoint: str | None) -> None:
    """Check that the nodes of a cluster can reach an endpoint of this machine.

    Args:
        address: of the cluster.
        endpoint: None for a socket of this machine.

    Raises:
        ConfigError: they are other machines, and the endpoint is of this one alone.
    """
    if address.startswith(SCHEME):
        host = address.removeprefix(SCHEME).rpartition(":")[0]
        if host not in LOOPBACK:
            _require_tcp(f"actors={address}", endpoint)


def _require_tcp(who: str, endpoint: str | None) -> None:
    host = (endpoint or "").removeprefix("tcp://").rpartition(":")[0]
    if endpoint is not None and endpoint.startswith("tcp://") and host not in LOOPBACK:
        return
    raise ConfigError(
        f"replay.endpoint: {endpoint or 'a socket of this machine'} is out of reach for {who}; "
        "expected tcp://HOST:PORT of this machine, with replay.server_keys and replay.client_keys "
        "(onebeat keys new)"
    )


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: ``ray`` for one of this machine that ends with us, ``ray://HOST:PORT``, or
            ``auto`` for the one this machine is a node of.
        cpus: processes there will be at a time; one CPU each. A cluster with fewer CPUs makes
            the others wait.

    Raises:
        ConfigError: not an address, or nothing answers there.
        ModuleNotFoundError: Ray is not installed.
    """

    def __init__(self, address: str, cpus: int = 1) -> None:
        self.address = check_address(address)
        self._ray, self._owned = _begin(address, cpus)
        have = int(self._ray.cluster_resources().get("CPU", 0))
        if have < cpus:
            log.warning("%s has %d CPUs for %d processes: some wait for one", address, have, cpus)
        self._seat = self._ray.remote(num_cpus=1, max_restarts=0)(Seat)

    def check_reach(self, endpoint: str | None) -> None:
        """Check that every node can reach an endpoint; see the function of this name.

        Raises:
            ConfigError: there are several nodes, and the endpoint is of this machine alone.
        """
        alive = {node["NodeManagerAddress"] for node in self._ray.nodes() if node["Alive"]}
        if len(alive) > 1:
            _require_tcp(f"the {len(alive)} nodes of {self.address}", endpoint)

    def child(
        self,
        words: Sequence[str],
        name: str,
        *,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        niceness: int = 0,
        stdout: Path | None = None,
        log: Path | None = None,
        shared: str = "",
    ) -> RayChild:
        """Return a process, not yet started.

        Args:
            words: verb and words of a command line of this program.
            name: what people call it.
            files: text of small files it reads, by the path that ``words`` call them by.
            environment: variables beside those of its node and the single BLAS thread.
            niceness: its scheduling priority.
            stdout: file here that takes its standard output, when it has ended.
            log: file here that takes what else it writes, when it has ended.
            shared: a file that its node must see, or it does not start; empty for none.
        """
        order = Order(
            words=tuple(words),
            name=name,
            files=dict(files or {}),
            environment=dict(environment or {}),
            niceness=niceness,
            directory=os.getcwd(),
            shared=shared,
            version=version(),
        )
        return RayChild(self._ray, self._seat, order, stdout=stdout, log=log)

    def close(self) -> None:
        """Leave the cluster: every process of ours there ends. Idempotent."""
        if self._owned and self._ray.is_initialized():
            self._ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RayChild(Child):
    """A process of this program on a node of a Ray cluster; see :meth:`Cluster.child`.

    Its worker is its parent: it ends with that, and that with the launcher. One whose node or
    worker died has ended, with the status ``LOST``.
    """

    def __init__(
        self,
        ray: ModuleType,
        seat: Any,  # noqa: ANN401
        order: Order,
        *,
        stdout: Path | None,
        log: Path | None,
    ) -> None:
        super().__init__(order.words, order.name, stdout=stdout, log=log)
        self._ray, self._remote, self._order = ray, seat, order
        self._actor: Any = None
        self._asked: Any = None
        self._next_s = 0.0
        self._report: Report | None = None
        self._code: int | None = None
        self._said = ""
        self._lost = False

    @property
    def pid(self) -> int:
        """Process id on its node; 0 before the start, and while it waits for a CPU."""
        return self._report.pid if self._report else 0

    @property
    def host(self) -> str:
        """Name of its node; empty while it waits for a CPU."""
        return self._report.host if self._report else ""

    def start(self) -> RayChild:
        """Ask for its start and return self; whether it began is seen by :meth:`poll`."""
        assert self._actor is None, f"{self.name} is started already"
        self._actor = self._remote.remote(msgspec.json.encode(self._order).decode())
        self._asked = self._actor.begin.remote()
        return self

    def poll(self) -> int | None:
        """Return the exit status, ``LOST`` with its node; None while it runs or waits for a CPU."""
        if self._actor is not None and self._code is None:
            self._hear(0.0)
        return self._code

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit status, or None when it still runs after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline and self._actor is not None:
            time.sleep(min(0.02, timeout_s))
        return self._code

    def status(self) -> str:
        """Return in words how it stands or ended."""
        code = self.poll()
        if code is None:
            if self._actor is None:
                return "not started"
            return f"running on {self.host}" if self._report else "waiting for a CPU"
        if self._lost:
            return f"lost with its Ray worker{f' on {self.host}' if self.host else ''}"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def last_error(self) -> str:
        """Return the last line it wrote, as far as was heard; empty without one."""
        return self._said

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it and all it started: SIGTERM, up to ``timeout_s``, then SIGKILL. Idempotent."""
        if self._actor is None or self._code is not None:
            return
        if self._report is None:
            self._hear(min(timeout_s, 1.0))
        if self._code is None and self._report is not None:
            self._asked = self._actor.stop.remote(timeout_s)
            self._hear(timeout_s + ANSWER_S)
        self._leave(-signal.SIGKILL)

    def kill(self) -> None:
        """End it and all it started at once. Idempotent."""
        self.stop(0.0)

    def _hear(self, wait_s: float) -> None:
        """Take an answer that is there, or comes within ``wait_s``; ask anew when it is time."""
        if self._asked is None:
            if time.monotonic() < self._next_s:
                return
            self._asked = self._actor.look.remote()
        ready, _ = self._ray.wait([self._asked], timeout=wait_s)
        if not ready:
            return
        asked, self._asked = self._asked, None
        self._next_s = time.monotonic() + LOOK_S
        try:
            report = msgspec.json.decode(self._ray.get(asked), type=Report)
        except (self._ray.exceptions.RayError, msgspec.DecodeError, ConnectionError) as error:
            self._said = self._said or str(error).strip().partition("\n")[0]
            self._lost = True
            self._leave(LOST)
            return
        self._report, self._said = report, report.said or self._said
        if report.code is not None:
            self._keep(report)
            self._leave(report.code)

    def _keep(self, report: Report) -> None:
        for file, text in ((self._stdout, report.stdout), (self._log, report.log)):
            if file is not None:
                file.write_text(text, encoding="utf-8")

    def _leave(self, code: int) -> None:
        """Take note of the end, and give the CPU back."""
        if self._code is None:
            self._code = code
        if self._ray.is_initialized():
            self._ray.kill(self._actor, no_restart=True)


def connect(address: str, cpus: int = 1) -> Cluster:
    """Return a connection to a Ray cluster; see :class:`Cluster`."""
    return Cluster(address, cpus)


def _begin(address: str, cpus: int) -> tuple[ModuleType, bool]:
    """Return Ray, connected, and whether the connection is ours to end."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    import ray

    if ray.is_initialized():
        return ray, False
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    words: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        # Its CPUs only count processes here: as many as there are to be.
        words |= {
            "address": "local",
            "num_cpus": max(cpus, os.cpu_count() or 1),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    else:
        words["address"] = address
    try:
        ray.init(**words)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{address}: no Ray cluster can be used there: {first} (one with tokens wants "
            "RAY_AUTH_MODE=token, and its token in ~/.ray/auth_token)"
        ) from error
    finally:
        # Ray ends the process at a SIGTERM, without the order that a launcher owes its children.
        if main:
            signal.signal(signal.SIGTERM, before)
    return ray, True


__all__ = ["LOST", "ChildDied", "Cluster", "RayChild", "check_address", "check_reach", "connect"]
