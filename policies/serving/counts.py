"""What a server counts while it serves: plain integers, turned into figures when asked."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

import numpy as np

BOUNDS_NS = (
    *(round(step * 10**power) for power in (4, 5, 6, 7, 8) for step in (1, 2.5, 5)),
    10**9,
)
"""Upper ends of the buckets that durations are counted in: 10 us to 1 s."""
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
"""Upper ends of the buckets of batch sizes."""
NEWEST = 4096
"""Durations that quantiles are taken of; a power of two."""
HISTORY = 100
"""Newest versions that are told of."""


class Durations:
    """Counts durations in buckets, and keeps the newest as they are.

    Attributes:
        buckets: durations up to each of :data:`BOUNDS_NS`, and last those above.
        total_ns: their sum.
    """

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_NS) + 1)
        self.total_ns = 0
        self._newest = [0] * NEWEST
        self._count = 0

    def add(self, duration_ns: int) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns
        self._newest[self._count & (NEWEST - 1)] = duration_ns
        self._count += 1

    def quantiles_us(self) -> dict[str, float]:
        """Return ``p50`` and ``p99`` of the newest 4096 in microseconds; empty before any."""
        if not self._count:
            return {}
        values = np.array(self._newest[: self._count], dtype=np.float64)
        p50, p99 = np.percentile(values, (50, 99), method="higher") / 1e3
        return {"p50": float(p50), "p99": float(p99)}


class PolicyCounts:
    """What became of the requests to one named policy.

    Attributes:
        requests: that came.
        answered: that were answered.
        late: that were answered after their deadline.
        rejected: by code.
        batches: computations by the number of requests in them.
        queue: waiting times.
        infer: computing times, one per computation.
        versions: [version, since when in ns, answers], newest last.
        changes: swaps, refusals, rollbacks and canaries by name.
    """

    def __init__(self) -> None:
        self.requests = self.answered = self.late = 0
        self.rejected: Counter[str] = Counter()
        self.batches: Counter[int] = Counter()
        self.changes: Counter[str] = Counter()
        self.queue, self.infer = Durations(), Durations()
        self.versions: list[list[Any]] = []
        self._outcomes: dict[str, Counter[str]] = {}

    def enter_version(self, version: str, now_ns: int) -> None:
        """Take note that ``version`` answers from now on."""
        self.versions.append([version, now_ns, 0])
        del self.versions[:-HISTORY]

    def note(self, version: str, outcome: str) -> None:
        """Count what came of asking one version: ``answered`` or the code of a failure."""
        outcomes = self._outcomes.get(version)
        if outcomes is None:
            outcomes = self._outcomes[version] = Counter()
            while len(self._outcomes) > HISTORY:
                del self._outcomes[next(iter(self._outcomes))]
        outcomes[outcome] += 1

    def outcomes(self, newest: int = HISTORY) -> dict[str, dict[str, int]]:
        """Return what came of asking each of the ``newest`` versions."""
        return {name: dict(self._outcomes[name]) for name in list(self._outcomes)[-newest:]}

    def facts(self) -> dict[str, Any]:
        """Return counts and figures for people; the latter of the newest 4096."""
        return {
            "requests": self.requests,
            "answered": self.answered,
            "late": self.late,
            "rejected": dict(self.rejected),
            "versions": [list(entry) for entry in self.versions],
            "queue_us": self.queue.quantiles_us(),
            "infer_us": self.infer.quantiles_us(),
            "batches": {str(size): count for size, count in sorted(self.batches.items())},
            "changes": dict(self.changes),
        }

    def numbers(self) -> dict[str, Any]:
        """Return what a monitoring system counts on from, in nanoseconds."""
        return {
            "requests": self.requests,
            "late": self.late,
            "rejected": dict(self.rejected),
            "outcomes": self.outcomes(20),
            "batches": sorted(self.batches.items()),
            "changes": dict(self.changes),
            "queue": [self.queue.buckets, self.queue.total_ns],
            "infer": [self.infer.buckets, self.infer.total_ns],
        }
