"""Why connections failed in their handshake, in words that tell what to do."""

from __future__ import annotations

from enum import Enum, auto

from controller.keys import ClientKeys, fingerprint

BREAKS = 8
"""Connections in a row that break off in their greeting before it counts as a refusal, some
160 ms: a server that ends at that moment breaks one, and where one side has no keys either may
notice first, and only its peer is left without a reason."""


class Handshake(Enum):
    """How one went, as seen by the client."""

    DONE = auto()
    BROKEN = auto()
    """The other side closed the connection without a word."""
    NOT_LISTED = auto()
    """The server knows keys, and this client's is not among them."""
    MISMATCH = auto()
    """One side has keys and the other has none."""
    GARBLED = auto()
    """Not the protocol of the messaging library."""


class Handshakes:
    """What the handshakes of a client come to.

    Args:
        mine: public key of the client; None without keys.
        keys: of the client; None for none.
    """

    def __init__(self, mine: bytes | None, keys: ClientKeys | None) -> None:
        self._mine, self._keys = mine, keys
        self._breaks = 0

    def judge(self, handshake: Handshake) -> str:
        """Return one line for people; empty when all is well, or may be yet."""
        if handshake is Handshake.DONE:
            self._breaks = 0
            return ""
        if handshake is Handshake.BROKEN:
            self._breaks += 1
            if self._breaks < BREAKS:
                return ""
        return self._reason(handshake)

    def _reason(self, handshake: Handshake) -> str:
        if self._mine is None or self._keys is None:
            if handshake is Handshake.MISMATCH:
                return "the server requires keys; make some with onebeat keys new NAME"
            return (
                "what listens there breaks every connection off: it requires keys (make some with "
                "onebeat keys new NAME), or is no onebeat server"
            )
        if handshake is Handshake.NOT_LISTED:
            return f"this client's key {fingerprint(self._mine)} is not on the server's allow-list"
        if handshake is Handshake.MISMATCH:
            return "the server has no keys, and this client expects one that has"
        wanted = fingerprint(self._keys.server)
        return f"the server has not the key {wanted} that this client expects, or none at all"
