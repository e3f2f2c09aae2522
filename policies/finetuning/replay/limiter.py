"""How many updates the rows allow, and when actors in lockstep wait for the learner."""

from __future__ import annotations

import math

PATIENCE_NS = 2_000_000_000
"""A learner that asked for nothing for so long is taken for dead: nobody waits for it."""
LONGEST_PATIENCE_NS = 20_000_000_000
FIRST_WAIT_MS, LONGEST_WAIT_MS = 10, 500
SMOOTHING = 0.2


class Limiter:
    """Keeps updates and rows in proportion (Cassirer et al. 2021, Reverb's rate limiter).

    With r updates per row and w rows of warm-up, n rows allow a(n) = floor(r max(0, n - w))
    updates. The learner gets batches up to a(n) + ``slack``; actors in lockstep wait while it
    has taken fewer than a(n) - ``slack``. One of the two may always go on: what holds the
    learner, too few rows or a(n) + ``slack`` updates done, never holds an actor.

    Args:
        ratio: r, updates that each row allows.
        warmup: w, rows before the first update.
        slack: updates of play on both sides.

    Attributes:
        updates: that the learner said it has done.
        taken: these, and those whose batches are on the way to it.
    """

    def __init__(self, ratio: float, warmup: int, slack: int) -> None:
        self._ratio, self._warmup, self._slack = ratio, warmup, slack
        self.updates = self.taken = 0
        self._fewest = 0  # unknown until a learner says how long its batches are
        self._learner: bytes | None = None
        self._heard_ns = 0
        self._patience_ns = PATIENCE_NS
        self._pace_hz = 0.0
        self._busy = False

    def allowed(self, inserted: int) -> int:
        """Return the updates that so many rows allow, without slack."""
        return math.floor(self._ratio * max(0, inserted - self._warmup))

    def alive(self, now_ns: int) -> bool:
        """Return whether there is a learner to wait for."""
        return self._learner is not None and now_ns - self._heard_ns < self._patience_ns

    def grant(
        self, learner: bytes, inserted: int, rows: int, batches: int, size: int, updates: int,
        now_ns: int,
    ) -> int:  # fmt: skip
        """Return how many of the batches that the learner asks for it may have.

        Args:
            learner: its session.
            inserted: rows that were ever inserted.
            rows: rows that can be drawn.
            batches: that it asks for.
            size: rows of each.
            updates: that it has done.
            now_ns: time.
        """
        self._hear(learner, updates, now_ns)
        if size:
            self._fewest = size
        room = self.allowed(inserted) + self._slack - updates if self._open(inserted, rows) else 0
        granted = max(0, min(batches, room))
        self.updates, self.taken = updates, updates + granted
        self._busy = granted > 0 and granted == batches
        return granted

    def wait_ms(self, inserted: int, rows: int, now_ns: int) -> int:
        """Return how long an actor in lockstep should pause: about what the learner needs."""
        if not self.alive(now_ns) or not self._open(inserted, rows):
            return 0
        behind = self.allowed(inserted) - self.taken - self._slack
        if behind <= 0:
            return 0
        if self._pace_hz <= 0:
            return FIRST_WAIT_MS
        return max(1, min(LONGEST_WAIT_MS, round(1e3 * behind / self._pace_hz)))

    def leave(self, learner: bytes) -> None:
        """Take note that a session ended in order."""
        if learner == self._learner:
            self._learner = None

    def _open(self, inserted: int, rows: int) -> bool:
        """Return whether there are rows enough for a batch, and for the first update."""
        return inserted >= self._warmup and rows >= self._fewest > 0

    def _hear(self, learner: bytes, updates: int, now_ns: int) -> None:
        """Learn the learner's pace, and how long it usually says nothing."""
        gap_ns = now_ns - self._heard_ns
        if learner != self._learner:
            self._learner, self._patience_ns, self._pace_hz = learner, PATIENCE_NS, 0.0
        else:
            patience_ns = max(PATIENCE_NS, 3 * gap_ns, self._patience_ns * 9 // 10)
            self._patience_ns = min(LONGEST_PATIENCE_NS, patience_ns)
            if self._busy and gap_ns > 0 and updates > self.updates:
                pace_hz = 1e9 * (updates - self.updates) / gap_ns
                share = SMOOTHING if self._pace_hz else 1.0
                self._pace_hz += share * (pace_hz - self._pace_hz)
        self._heard_ns = now_ns
