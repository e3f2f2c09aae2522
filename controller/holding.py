"""What to command while nothing acts: the safe command, the way to it, or the last command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from controller.types import Array

Hold = Literal["safe", "ramp", "last"]


class Holding:
    """Commands of a hold. The ramp ends where the command that was sent is the safe one.

    Args:
        safe: the declared safe command.
        hold: safe, ramp or last; see :class:`controller.chunk_settings.FallbackSettings`.
        ramp_ticks: ticks from the last command to the safe one, at least 1.
        previous: gives the command that was sent last.
    """

    def __init__(
        self, safe: Array, hold: Hold, ramp_ticks: int, previous: Callable[[], Array]
    ) -> None:
        self._safe = safe
        self._hold = hold
        self._ramp_ticks = max(1, ramp_ticks)
        self._previous = previous
        self._held: Array | None = None
        self._since: int | None = None

    def release(self) -> None:
        """Take note that something acts: the next hold begins at its command."""
        self._held = self._since = None

    def command(self, tick: int, latched: bool = False) -> tuple[Array, bool]:
        """Return what to command at ``tick``, and whether the safety filter is to apply.

        Without the filter the safe command is meant, at once.

        Args:
            tick: number of the tick.
            latched: the way to the safe command, whatever holds otherwise.
        """
        if self._hold == "safe":
            return self._safe, False
        if self._held is None:
            self._held = self._previous().copy()
        if self._hold == "last" and not latched:
            return self._held, True
        if np.array_equal(self._previous(), self._safe):
            return self._safe, False
        if self._since is None:
            self._since = tick
        done = (tick - self._since + 1) / self._ramp_ticks
        return (self._safe if done >= 1.0 else self._between(done)), True

    def _between(self, weight: float) -> Array:
        assert self._held is not None
        begun = self._held.astype(np.float64)
        value = begun + weight * (self._safe.astype(np.float64) - begun)
        return np.asarray(value if self._safe.dtype.kind == "f" else np.rint(value)).astype(
            self._safe.dtype
        )
