"""Which versions of the policy there are, which one is in force, and how stale rows are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.feed.rows import Float32
from policies.finetuning.replay.ledger import tally

MAX_VERSIONS = 2**20
"""Of which rows are kept; whole numbers in float32 are exact far beyond."""


class Publications(msgspec.Struct):
    """Numbers of versions, in the order in which they were first heard of.

    Attributes:
        names: of the versions; rows hold their index.
        turns: when each came in force for the last time, as the number of that publication from
            1; 0 for one that was never published here.
        rows: of each, ever inserted.
        bundles: path of each published version.
        version: in force; empty before the first.
        turn: publications so far, those that took a version back included.
        rollbacks: those.
    """

    names: list[str] = msgspec.field(default_factory=list)
    turns: list[int] = msgspec.field(default_factory=list)
    rows: list[int] = msgspec.field(default_factory=list)
    bundles: dict[str, str] = msgspec.field(default_factory=dict)
    version: str = ""
    turn: int = 0
    rollbacks: int = 0

    @property
    def bundle(self) -> str:
        """Path of the version in force; empty before the first."""
        return self.bundles.get(self.version, "")

    def enter(self, version: str, bundle: str, back: bool) -> bool:
        """Put a version in force; return False where it was already."""
        self.bundles[version] = bundle
        if version == self.version:
            return False
        self.version = version
        self.turn += 1
        self.turns[self.number(version)] = self.turn
        self.rollbacks += back
        return True

    def number(self, version: str) -> int:
        """Return the number of a version, a new one for a new one."""
        try:
            return self.names.index(version)
        except ValueError:
            self.names.append(version)
            self.turns.append(0)
            self.rows.append(0)
            return len(self.names) - 1

    def numbers(self, versions: Sequence[str]) -> NDArray[np.int64]:
        """Return the numbers of several versions."""
        return np.array([self.number(version) for version in versions], np.int64)

    def count(self, numbers: NDArray[np.int64]) -> None:
        """Count inserted rows, given the number of each one's version."""
        for number, count in tally(numbers):
            self.rows[number] += count

    def staleness(self, column: Float32) -> NDArray[np.int64]:
        """Return the publications between the versions of rows and the one in force.

        Args:
            column: (n,) numbers of the versions.
        """
        turns = np.array(self.turns, np.int64)
        return self.turn - turns[column.astype(np.int64)]

    def told(self, most: int) -> dict[str, int]:
        """Return the rows of each version, of the newest ``most`` that have any."""
        some = [(name, rows) for name, rows in zip(self.names, self.rows, strict=True) if rows]
        return dict(some[-most:])
