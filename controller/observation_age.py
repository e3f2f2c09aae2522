"""How old what a plant reported is."""

from __future__ import annotations

from controller.types import Observation

CREDIBLE_STAMP_NS = 10_000_000_000
"""A stamp that lies further back than this when first seen is taken to be of another clock."""


class ObservationAge:
    """How old an observation is, by the best evidence there is.

    A stamp that lies within ``CREDIBLE_STAMP_NS`` before the first sight of its observation is
    of this machine's clock, and the age counts from it. Any other is of another clock: then the
    age counts from the first sight, which still finds a plant that has fallen silent.

    Attributes:
        stamps: whether stamps may be used at all. False for a lockstep plant: it waits for the
            command, and its stamps may count simulated time.
    """

    def __init__(self) -> None:
        self.stamps = True
        self._key: tuple[int, int, int] | None = None
        self._since_ns = 0

    def measure(self, observation: Observation, now_ns: int) -> int:
        """Return the age at ``now_ns`` in nanoseconds, never negative."""
        key = (observation.episode, observation.step, observation.stamp_ns)
        if key != self._key:
            self._key = key
            lag_ns = now_ns - observation.stamp_ns
            credible = self.stamps and 0 <= lag_ns <= CREDIBLE_STAMP_NS
            self._since_ns = observation.stamp_ns if credible else now_ns
        return now_ns - self._since_ns
