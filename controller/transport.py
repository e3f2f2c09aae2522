"""Blocking sockets with deadlines: a DEALER at the client, a ROUTER at the server.

The only module that knows the messaging library. Waiting happens in real time, whatever clock
the caller lives by. A socket belongs to the thread that uses it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import stat
import time
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path

import zmq

from controller.errors import ConfigError, EndpointInUse
from controller.wire import MAX_FRAME_BYTES

MAX_IPC_PATH = 107
QUEUE_MESSAGES = 64
"""Messages a socket holds per peer and direction. Receivers drain to the newest, so a queue adds
no delay; when it is full the sender learns at once."""

RECONNECT_MS = 20
_TCP = re.compile(r"tcp://(?P<host>.+):(?P<port>\d{1,5}|\*)")
_LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "[::1]": "[::1]"}


def endpoint_for(directory: Path | str, name: str) -> str:
    """Return the ipc endpoint of socket ``name`` in ``directory``.

    Raises:
        ConfigError: the path is longer than a socket path may be.
    """
    return check_endpoint(f"ipc://{Path(directory).resolve() / name}")


def check_endpoint(endpoint: str, bind: bool = False) -> str:
    """Return ``endpoint`` as the library wants it.

    Raises:
        ConfigError: not an ipc, inproc or loopback tcp address, or an ipc path that is too long.
    """
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc" and address and address[0] not in "@*":
        if len(os.fsencode(address)) > MAX_IPC_PATH:
            raise ConfigError(
                f"{endpoint}: socket path of {len(os.fsencode(address))} bytes, "
                f"at most {MAX_IPC_PATH} are allowed; choose a shorter directory"
            )
        return endpoint
    if scheme == "inproc" and address:
        return endpoint
    if match := _TCP.fullmatch(endpoint):
        return _check_tcp(endpoint, match["host"], match["port"], bind)
    raise ConfigError(
        f"{endpoint}: not an endpoint; expected ipc://PATH, tcp://127.0.0.1:PORT or inproc://NAME"
    )


class Sent(Enum):
    """What became of a message to one peer."""

    YES = auto()
    """It is on its way."""
    FULL = auto()
    """The peer does not read; its queue is full."""
    GONE = auto()
    """The peer has disconnected."""


class Client:
    """One connection to a server; reconnects by itself except over inproc.

    Args:
        endpoint: where the server is or will be.

    Raises:
        ConfigError: see :func:`check_endpoint`.
    """

    def __init__(self, endpoint: str) -> None:
        address = check_endpoint(endpoint)
        self.endpoint = endpoint
        self._socket = _socket(zmq.DEALER, address)
        # Without a connection nothing is queued: a request must not reach a server that
        # starts later.
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.connect(address)
        self._fd = int(self._socket.get(zmq.FD))

    def send(self, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand over a message without waiting; False when there is no connection or no room."""
        if self._socket.closed:
            return False
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_ns: int) -> list[bytes] | None:
        """Return the next message, or None when none came within ``timeout_ns``."""
        return _receive(self._socket, self._fd, timeout_ns)

    def close(self, linger_ms: int = 0) -> None:
        """Disconnect, trying for ``linger_ms`` behind the caller's back to send what is queued.

        Safe to call twice.
        """
        self._socket.close(linger=linger_ms)


class Server:
    """A bound address and its peers, told apart by routing identities.

    Args:
        endpoint: address to bind; tcp port ``*`` takes a free one, see :attr:`endpoint`.

    Raises:
        ConfigError: see :func:`check_endpoint`, or the directory of an ipc path is missing.
        EndpointInUse: another server is bound there.
    """

    def __init__(self, endpoint: str) -> None:
        address = check_endpoint(endpoint, bind=True)
        path = Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
        self._lock = _PathLock(endpoint, path) if path else None
        self._socket = _socket(zmq.ROUTER, address)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        try:
            self._socket.bind(address)
            if path:
                path.chmod(0o600)
        except (OSError, zmq.ZMQError) as error:
            self.close()
            raise _bind_error(endpoint, error) from None
        self._fd = int(self._socket.get(zmq.FD))
        bound = self._socket.get(zmq.LAST_ENDPOINT)
        self.endpoint = bound.rstrip(b"\0").decode() if isinstance(bound, bytes) else endpoint

    def receive(self, timeout_ns: int) -> tuple[bytes, list[bytes]] | None:
        """Return (identity, message) of the next message, or None after ``timeout_ns``."""
        frames = _receive(self._socket, self._fd, timeout_ns)
        return (frames[0], frames[1:]) if frames else None

    def send(self, identity: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand over a message without waiting; False when the peer is gone or has no room."""
        return self.offer(identity, frames) is Sent.YES

    def offer(self, identity: bytes, frames: Sequence[bytes | memoryview]) -> Sent:
        """Hand over a message without waiting, and tell what became of it."""
        try:
            self._socket.send_multipart([identity, *frames], zmq.DONTWAIT)
        except zmq.Again:
            return Sent.FULL
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return Sent.GONE
            raise
        return Sent.YES

    def close(self) -> None:
        """Unbind and free the address; safe to call twice."""
        self._socket.close(linger=0)
        if self._lock:
            self._lock.release()
            self._lock = None


class _PathLock:
    """Ownership of an ipc path: the library binds over a live server's socket without a word.

    The lock is of the file ``PATH.lock`` and goes with the process, however that ends.
    """

    def __init__(self, endpoint: str, path: Path) -> None:
        self._path = path
        self._file = path.with_name(path.name + ".lock")
        try:
            self._fd: int | None = _lock_file(self._file)
        except OSError as error:
            raise _bind_error(endpoint, error) from None
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            self.release(unlink=False)
            raise ConfigError(f"{endpoint}: a file that is no socket has this name")
        path.unlink(missing_ok=True)

    def release(self, unlink: bool = True) -> None:
        """Give the path up, and remove the socket the library leaves behind."""
        if self._fd is None:
            return
        if unlink:
            self._path.unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None


def _lock_file(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The former owner may have removed the file between our open and our lock.
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _check_tcp(endpoint: str, host: str, port: str, bind: bool) -> str:
    if host not in _LOOPBACK:
        raise ConfigError(
            f"{endpoint}: beyond loopback encryption keys are required, and they are not "
            f"available yet; expected host {', '.join(_LOOPBACK)}"
        )
    free = port == "*" or int(port) == 0
    if (free and not bind) or (port != "*" and int(port) > 65535):
        raise ConfigError(f"{endpoint}: port {port}, expected 1 to 65535")
    return f"tcp://{_LOOPBACK[host]}:{'*' if free else port}"


def _socket(kind: int, address: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, QUEUE_MESSAGES)
    socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.set(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    if address.startswith("tcp://["):
        socket.set(zmq.IPV6, 1)
    return socket


def _receive(socket: zmq.Socket[bytes], fd: int, timeout_ns: int) -> list[bytes] | None:
    deadline_ns = time.monotonic_ns() + timeout_ns
    while not socket.closed:
        # The library signals on its descriptor only from empty to not empty, so it is tried
        # before every wait. Its own poll counts in whole milliseconds.
        try:
            return socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            pass
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0:
            return None
        select.select([fd], [], [], remaining_ns / 1e9)
    return None


def _bind_error(endpoint: str, error: OSError | zmq.ZMQError) -> ConfigError | EndpointInUse:
    if error.errno in (errno.EADDRINUSE, errno.EWOULDBLOCK):
        return EndpointInUse(f"{endpoint}: in use by another server")
    if error.errno == errno.ENOENT:
        return ConfigError(f"{endpoint}: the directory does not exist")
    return ConfigError(f"{endpoint}: cannot be bound: {error.strerror or error}")
