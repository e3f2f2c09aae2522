"""A server's door: greets clients, keeps their sessions, turns bad bytes and strangers away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from controller.errors import WireError
from controller.interfaces import Clock
from controller.keys import ServerKeys
from controller.rate_cap import RateCap
from controller.spec import Spec
from controller.spec_coding import encode_spec
from controller.transport import Sent, Server
from controller.types import Array
from controller.wire import (
    MAX_FRAME_BYTES,
    MAX_HEADER_BYTES,
    MAX_HORIZON,
    PROTOCOL,
    AnyMessage,
    Ask,
    Bye,
    Command,
    Draw,
    Fetch,
    Hello,
    Insert,
    Message,
    Ping,
    Pong,
    Refusal,
    Reject,
    Report,
    Reset,
    Role,
    Steer,
    Welcome,
    decode,
    encode,
    one_line,
)

logger = logging.getLogger(__name__)

MAX_SESSIONS = 128
MAX_RATE_HZ = 20_000.0
"""Above what one client reaches that waits for every answer: 55 µs there and back make 18 000."""

MAX_BYTES_S = 200e6
DEAF_AFTER = 500
"""Messages in a row that a client did not read before its session ends."""


_OF_ROLE = frozenset((Ask, Command, Reset, Steer, Insert, Draw, Fetch))
"""What only clients of the server's own role may send."""


class Delivery(NamedTuple):
    """A message of a greeted client that the server itself has to deal with."""

    identity: bytes
    message: AnyMessage
    arrays: Sequence[bytes]
    arrived_ns: int
    policy: str


@dataclass(slots=True)
class Guest:
    """One session; ``policy`` is the name of what the client asks."""

    name: str
    role: Role
    policy: str
    heard_ns: int
    unread: int = 0


class _Offer:
    """What is agreed on with the clients of one policy."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.digest, self.encoded = spec, spec.digest(), encode_spec(spec)


class Reception:
    """The sessions of one server, keyed by routing identity.

    Args:
        endpoint: address to bind.
        role: what the server is.
        specs: what clients must agree with, by the name of a policy; the first stands also for
            the empty name. A plant has the empty name alone.
        clock: stamps arrivals and answers the clock probe.
        version: gives the version of a policy for the welcome, by its name.
        keys: encrypt, and let in whose key is listed; needed beyond loopback.
        max_rate_hz: messages per second and client; what is more is dropped.
        max_bytes_s: bytes per second and client, likewise.
        max_frame_bytes: longest frame of a client; None for what requests and commands need.

    Attributes:
        endpoint: the bound address.
        malformed: messages that were not of this protocol or not for this server.
        draining: whether newcomers are told that the server is about to end.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`.
        EndpointInUse: another server is bound there.
        WireError: a spec does not fit the protocol.
    """

    def __init__(
        self,
        endpoint: str,
        role: Role,
        specs: Mapping[str, Spec],
        clock: Clock,
        version: Callable[[str], str] = lambda name: "",
        *,
        keys: ServerKeys | None = None,
        max_rate_hz: float = MAX_RATE_HZ,
        max_bytes_s: float = MAX_BYTES_S,
        max_frame_bytes: int | None = None,
    ) -> None:
        self._offers = {name: _Offer(spec) for name, spec in specs.items()}
        self._default = next(iter(specs))
        self._role: Role = role
        self._clock = clock
        self._version = version
        self._guests: dict[bytes, Guest] = {}
        self._gone: dict[bytes, str] = {}
        self._cap = RateCap(max_rate_hz, max_bytes_s)
        longest = max_frame_bytes or max(map(_longest_frame, specs.values()))
        self._server = Server(endpoint, keys, longest)
        self.endpoint = self._server.endpoint
        self.malformed = 0
        self.draining = False

    def deliveries(self, timeout_ns: int, limit: int) -> Iterator[Delivery]:
        """Yield what greeted clients sent, waiting up to ``timeout_ns`` for the first message.

        At most ``limit`` messages of any kind are looked at, so that a flood cannot keep the
        caller. Greetings and refusals are dealt with here.
        """
        for count in range(limit):
            received = self._server.receive(0 if count else timeout_ns)
            if received is None:
                return
            delivery = self._admit(*received)
            if delivery is not None:
                yield delivery

    def guests(self, role: Role) -> list[bytes]:
        """Return the identities of the greeted clients of a role."""
        return [identity for identity, guest in self._guests.items() if guest.role == role]

    def knows(self, identity: bytes) -> bool:
        """Return whether the client still has a session."""
        return identity in self._guests

    def name(self, identity: bytes) -> str:
        """Return the client's name for itself; empty when it has left."""
        guest = self._guests.get(identity)
        return guest.name if guest else ""

    @property
    def dropped(self) -> int:
        """Messages above the rate that clients may send at."""
        return self._cap.dropped

    def dropped_of(self, identity: bytes) -> int:
        """Return how many of a client's messages were dropped, because it sent too many."""
        return self._cap.dropped_of(identity)

    def send(self, identity: bytes, message: Message, arrays: Sequence[Array] = ()) -> bool:
        """Send without waiting; the session of a client that is gone or does not read ends."""
        sent = self._server.offer(identity, encode(message, arrays))
        guest = self._guests.get(identity)
        if guest is not None:
            guest.unread = 0 if sent is Sent.YES else guest.unread + 1
            if sent is Sent.GONE or guest.unread >= DEAF_AFTER:
                self._dismiss(identity)
                self._remember(identity, guest.policy)
        return sent is Sent.YES

    def report(self, identity: bytes, verb: str, ok: bool, detail: Mapping[str, Any]) -> None:
        """Answer a control request with one JSON object."""
        text = msgspec.json.encode(detail).decode()
        self.send(identity, Report(verb, ok, text))

    def refuse(self, identity: bytes, detail: str) -> None:
        """Tell a client that its message makes no sense here, and count it."""
        self.malformed += 1
        self.send(identity, Refusal("malformed", one_line(detail)))

    def close(self) -> None:
        """Free the address; safe to call twice."""
        self._guests.clear()
        self._server.close()

    def _admit(self, identity: bytes, frames: Sequence[bytes]) -> Delivery | None:
        now_ns = self._clock.now_ns()
        if not self._cap.admits(identity, sum(map(len, frames)), now_ns):
            self._slow_down(identity, now_ns)
            return None
        try:
            message, arrays = decode(frames)
        except WireError as error:
            self.refuse(identity, str(error))
            return None
        if isinstance(message, Hello):
            self._greet(identity, message, now_ns)
            return None
        guest = self._guests.get(identity)
        if guest is None:
            if isinstance(message, Bye) and identity in self._gone:
                return Delivery(identity, message, arrays, now_ns, self._gone.pop(identity))
            self._turn_away(identity, message)
            return None
        guest.heard_ns = now_ns
        if type(message) in _OF_ROLE:
            if guest.role != self._role:
                self.refuse(identity, f"a {self._role} server got this from a {guest.role} client")
                return None
        elif isinstance(message, Ping):
            self.send(identity, Pong(message.sent_ns, now_ns, self._clock.now_ns()))
            return None
        elif isinstance(message, Bye):
            self._dismiss(identity)
        return Delivery(identity, message, arrays, now_ns, guest.policy)

    def _slow_down(self, identity: bytes, now_ns: int) -> None:
        """Tell a client now and then that what it sends is dropped."""
        if self._cap.tells(identity, now_ns):
            count = self._cap.dropped_of(identity)
            detail = f"{count} messages dropped: more than {self._cap.words}"
            self.send(identity, Reject(-1, "rate", detail))

    def _greet(self, identity: bytes, hello: Hello, now_ns: int) -> None:
        refusal = self._objection(hello)
        if refusal is not None:
            logger.info("refused %s: %s: %s", hello.client, refusal.code, refusal.detail)
            self.send(identity, refusal)
            return
        if identity not in self._guests and len(self._guests) >= MAX_SESSIONS:
            self._dismiss(min(self._guests, key=lambda key: self._guests[key].heard_ns))
        name = hello.policy or self._default
        self._guests[identity] = Guest(hello.client, hello.role, name, now_ns)
        welcome_spec = self._offers[name].encoded
        self.send(
            identity,
            Welcome(PROTOCOL, welcome_spec, self._version(name), hello.sent_ns, now_ns),
        )

    def _objection(self, hello: Hello) -> Refusal | None:
        if hello.protocol != PROTOCOL:
            return Refusal("protocol", f"server speaks {PROTOCOL}, client {hello.protocol}")
        if hello.role not in (self._role, "control"):
            return Refusal("role", f"this is a {self._role} server, no {hello.role} server")
        offer = self._offers.get(hello.policy or self._default)
        if offer is None:
            names = ", ".join(self._offers)
            return Refusal("policy", one_line(f"no policy {hello.policy!r} here, only {names}"))
        if self.draining and hello.role != "control":
            return Refusal("draining", "the server is about to end")
        if hello.spec_digest not in ("", offer.digest) and hello.role != "control":
            return Refusal("spec", one_line(offer.spec.describe()))
        return None

    def _turn_away(self, identity: bytes, message: Message) -> None:
        tick = message.tick if isinstance(message, (Ask, Command)) else -1
        if not isinstance(message, Bye):
            self.send(identity, Reject(tick, "no_session", "say hello first"))

    def _dismiss(self, identity: bytes) -> None:
        del self._guests[identity]

    def _remember(self, identity: bytes, policy: str) -> None:
        """Remember who was found to be gone: its farewell may still lie behind what it asked."""
        self._gone[identity] = policy
        while len(self._gone) > MAX_SESSIONS:
            del self._gone[next(iter(self._gone))]


def _longest_frame(spec: Spec) -> int:
    """Return the length of the longest frame that clients of a robot may send."""
    observed = max(array.nbytes for array in spec.observation)
    return max(MAX_HEADER_BYTES, observed, min(MAX_FRAME_BYTES, MAX_HORIZON * spec.action.nbytes))
