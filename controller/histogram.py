"""Durations to three digits, in an HdrHistogram: all of the tail in some kilobytes, and mergeable.

The only module that knows the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from numpy.typing import NDArray

Nanoseconds = NDArray[np.int64]

LONGEST_NS = 3_600_000_000_000
"""One hour; what is longer counts as that."""
DIGITS = 3
EXACT_BITS = 11
"""Below 2^11 every value has a counter of its own: 2 * 10^3 rounded up to a power of two."""


class Quantiles(msgspec.Struct, frozen=True):
    """A distribution of durations in microseconds; no figure is interpolated.

    Attributes:
        p50: median.
        p99: at least 99 % are no longer.
        p99_9: at least 99.9 % are no longer; the longest for fewer than 1000 samples.
        max: the longest.
        samples: how many there were.
    """

    p50: float
    p99: float
    p99_9: float
    max: float
    samples: int


class Histogram:
    """Counts of durations, each kept to 0.1 % of itself.

    Args:
        durations_ns: what to begin with; negative ones are absent.
    """

    def __init__(self, durations_ns: Nanoseconds | None = None) -> None:
        self._hdr: Any = HdrHistogram(1, LONGEST_NS, DIGITS)
        self._longest_ns = 0
        if durations_ns is not None:
            self.record_all(durations_ns)

    def __len__(self) -> int:
        return int(self._hdr.total_count)

    def record(self, duration_ns: int) -> None:
        """Count one duration. Takes 2 us: for what happens some hundred times a second."""
        self._longest_ns = max(self._longest_ns, duration_ns)
        self._hdr.record_value(min(duration_ns, LONGEST_NS))

    def record_all(self, durations_ns: Nanoseconds) -> None:
        """Count the durations that are not absent (negative)."""
        present = durations_ns[durations_ns >= 0]
        if not len(present):
            return
        self._longest_ns = max(self._longest_ns, int(present.max()))
        # The library's own equivalence: EXACT_BITS leading bits decide. One call for each
        # value that differs instead of one for each sample.
        clipped = np.minimum(present, LONGEST_NS)
        shift = np.maximum(np.frexp(clipped.astype(np.float64))[1] - EXACT_BITS, 0)
        for value, count in zip(*np.unique((clipped >> shift) << shift, return_counts=True)):  # noqa: B905
            self._hdr.record_value(int(value), int(count))

    def add(self, others: Iterable[Histogram]) -> None:
        """Count what others have counted."""
        for other in others:
            self._hdr.add(other._hdr)
            self._longest_ns = max(self._longest_ns, other._longest_ns)

    def at_us(self, percentiles: Iterable[float]) -> list[float]:
        """Return the durations in microseconds that these percentages do not exceed.

        Of n the one of rank ceil(p (n - 1)) + 1, as ``numpy.percentile`` with method "higher".
        """
        counted = np.frombuffer(self._hdr.counts, np.int64).cumsum()
        ranks = np.ceil(np.array(list(percentiles)) / 100.0 * (counted[-1] - 1)) + 1
        places = np.searchsorted(counted, ranks)
        longest = [self._hdr.get_value_from_index(int(place)) for place in places]
        upper = (self._hdr.get_highest_equivalent_value(value) for value in longest)
        return [round(min(value, self._longest_ns) / 1e3, 1) for value in upper]

    def quantiles(self) -> Quantiles | None:
        """Return the figures; None without a sample."""
        if not len(self):
            return None
        p50, p99, p99_9 = self.at_us((50.0, 99.0, 99.9))
        return Quantiles(p50, p99, p99_9, self._longest_ns / 1e3, len(self))

    def encoded(self) -> str:
        """Return it in HdrHistogram's own compressed text, V2, which its tools read."""
        return str(self._hdr.encode().decode())

    @classmethod
    def decoded(cls, text: str) -> Histogram:
        """Return what :meth:`encoded` wrote; its longest is known to three digits."""
        made = cls()
        made._hdr = HdrHistogram.decode(text)
        made._longest_ns = made._hdr.get_max_value()
        return made
