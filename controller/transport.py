"""Blocking sockets with deadlines: a DEALER at the client, a ROUTER at the server.

The only module that knows the messaging library. Waiting happens in real time, whatever clock
the caller lives by. A socket belongs to the thread that uses it.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import struct
import time
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path

import zmq
from zmq.utils import z85

from controller.endpoints import beyond_loopback, bind_error, check_endpoint
from controller.handshakes import Handshake, Handshakes
from controller.keys import AllowList, ClientKeys, ServerKeys
from controller.path_lock import PathLock
from controller.wire import MAX_FRAME_BYTES

QUEUE_MESSAGES = 64
"""Messages a socket holds per peer and direction. Receivers drain to the newest, so a queue adds
no delay; when it is full the sender learns at once."""

RECONNECT_MS = 20
HEARTBEAT_MS = 500
SILENT_MS = 2000
"""Over a network a peer that says nothing for this long has gone: what was queued for it is
dropped, instead of coming late when the network is back."""

LOOK_EVERY = 16
"""Messages between two looks at handshakes while messages never run out."""

_HANDSHAKES = {
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED): Handshake.DONE,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): Handshake.BROKEN,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): Handshake.GARBLED,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): Handshake.NOT_LISTED,
}
_NUMBERS = itertools.count()

# As plain numbers, and without what the library wraps around sending: half the time a message.
_NOW, _MORE, _READABLE = map(int, (zmq.DONTWAIT, zmq.DONTWAIT | zmq.SNDMORE, zmq.POLLIN))
_send_frame = zmq.backend.Socket.send


def key_pair() -> tuple[bytes, bytes]:
    """Return a new (public, secret) pair of keys."""
    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


def public_key(secret: bytes) -> bytes:
    """Return the public key that belongs to a secret one."""
    return z85.decode(zmq.curve_public(z85.encode(secret)))


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
        keys: encrypt, and talk to the server of this key alone.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`.
    """

    def __init__(self, endpoint: str, keys: ClientKeys | None = None) -> None:
        self._address = address = check_endpoint(endpoint, keys=keys is not None)
        self.endpoint = endpoint
        self._socket = _socket(zmq.Context.instance(), zmq.DEALER, address)
        # Without a connection nothing is queued: a request must not reach a server that
        # starts later.
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        if keys is not None:
            self._socket.set(zmq.CURVE_SECRETKEY, keys.secret)
            self._socket.set(zmq.CURVE_PUBLICKEY, public_key(keys.secret))
            self._socket.set(zmq.CURVE_SERVERKEY, keys.server)
        self._monitor = None if address.startswith("inproc:") else _Monitor(self._socket, keys)
        self._socket.connect(address)
        self._fd = int(self._socket.get(zmq.FD))

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when there may be something to receive.

        Receive until there is nothing before waiting for it: it tells of changes only.
        """
        return self._fd

    def send(self, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand over a message without waiting; False when there is no connection or no room."""
        if self._socket.closed:
            return False
        try:
            _send(self._socket, frames)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_ns: int) -> list[bytes] | None:
        """Return the next message, or None when none came within ``timeout_ns``."""
        return _receive(self._socket, self._fd, timeout_ns)

    def objection(self) -> str:
        """Return why connections failed since the last call, in one line; empty if none did.

        A server that is not there is no failure. After one the library may have given up:
        see :meth:`reconnect`.
        """
        return self._monitor.objection() if self._monitor else ""

    def reconnect(self) -> None:
        """Give the connection up, and what is queued with it, and begin another."""
        if self._socket.closed:
            return
        with contextlib.suppress(zmq.ZMQError):  # The library may have given it up itself.
            self._socket.disconnect(self._address)
        self._socket.connect(self._address)

    def close(self, linger_ms: int = 0) -> None:
        """Disconnect, trying for ``linger_ms`` behind the caller's back to send what is queued.

        Safe to call twice.
        """
        if self._monitor:
            self._monitor.close()
            self._monitor = None
        self._socket.close(linger=linger_ms)


class Server:
    """A bound address and its peers, told apart by routing identities.

    Args:
        endpoint: address to bind; tcp port ``*`` takes a free one, see :attr:`endpoint`.
        keys: encrypt, and let in whose public key is listed; others learn that theirs is not.
        max_frame_bytes: longest frame; a longer one costs its sender the connection.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`, or the directory of an ipc
            path is missing, or the address is not this machine's.
        EndpointInUse: another server is bound there.
    """

    def __init__(
        self,
        endpoint: str,
        keys: ServerKeys | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        address = check_endpoint(endpoint, bind=True, keys=keys is not None)
        path = Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
        try:
            self._lock = PathLock(endpoint, path) if path else None
        except OSError as error:
            raise bind_error(endpoint, error.errno, error.strerror) from None
        self._door, self._looked = _Door(keys) if keys else None, 0
        context = self._door.context if self._door else zmq.Context.instance()
        self._socket = _socket(context, zmq.ROUTER, address)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.MAXMSGSIZE, max_frame_bytes)
        if self._door:
            self._door.guard(self._socket)
        try:
            self._socket.bind(address)
            if path:
                path.chmod(0o600)
        except (OSError, zmq.ZMQError) as error:
            self.close()
            raise bind_error(endpoint, error.errno, error.strerror) from None
        self._fd = int(self._socket.get(zmq.FD))
        bound = self._socket.get(zmq.LAST_ENDPOINT)
        self.endpoint = bound.rstrip(b"\0").decode() if isinstance(bound, bytes) else endpoint

    def fileno(self) -> int:
        """Return a descriptor as :meth:`Client.fileno` does; it does not tell of handshakes."""
        return self._fd

    def receive(self, timeout_ns: int) -> tuple[bytes, list[bytes]] | None:
        """Return (identity, message) of the next message, or None after ``timeout_ns``.

        With keys, clients that connect are let in or turned away meanwhile.
        """
        if self._door:
            self._looked += 1
            if self._looked % LOOK_EVERY == 0:
                self._door.answer()
        frames = _receive(self._socket, self._fd, timeout_ns, self._door)
        return (frames[0], frames[1:]) if frames else None

    def send(self, identity: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand over a message without waiting; False when the peer is gone or has no room."""
        return self.offer(identity, frames) is Sent.YES

    def offer(self, identity: bytes, frames: Sequence[bytes | memoryview]) -> Sent:
        """Hand over a message without waiting, and tell what became of it."""
        try:
            _send(self._socket, (identity, *frames))
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
        if self._door:
            self._door.close()
            self._door = None
        if self._lock:
            self._lock.release()


class RequestSocket:
    """One question at a time: the next may go only after the answer came.

    The lockstep pair of the library, REQ and REP, as a yardstick: it has no way to give up a
    question but :meth:`close`, and no part of the runtime waits like that.
    """

    def __init__(self, endpoint: str) -> None:
        self._socket = _socket(zmq.Context.instance(), zmq.REQ, check_endpoint(endpoint))
        self._socket.connect(check_endpoint(endpoint))
        self._fd = int(self._socket.get(zmq.FD))

    def fileno(self) -> int:
        """Return a descriptor as :meth:`Client.fileno` does."""
        return self._fd

    def send(self, frame: bytes) -> bool:
        """Ask; False when there is no connection, or the last question is still open."""
        try:
            self._socket.send(frame, zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        return True

    def receive(self, timeout_ns: int) -> bytes | None:
        """Return the answer, or None when none came within ``timeout_ns``."""
        frames = _receive(self._socket, self._fd, timeout_ns)
        return frames[0] if frames else None

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        self._socket.close(linger=0)


class ReplySocket:
    """The other end of :class:`RequestSocket`: takes a question, and the next after its answer."""

    def __init__(self, endpoint: str) -> None:
        self._socket = _socket(zmq.Context.instance(), zmq.REP, check_endpoint(endpoint, bind=True))
        try:
            self._socket.bind(check_endpoint(endpoint, bind=True))
        except zmq.ZMQError as error:
            self.close()
            raise bind_error(endpoint, error.errno, error.strerror) from None
        self._fd = int(self._socket.get(zmq.FD))

    def receive(self, timeout_ns: int) -> bytes | None:
        """Return the next question, or None when none came within ``timeout_ns``."""
        frames = _receive(self._socket, self._fd, timeout_ns)
        return frames[0] if frames else None

    def send(self, frame: bytes) -> None:
        """Answer the question received last."""
        self._socket.send(frame)

    def close(self) -> None:
        """Unbind; safe to call twice."""
        self._socket.close(linger=0)


class _Monitor:
    """What the library says of a client's handshakes; it says nothing of messages."""

    def __init__(self, socket: zmq.Socket[bytes], keys: ClientKeys | None) -> None:
        mine = public_key(keys.secret) if keys else None
        self._watched, self._handshakes = socket, Handshakes(mine, keys)
        where = f"inproc://handshakes-{next(_NUMBERS)}"
        socket.monitor(where, sum(_HANDSHAKES))
        self._socket: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
        # With a limit the library's own thread would wait for this one to read.
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.connect(where)

    def objection(self) -> str:
        found = ""
        while True:
            try:
                event, value = struct.unpack("=HI", self._socket.recv_multipart(zmq.DONTWAIT)[0])
            except zmq.Again:
                return found
            mismatch = value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
            found = self._handshakes.judge(Handshake.MISMATCH if mismatch else _HANDSHAKES[event])

    def close(self) -> None:
        self._watched.disable_monitor()
        self._socket.close(linger=0)


class _Door:
    """Lets listed keys in, in the server's own thread: a handshake costs it some microseconds.

    The library asks one socket of its context, so every server with keys has its own context.
    """

    def __init__(self, keys: ServerKeys) -> None:
        self._secret, self._list = keys.secret, AllowList(keys.clients)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self.context.socket(zmq.REP)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind("inproc://zeromq.zap.01")
        self.fd = int(self._socket.get(zmq.FD))

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, self._secret)
        # Without a domain or anyone to ask, the library would let everybody in.
        socket.set(zmq.ZAP_DOMAIN, b"onebeat")
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def answer(self) -> None:
        """Answer every handshake that waits."""
        while True:
            try:
                request = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._socket.send_multipart(self._list.admit(request), zmq.DONTWAIT)

    def close(self) -> None:
        self._socket.close(linger=0)
        self.context.term()


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, QUEUE_MESSAGES)
    socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.set(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.set(zmq.IPV6, int(address.startswith("tcp://[")))
    if beyond_loopback(address):
        socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, SILENT_MS)
    return socket


def _receive(
    socket: zmq.Socket[bytes], fd: int, timeout_ns: int, door: _Door | None = None
) -> list[bytes] | None:
    deadline_ns, told = time.monotonic_ns() + timeout_ns, False
    while not socket.closed:
        # The library signals on its descriptors only from empty to not empty, so it is asked
        # before every wait. Its own poll counts in whole milliseconds.
        if told or int(socket.getsockopt(zmq.EVENTS)) & _READABLE:
            try:
                frames = [socket.recv(_NOW, copy=False)]
                while frames[-1].more:
                    frames.append(socket.recv(_NOW, copy=False))
                return [frame.bytes for frame in frames]
            except zmq.Again:
                told = False
        if door is not None:
            door.answer()
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0:
            return None
        waited = [fd] if door is None else [fd, door.fd]
        told = fd in select.select(waited, [], [], remaining_ns / 1e9)[0]
    return None


def _send(socket: zmq.Socket[bytes], frames: Sequence[bytes | memoryview]) -> None:
    for frame in frames[:-1]:
        _send_frame(socket, frame, _MORE)
    _send_frame(socket, frames[-1], _NOW)
