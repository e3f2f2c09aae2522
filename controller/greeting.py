"""A client's session with a server: greeting, greeting again after the server was replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout, Refused, SpecMismatch, WireError
from controller.interfaces import Clock
from controller.spec import Spec
from controller.transport import Client
from controller.types import Array
from controller.wire import (
    PROTOCOL,
    AnyMessage,
    Hello,
    Message,
    Refusal,
    Role,
    Welcome,
    decode,
    decode_spec,
    encode,
)

GREET_EVERY_NS = 100_000_000
MAX_DRAIN = 256
"""Messages handled in one go: a flood cannot hold a caller for more than about a millisecond."""

_FINAL = ("protocol", "role", "spec")


class Session:
    """Disconnected → greeted → ready, and back when the server was replaced.

    Only :meth:`connect` and :meth:`receive` with a timeout wait.

    Args:
        endpoint: where the server is or will be.
        role: what the server is expected to be.
        clock: the caller's clock, for the clock probe.
        client_name: name for the server's log; the process id when empty.
        spec: what the server must have; None to take the server's.

    Attributes:
        spec: the agreed spec; None until the first welcome when none was given.
        welcome: the newest welcome; None before the first.
        ready: whether the server knows this client.
        refusal: why the server does not want this client; None when it does.
        malformed: messages that were not of this protocol or not expected.
        offset_ns: server's clock minus the caller's, from the fastest greeting so far.
    """

    def __init__(
        self,
        endpoint: str,
        role: Role,
        clock: Clock,
        client_name: str = "",
        spec: Spec | None = None,
    ) -> None:
        self._client = Client(endpoint)
        self.endpoint = endpoint
        self.spec = spec
        self.welcome: Welcome | None = None
        self.ready = False
        self.refusal: Refusal | None = None
        self.malformed = 0
        self.offset_ns = 0
        self._role: Role = role
        self._name = (client_name or f"{role}-{os.getpid()}")[:200]
        self._clock = clock
        self._fastest_ns = 2**63
        self._greeted_ns: int | None = None

    def greet(self) -> None:
        """Send a hello unless one is on its way; does not wait."""
        now_ns = _WALL.now_ns()
        pause_ns = 10 * GREET_EVERY_NS if self.refusal else GREET_EVERY_NS
        if self._greeted_ns is not None and now_ns - self._greeted_ns < pause_ns:
            return
        digest = self.spec.digest() if self.spec else ""
        hello = Hello(PROTOCOL, self._role, self._name, digest, self._clock.now_ns())
        if self._client.send(encode(hello)):
            self._greeted_ns = now_ns

    def connect(self, timeout_s: float) -> Spec:
        """Wait until the server welcomes this client, and return the spec.

        Raises:
            PeerTimeout: nobody answered within ``timeout_s``.
            SpecMismatch: the server describes another robot.
            Refused: the server speaks another protocol or is not what was expected.
        """
        until_ns = _WALL.now_ns() + round(timeout_s * 1e9)
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
        """Send without waiting; False when there is no connection or no room."""
        return self._client.send(encode(message, arrays))

    def receive(self, timeout_ns: int) -> tuple[AnyMessage, Sequence[bytes]] | None:
        """Return the next valid message and its arrays, or None after ``timeout_ns``.

        Greetings are taken note of before they are returned.
        """
        until_ns = _WALL.now_ns() + timeout_ns
        for _ in range(MAX_DRAIN):
            frames = self._client.receive(max(0, until_ns - _WALL.now_ns()))
            if frames is None:
                return None
            try:
                message, arrays = decode(frames)
                self._note(message)
            except WireError:
                self.malformed += 1
            else:
                return message, arrays
        return None

    def lost(self) -> None:
        """Take note that the server does not know this client any more."""
        self.ready, self.refusal = False, None
        self._greeted_ns = None
        self._fastest_ns = 2**63

    def close(self, farewell: Message | None = None) -> None:
        """Leave; safe to call twice."""
        if farewell is not None and self.ready:
            self._client.send(encode(farewell))
        self.ready = False
        self._client.close(linger_ms=100 if farewell is not None else 0)

    def _note(self, message: AnyMessage) -> None:
        if isinstance(message, Welcome):
            self._welcomed(message, decode_spec(message.spec))
        elif isinstance(message, Refusal):
            if message.code in _FINAL:
                self._refuse(message)
            else:
                self.malformed += 1

    def _welcomed(self, welcome: Welcome, spec: Spec) -> None:
        if welcome.protocol != PROTOCOL:
            self._refuse(Refusal("protocol", f"it speaks {welcome.protocol}, not {PROTOCOL}"))
            return
        if self.spec is not None and self.spec != spec:
            self._refuse(Refusal("spec", spec.describe()))
            return
        self.spec, self.welcome, self.ready, self.refusal = spec, welcome, True, None
        now_ns = self._clock.now_ns()
        round_trip_ns = now_ns - welcome.sent_ns
        if 0 <= round_trip_ns < self._fastest_ns:
            self._fastest_ns = round_trip_ns
            self.offset_ns = welcome.server_ns - (welcome.sent_ns + now_ns) // 2

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
