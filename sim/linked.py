"""A process of our own at the other end of a socket.

Messages keep their bounds, and either side hears at once when the other ends.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from controller.errors import PlantLost
from controller.process import Child

MAX_MESSAGE = 16 * 1024
SPIN_NS = 50_000
"""How long a side keeps looking before it sleeps: a sleeper takes 15 µs longer to hear, measured
between two cores, and the other side is rarely further away than this."""


class Linked:
    """A running module and the socket to it.

    Args:
        module: run with ``-m``; the number of its socket and a job in JSON are its arguments.
        job: for the module.
        name: what people call the process.
        descriptors: open file descriptors that it inherits.
    """

    def __init__(
        self, module: str, job: msgspec.Struct, name: str, descriptors: Sequence[int] = ()
    ) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            text = msgspec.json.encode(job).decode()
            self.child = Child(
                [sys.executable, "-m", module, str(theirs.fileno()), text],
                name,
                descriptors=(*descriptors, theirs.fileno()),
            ).start()

    def send(self, message: bytes) -> None:
        """Hand a message over; that nobody listens is found out by :meth:`receive`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.link.send(message)

    def receive(self) -> bytes:
        """Wait for the next message.

        Raises:
            PlantLost: the process ended; says how, and its last words.
        """
        message = receive(self.link)
        if not message:
            self.child.wait(5.0)
            why = self.child.last_error() or "it wrote no message"
            raise PlantLost(f"{self.child.name} died ({self.child.status()}): {why}")
        return message

    def close(self, timeout_s: float = 2.0) -> None:
        """End the process, which has ``timeout_s`` for it; safe to call twice."""
        self.link.close()
        self.child.wait(timeout_s)
        self.child.kill()


def receive(link: socket.socket) -> bytes:
    """Return the next message; empty when the other side is gone."""
    until_ns = time.monotonic_ns() + SPIN_NS
    try:
        while time.monotonic_ns() < until_ns:
            with contextlib.suppress(BlockingIOError):
                return link.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
        return link.recv(MAX_MESSAGE)
    except ConnectionResetError:
        return b""


def serve(link: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Answer every message until the other side is gone."""
    while message := receive(link):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            link.send(answer(message))
