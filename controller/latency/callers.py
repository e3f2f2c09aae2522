"""Clients that ask without waiting: of the policy server, of today's design, and of an echo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from controller.errors import PeerTimeout
from controller.greeting import Session
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.latency.baseline import answered, question
from controller.latency.endpoints import resting
from controller.spec import Spec
from controller.transport import Client, RequestSocket
from controller.wire import Answer, Ask, Bye, Reject

ANSWER_TIMEOUT_NS = 1_000_000_000
HEADER_BYTES = 64
Kind = Literal["policy", "baseline", "echo"]


class Answered(NamedTuple):
    """What came back, with what the server says of it; -1 and 0 where it says nothing.

    Attributes:
        ok: whether it is an answer, not a refusal.
        queue_ns: time the request waited.
        infer_ns: time the server computed.
        evaluations: network evaluations spent.
        batch: requests answered together.
    """

    ok: bool = True
    queue_ns: int = -1
    infer_ns: int = -1
    evaluations: int = 0
    batch: int = 0


class Caller(Protocol):
    """One client with at most one open question."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when there may be an answer."""
        ...

    def connect(self, timeout_s: float) -> None:
        """Wait for the server; raises PeerTimeout."""
        ...

    def ask(self, tick: int) -> bool:
        """Send a question without waiting; False when that is not possible."""
        ...

    def answer(self) -> Answered | None:
        """Return the answer to the newest question if it is there; never waits."""
        ...

    def abandon(self) -> None:
        """Give the open question up."""
        ...

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        ...


class PolicyCaller:
    """A client of the policy server.

    Every request grants :data:`ANSWER_TIMEOUT_NS`: one that is turned away for being late
    would count as no longer than its deadline.
    """

    def __init__(
        self, endpoint: str, spec: Spec, clock: Clock, keys: ClientKeys | None = None
    ) -> None:
        self._session = Session(endpoint, "policy", clock, "latency", spec, keys=keys)
        self._arrays = resting(spec).arrays
        self._tick = -1
        self.version = ""

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._session.fileno()

    def connect(self, timeout_s: float) -> None:
        """Wait for the server's welcome."""
        self._session.connect(timeout_s)
        assert self._session.welcome is not None
        self.version = self._session.welcome.version

    @property
    def offset_ns(self) -> tuple[int, int]:
        """The server's clock less ours, and how far that may be off."""
        return self._session.offset_ns, self._session.offset_error_ns

    def ask(self, tick: int) -> bool:
        """Send a request."""
        self._tick = tick
        ask = Ask(tick, 0, 0, tick, 0, ANSWER_TIMEOUT_NS)
        return self._session.send(ask, self._arrays)

    def answer(self) -> Answered | None:
        """Return the answer to the newest request, or that it was turned away."""
        while (item := self._session.receive(0)) is not None:
            message, _ = item
            if isinstance(message, Answer) and message.tick == self._tick:
                return Answered(
                    True, message.queue_ns, message.infer_ns, message.evaluations, message.batch
                )
            if isinstance(message, Reject) and message.tick == self._tick:
                return Answered(ok=False)
        return None

    def abandon(self) -> None:
        """Forget the request: an answer that comes yet is passed over."""
        self._tick = -1

    def close(self) -> None:
        """Leave."""
        self._session.close(Bye())


class BaselineCaller:
    """A client of a server of today's design, which has to wait for its answer."""

    def __init__(self, endpoint: str, spec: Spec) -> None:
        self._endpoint, self._spec = endpoint, spec
        self._arrays = resting(spec).arrays
        self._socket = RequestSocket(endpoint)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def connect(self, timeout_s: float) -> None:
        """Wait for a first answer."""
        self._socket.send(question(self._spec.observation, self._arrays))
        if self._socket.receive(round(timeout_s * 1e9)) is None:
            self.abandon()
            raise PeerTimeout(f"{self._endpoint}: no baseline server answered in {timeout_s:g} s")

    def ask(self, tick: int) -> bool:
        """Send a request."""
        return self._socket.send(question(self._spec.observation, self._arrays))

    def answer(self) -> Answered | None:
        """Return the answer if it is there."""
        frame = self._socket.receive(0)
        if frame is None:
            return None
        fields = answered(frame)
        return Answered(True, -1, fields["infer_ns"], fields["evaluations"], 1)

    def abandon(self) -> None:
        """Connect anew: such a socket cannot ask again before its answer came."""
        self._socket.close()
        self._socket = RequestSocket(self._endpoint)

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


class EchoCaller:
    """A client that gets its own message back: the floor under both others."""

    def __init__(self, endpoint: str, spec: Spec, keys: ClientKeys | None = None) -> None:
        self._client = Client(endpoint, keys)
        self._endpoint = endpoint
        self._rest: Sequence[bytes] = (
            bytes(HEADER_BYTES),
            *(array.tobytes() for array in resting(spec).arrays),
        )
        self._label = b""
        self._count = 0

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._client.fileno()

    def connect(self, timeout_s: float) -> None:
        """Wait for a first echo."""
        for _ in range(max(1, round(timeout_s / 0.1))):
            # Without a connection nothing is sent; this waits for one too.
            self.ask(0)
            if self._client.receive(100_000_000):
                return
        raise PeerTimeout(f"{self._endpoint}: no echo within {timeout_s:g} s")

    def ask(self, tick: int) -> bool:
        """Send a message that no other has the label of."""
        self._count += 1
        self._label = self._count.to_bytes(8, "little")
        return self._client.send([self._label, *self._rest])

    def answer(self) -> Answered | None:
        """Return whether the newest message is back."""
        while (frames := self._client.receive(0)) is not None:
            if frames[0] == self._label:
                return Answered()
        return None

    def abandon(self) -> None:
        """Pass over what comes yet."""
        self._label = b""

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def caller(
    kind: Kind, endpoint: str, spec: Spec, clock: Clock, keys: ClientKeys | None = None
) -> Caller:
    """Return a client of a kind of server; today's design has no use for keys."""
    match kind:
        case "policy":
            return PolicyCaller(endpoint, spec, clock, keys)
        case "baseline":
            return BaselineCaller(endpoint, spec)
    return EchoCaller(endpoint, spec, keys)
