"""How much one client may send: a token bucket each for its messages and its bytes."""

from __future__ import annotations

from dataclasses import dataclass

MAX_METERS = 1024
"""Clients whose rate is kept; a server forgets the one it met first."""

BURST_S = 0.25
"""Of its rate a client may send at once after a pause."""

TELL_EVERY_NS = 1_000_000_000
WHOLE = 1 - 1e-9
"""One message, but for the rounding of what has come back."""


@dataclass(slots=True)
class Meter:
    """What one client may still send now, and what it sent in excess."""

    messages: float
    octets: float
    filled_ns: int
    dropped: int = 0
    told_ns: int | None = None


class RateCap:
    """Meters clients; each gets ``max_rate_hz`` messages and ``max_bytes_s`` bytes per second.

    A message is admitted while bytes are left, and may overdraw them: so the largest message
    passes, and what follows it waits until the debt is paid (Turner 1986, the leaky bucket as a
    meter).

    Args:
        max_rate_hz: messages per second.
        max_bytes_s: bytes per second.

    Attributes:
        dropped: messages in excess, of all clients.
    """

    def __init__(self, max_rate_hz: float, max_bytes_s: float) -> None:
        self._rate_hz, self._bytes_s = max_rate_hz, max_bytes_s
        self._burst = max(1.0, BURST_S * max_rate_hz)
        self._byte_burst = max(1.0, BURST_S * max_bytes_s)
        self._meters: dict[bytes, Meter] = {}
        self.dropped = 0

    @property
    def words(self) -> str:
        """The rates, for people."""
        return f"{self._rate_hz:g} messages or {self._bytes_s / 1e6:g} MB per second"

    def admits(self, identity: bytes, octets: int, now_ns: int) -> bool:
        """Return whether a message of ``octets`` bytes is within the client's rate; count it."""
        meter = self._meters.get(identity) or self._enter(identity, now_ns)
        elapsed_s = (now_ns - meter.filled_ns) * 1e-9
        meter.filled_ns = now_ns
        messages = meter.messages + elapsed_s * self._rate_hz
        if messages > self._burst:
            messages = self._burst
        left = meter.octets + elapsed_s * self._bytes_s
        if left > self._byte_burst:
            left = self._byte_burst
        admitted = messages >= WHOLE and left > 0
        if admitted:
            messages, left = messages - 1, left - octets
        else:
            meter.dropped += 1
            self.dropped += 1
        meter.messages, meter.octets = messages, left
        return admitted

    def tells(self, identity: bytes, now_ns: int) -> bool:
        """Return whether a client is to be told now that it sends too much: once a second."""
        meter = self._meters[identity]
        if meter.told_ns is not None and now_ns - meter.told_ns < TELL_EVERY_NS:
            return False
        meter.told_ns = now_ns
        return True

    def dropped_of(self, identity: bytes) -> int:
        """Return the number of messages that a client sent in excess."""
        meter = self._meters.get(identity)
        return meter.dropped if meter else 0

    def _enter(self, identity: bytes, now_ns: int) -> Meter:
        if len(self._meters) >= MAX_METERS:
            del self._meters[next(iter(self._meters))]
        meter = Meter(self._burst, self._byte_burst, now_ns)
        self._meters[identity] = meter
        return meter
