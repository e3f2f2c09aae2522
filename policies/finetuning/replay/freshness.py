"""How old the rows are that the learner learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NEWEST = 4096
"""Drawn rows that quantiles are taken of."""
LOOK = 256
"""Rows of a draw that are looked at: they are drawn evenly, so the first will do."""


class Newest:
    """The newest 4096 of a stream of whole numbers."""

    def __init__(self) -> None:
        self._values = np.zeros(NEWEST, np.int64)
        self._count = 0

    def add(self, values: NDArray[np.int64]) -> None:
        """Add at most 4096 values."""
        start, n = self._count % NEWEST, len(values)
        fit = min(n, NEWEST - start)
        self._values[start : start + fit] = values[:fit]
        self._values[: n - fit] = values[fit:]
        self._count += n

    def quantiles(self, name: str) -> dict[str, int]:
        """Return ``name_p50`` and ``name_p95``, values that occurred; empty before any."""
        if not self._count:
            return {}
        p50, p95 = np.percentile(self._values[: self._count], (50, 95), method="higher")
        return {f"{name}_p50": int(p50), f"{name}_p95": int(p95)}


class Freshness:
    """Staleness and age of drawn rows."""

    def __init__(self) -> None:
        self._staleness, self._age = Newest(), Newest()

    def note(self, staleness: NDArray[np.int64], age: NDArray[np.int64]) -> None:
        """Take note of drawn rows.

        Args:
            staleness: publications between each row's version and the one in force.
            age: rows that were inserted after each.
        """
        self._staleness.add(staleness)
        self._age.add(age)

    def facts(self) -> dict[str, Any]:
        """Return the quantiles of the newest draws."""
        return self._staleness.quantiles("staleness") | self._age.quantiles("age_rows")
