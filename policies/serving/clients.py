"""What became of each client's requests, and how evenly they were served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_CLIENTS = 256
"""Clients that are counted one by one; those that left are forgotten beyond it."""
MAX_TOLD = 64
"""Clients that a report tells of: those that asked most."""


@dataclass(slots=True)
class ClientCounts:
    """What became of one client's requests.

    Attributes:
        asked: requests that came.
        answered: that were answered.
        late: that were answered after their deadline; counted in ``answered`` too.
        shed: rejected because their deadline could not be met.
        superseded: replaced by a newer one before their turn.
        refused: rejected for any other reason.
    """

    asked: int = 0
    answered: int = 0
    late: int = 0
    shed: int = 0
    superseded: int = 0
    refused: int = 0

    @property
    def served(self) -> float:
        """Share of the requests that had a turn and were answered in time; 1 before any."""
        owed = self.answered + self.shed
        return (self.answered - self.late) / owed if owed else 1.0

    def facts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Clients:
    """The counts of every client.

    Args:
        name: gives the name of a client by its identity; empty for one that has left.
    """

    def __init__(self, name: Callable[[bytes], str]) -> None:
        self._name = name
        self._counts: dict[bytes, ClientCounts] = {}

    def of(self, identity: bytes) -> ClientCounts:
        """Return the counts of one client, to be added to."""
        counts = self._counts.get(identity)
        if counts is None:
            if len(self._counts) >= MAX_CLIENTS:
                self._counts = {k: v for k, v in self._counts.items() if self._name(k)}
            counts = self._counts[identity] = ClientCounts()
        return counts

    def fairness(self) -> float:
        """Return :func:`jain` of the shares of requests that were answered in time."""
        return jain(counts.served for counts in list(self._counts.values()))

    def facts(self) -> list[dict[str, Any]]:
        """Return the counts of those that asked most, by name."""
        order = sorted(self._counts.items(), key=lambda item: -item[1].asked)
        return [{"name": self._name(key), **one.facts()} for key, one in order[:MAX_TOLD]]


def jain(shares: Iterable[float]) -> float:
    """Return the fairness index of Jain, Chiu & Hawe (1984): 1 when all shares are equal.

    The least is 1/n, where one of n has everything; 1 where there is nobody or nothing.
    """
    values = list(shares)
    squares = sum(value * value for value in values)
    return float(sum(values) ** 2 / (len(values) * squares)) if squares else 1.0
