"""What the machine itself costs a control loop: waking up on time, and crossing a socket."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout
from controller.histogram import Nanoseconds, Quantiles
from controller.interfaces import Clock
from controller.key_settings import ServerKeySettings
from controller.keys import ServerKeys, server_keys
from controller.pacing import Ticker
from controller.process import Child, StopFlag, Supervisor, die_with_parent
from controller.realtime import urgent
from controller.transport import Client, Server

ANSWER_TIMEOUT_NS = 1_000_000_000
BUSY = "from controller.floor import burn; burn()"
READY = "ready"
ECHO = "import sys; from controller.floor import serve_echo; serve_echo(*sys.argv[1:])"


def quantiles(durations_ns: Nanoseconds) -> Quantiles | None:
    """Return the distribution of ``durations_ns``; None when there are none."""
    if not len(durations_ns):
        return None
    found = np.percentile(durations_ns, (50, 99, 99.9, 100), method="higher")
    p50, p99, p99_9, longest = (round(int(value) / 1e3, 1) for value in found)
    return Quantiles(p50, p99, p99_9, longest, len(durations_ns))


def lateness(clock: Clock, rate_hz: float, seconds: float) -> Nanoseconds:
    """Return how late each tick of an empty loop began.

    A tick that an overrun skipped counts as late as it was when the loop came back: leaving
    it out would hide the longest delays.
    """
    period_ns = round(1e9 / rate_hz)
    late = np.zeros(max(1, round(seconds * rate_hz)), dtype=np.int64)
    start_ns = clock.now_ns() + period_ns
    following = 0
    with collector_paused():
        for tick in Ticker(clock, period_ns, start_ns):
            until = min(tick.index + 1, len(late))
            for index in range(following, until):
                late[index] = tick.wake_ns - (start_ns + index * period_ns)
            following = until
            if following == len(late):
                return late
    raise AssertionError("a ticker never ends")


def pace(
    clock: Clock, rate_hz: float | None, seconds: float, act: Callable[[int], None]
) -> tuple[int, int]:
    """Call ``act(tick)`` at ``rate_hz``, or back to back when it is None, for ``seconds``.

    Returns:
        How many times it was called, and how many periods an overrun skipped.
    """
    start_ns = clock.now_ns()
    end_ns = start_ns + round(seconds * 1e9)
    called = last = 0
    with collector_paused():
        if rate_hz is None:
            while clock.now_ns() < end_ns:
                act(called)
                called += 1
            return called, 0
        for tick in Ticker(clock, round(1e9 / rate_hz), start_ns):
            if tick.deadline_ns >= end_ns:
                break
            act(tick.index)
            called, last = called + 1, tick.index
    return called, last + 1 - called


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector out of a measurement, as the loop does."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def load(workers: int) -> Iterator[None]:
    """Keep ``workers`` processes busy during the block."""
    with Supervisor() as supervisor:
        for index in range(workers):
            child = Child([sys.executable, "-P", "-c", BUSY], f"load {index}")
            supervisor.start(child)
        supervisor.wait_until(
            lambda: all(child.last_error() == READY for child in supervisor.children), 20.0, "load"
        )
        yield


def burn() -> None:
    """Use up one core until the parent ends."""
    die_with_parent()
    say_ready()
    while True:
        pass


@contextlib.contextmanager
def echo(endpoint: str) -> Iterator[Echo]:
    """Start an echo server in a process of its own and give a client of it.

    Raises:
        ChildDied: the server ended, for example because the address is taken.
        PeerTimeout: it did not answer.
    """
    with Supervisor() as supervisor:
        command = [sys.executable, "-P", "-c", ECHO, endpoint]
        child = supervisor.start(Child(command, "echo server"))
        with contextlib.closing(Echo(endpoint)) as client:
            # Not the first answer counts, which could be another server's: the child says so.
            supervisor.wait_until(lambda: child.last_error() == READY, 20.0, "echo server")
            supervisor.wait_until(client.answers, 20.0, "echo server")
            yield client


def serve_echo(
    endpoint: str, sched_fifo: str = "auto", secret: str = "", clients: str = ""
) -> None:
    """Send back whatever comes until told to stop or the parent ends.

    Under SCHED_FIFO where the machine allows it, as the servers of a loop are.

    Args:
        endpoint: address to bind.
        sched_fifo: auto or off.
        secret: the server's key, for encryption.
        clients: those that may connect then.
    """
    die_with_parent()
    keys = server_keys(ServerKeySettings(secret, clients or ()))
    with StopFlag() as stop, urgent(sched_fifo):
        serve_echo_until(endpoint, stop, say_ready, keys)


def serve_echo_until(
    endpoint: str,
    should_stop: Callable[[], bool],
    bound: Callable[[], None] = lambda: None,
    keys: ServerKeys | None = None,
) -> None:
    """Send back whatever comes until ``should_stop()``; ``bound`` is called first."""
    with contextlib.closing(Server(endpoint, keys)) as server:
        bound()
        while not should_stop():
            message = server.receive(100_000_000)
            if message is not None:
                server.send(*message)


class Echo:
    """Client of an echo server."""

    def __init__(self, endpoint: str) -> None:
        self._client = Client(endpoint)
        self._clock = MonotonicClock()
        self._count = 0

    def answers(self) -> bool:
        """Return whether the server answers within 0.1 s."""
        try:
            self.round_trip_ns((b"",), timeout_ns=100_000_000)
        except PeerTimeout:
            return False
        return True

    def round_trip_ns(self, frames: Sequence[bytes], timeout_ns: int = ANSWER_TIMEOUT_NS) -> int:
        """Send ``frames`` and return how long they took to come back.

        Raises:
            PeerTimeout: they did not within ``timeout_ns``.
        """
        self._count += 1
        label = self._count.to_bytes(8, "little")
        sent_ns = self._clock.now_ns()
        if not self._client.send([label, *frames]):
            raise PeerTimeout("echo server: no connection")
        while True:
            remaining_ns = sent_ns + timeout_ns - self._clock.now_ns()
            back = self._client.receive(max(0, remaining_ns))
            now_ns = self._clock.now_ns()
            if back is not None and bytes(back[0]) == label:
                return now_ns - sent_ns
            if back is None and now_ns - sent_ns >= timeout_ns:
                raise PeerTimeout(f"no echo within {timeout_ns / 1e9:g} s")

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def say_ready() -> None:
    """Tell the parent, which reads the last line, that a server can be asked."""
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
