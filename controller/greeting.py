"""A client's session with a server: greeting, greeting again after the server was replaced."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout, Refused, SpecMismatch, WireError
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.spec_coding import decode_spec
from controller.transport import Client
from controller.types import Array
from controller.wire import (
    PROTOCOL,
    AnyMessage,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    Role,
    Welcome,
    decode,
    encode,
)

GREET_EVERY_NS = 100_000_000
RECONNECT_EVERY_NS = 1_000_000_000
"""After this long without a connection another is begun: the library gives up on what breaks its
protocol, and on a server that refused a key."""

MAX_DRAIN = 256
"""Messages handled in one go: a flood cannot hold a caller for more than about a millisecond."""

PING_EVERY_NS = 1_000_000_000
CLOCK_WINDOW = 16
"""Newest looks at the server's clock, of which the fastest counts: an older one drifts away."""

_FINAL = ("protocol", "role", "spec", "policy")
_GREETINGS = frozenset((Welcome, Refusal, Pong))


class Session:
    """Disconnected → greeted → ready, and back when the server was replaced.

    Only :meth:`connect` and :meth:`receive` with a timeout wait.

    Args:
        endpoint: where the server is or will be.
        role: what the server is expected to be.
        clock: the caller's clock, for the clock probe.
        client_name: name for the server's log; the process id when empty.
        spec: what the server must have; None to take the server's.
        policy: name of the policy that is wanted; empty for the server's first.
        keys: encrypt, and talk to the server of this key alone; needed beyond loopback.

    Attributes:
        spec: the agreed spec; None until the first welcome when none was given.
        welcome: the newest welcome; None before the first.
        ready: whether the server knows this client.
        refusal: why the server does not want this client; None when it does.
        malformed: messages that were not of this protocol or not expected.
        offset_ns: server's clock minus the caller's, off by half of ``offset_error_ns`` at most.
        offset_error_ns: what the fastest of the newest looks at the server's clock spent on the
            way; -1 before the first.
    """

    def __init__(
        self,
        endpoint: str,
        role: Role,
        clock: Clock,
        client_name: str = "",
        spec: Spec | None = None,
        policy: str = "",
        keys: ClientKeys | None = None,
    ) -> None:
        self._client = Client(endpoint, keys)
        self.endpoint = endpoint
        self.spec = spec
        self.welcome: Welcome | None = None
        self.ready = False
        self.refusal: Refusal | None = None
        self.malformed = 0
        self.offset_ns = 0
        self._role: Role = role
        self._name = (client_name or f"{role}-{os.getpid()}")[:200]
        self._clock, self._policy = clock, policy
        self._looks: deque[tuple[int, int]] = deque(maxlen=CLOCK_WINDOW)
        self.offset_error_ns = -1
        self._pinged_ns = 0
        self._greeted_ns: int | None = None
        self._cut_off_ns: int | None = None

    def fileno(self) -> int:
        """Return a descriptor as :meth:`controller.transport.Client.fileno` does."""
        return self._client.fileno()

    def greet(self) -> None:
        """Send a hello unless one is on its way; does not wait."""
        now_ns = _WALL.now_ns()
        pause_ns = 10 * GREET_EVERY_NS if self.refusal else GREET_EVERY_NS
        if self._greeted_ns is not None and now_ns - self._greeted_ns < pause_ns:
            return
        digest = self.spec.digest() if self.spec else ""
        hello = Hello(PROTOCOL, self._role, self._name, digest, self._clock.now_ns(), self._policy)
        if self._client.send(encode(hello)):
            self._greeted_ns, self._cut_off_ns = now_ns, None
        else:
            self._cut_off(now_ns)

    def connect(self, timeout_s: float) -> Spec:
        """Wait until the server welcomes this client, and return the spec.

        Raises:
            PeerTimeout: nobody answered within ``timeout_s``.
            SpecMismatch: the server describes another robot.
            Refused: the server speaks another protocol, is not what was expected, or one side
                does not accept the other's key.
        """
        until_ns = _WALL.now_ns() + round(timeout_s * 1e9)
        if self.refusal is not None and self.refusal.code == "key":
            self._client.reconnect()
        self.lost()
        while not self.ready:
            self.greet()
            remaining_ns = until_ns - _WALL.now_ns()
            if remaining_ns <= 0:
                raise PeerTimeout(
                    f"{self.endpoint}: no server answered within {timeout_s:g} s; is it running?"
                )
            self.receive(
                min(remaining_ns, 10_000_000 if self._greeted_ns is None else GREET_EVERY_NS)
            )
            if self.refusal is not None:
                raise self._refused(self.refusal)
        assert self.spec is not None
        return self.spec

    def send(self, message: Message, arrays: Sequence[Array] = ()) -> bool:
        """Send without waiting; False when there is no connection or no room.

        Now and then a look at the server's clock goes along.
        """
        sent = self._client.send(encode(message, arrays))
        now_ns = self._clock.now_ns()
        if sent and self.ready and now_ns - self._pinged_ns >= PING_EVERY_NS:
            self._pinged_ns = now_ns
            self._client.send(encode(Ping(now_ns)))
        return sent

    def receive(self, timeout_ns: int) -> tuple[AnyMessage, Sequence[bytes]] | None:
        """Return the next valid message and its arrays, or None after ``timeout_ns``.

        Greetings are taken note of before they are returned.
        """
        until_ns = _WALL.now_ns() + timeout_ns if timeout_ns > 0 else 0
        for _ in range(MAX_DRAIN):
            frames = self._client.receive(timeout_ns)
            if frames is None:
                return None
            try:
                message, arrays = decode(frames)
                if type(message) in _GREETINGS:
                    self._note(message)
            except WireError:
                self.malformed += 1
                timeout_ns = max(0, until_ns - _WALL.now_ns())
            else:
                return message, arrays
        return None

    def lost(self) -> None:
        """Take note that the server does not know this client any more."""
        self.ready, self.refusal = False, None
        self._greeted_ns = None
        self._looks.clear()

    def close(self, farewell: Message | None = None) -> None:
        """Leave; safe to call twice."""
        if farewell is not None and self.ready:
            self._client.send(encode(farewell))
        self.ready = False
        self._client.close(linger_ms=500 if farewell is not None else 0)

    def _cut_off(self, now_ns: int) -> None:
        """Ask the library why there is no connection, and have it begin another now and then."""
        if objection := self._client.objection():
            self._refuse(Refusal("key", objection))
        if self._cut_off_ns is None:
            self._cut_off_ns = now_ns
        elif now_ns - self._cut_off_ns >= RECONNECT_EVERY_NS:
            self._client.reconnect()
            self._cut_off_ns = now_ns

    def _note(self, message: AnyMessage) -> None:
        if isinstance(message, Welcome):
            # Of several hellos that were on their way, the first welcome counts.
            if not self.ready:
                self._welcomed(message, decode_spec(message.spec))
        elif isinstance(message, Refusal):
            if message.code in _FINAL and not self.ready:
                self._refuse(message)
            else:
                self.malformed += 1
        elif isinstance(message, Pong):
            self._look(message.sent_ns, message.arrived_ns, message.server_ns)

    def _welcomed(self, welcome: Welcome, spec: Spec) -> None:
        if welcome.protocol != PROTOCOL:
            self._refuse(Refusal("protocol", f"it speaks {welcome.protocol}, not {PROTOCOL}"))
            return
        if self.spec is not None and self.spec != spec:
            self._refuse(Refusal("spec", spec.describe()))
            return
        self.spec, self.welcome, self.ready, self.refusal = spec, welcome, True, None
        self._look(welcome.sent_ns, welcome.server_ns, welcome.server_ns)

    def _look(self, sent_ns: int, arrived_ns: int, server_ns: int) -> None:
        """Take note of the server's clock (Mills 1991: offset, delay, clock filter)."""
        now_ns = self._clock.now_ns()
        delay_ns = (now_ns - sent_ns) - (server_ns - arrived_ns)
        if delay_ns < 0 or server_ns < arrived_ns or sent_ns > now_ns:
            return
        self._looks.append((delay_ns, ((arrived_ns - sent_ns) + (server_ns - now_ns)) // 2))
        self.offset_error_ns, self.offset_ns = min(self._looks)

    def _refuse(self, refusal: Refusal) -> None:
        self.ready, self.refusal = False, refusal

    def _refused(self, refusal: Refusal) -> SpecMismatch | Refused:
        if refusal.code == "spec" and self.spec is not None:
            return SpecMismatch(
                f"{self._name} and {self.endpoint} describe different robots: {self._name} has "
                f"{self.spec.describe()}; {self.endpoint} has {refusal.detail}"
            )
        return Refused(f"{self.endpoint}: refused ({refusal.code}): {refusal.detail}")


_WALL = MonotonicClock()  # sockets wait in real time, whatever clock the caller lives by
