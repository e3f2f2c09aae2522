"""How many ticks an answer takes: a high quantile over a window that forgets."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

WINDOW: Final = 32
"""Newest answers that count."""
QUANTILE: Final = 0.95
WARM_UP: Final = 2
"""First answers that do not count: a policy's first computations are slower than all others."""


class DelayEstimate:
    """Expected ticks from a request to the first tick that can use its answer, at least 1.

    One slow answer raises the estimate at most for ``window`` answers. The first ones are left
    out; until others have come, the fastest of them stands in.

    Args:
        window: newest answers that count, at least 1.
        quantile: part of them that took no longer than the estimate, in (0, 1].
        warm_up: first answers that are left out.
    """

    def __init__(
        self, window: int = WINDOW, quantile: float = QUANTILE, warm_up: int = WARM_UP
    ) -> None:
        self._delays: deque[int] = deque(maxlen=window)
        self._quantile = quantile
        self._left_out = warm_up
        self._fastest: int | None = None
        self.ticks = 1

    def add(self, ticks: int) -> None:
        """Take note of an answer that could be used ``ticks`` after its request."""
        ticks = max(1, ticks)
        if self._left_out:
            self._left_out -= 1
            self._fastest = min(ticks, self._fastest or ticks)
            self.ticks = self._fastest
            return
        self._delays.append(ticks)
        ranked = sorted(self._delays)
        self.ticks = ranked[math.ceil(self._quantile * len(ranked)) - 1]
