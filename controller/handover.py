"""The cross-fade between a person's commands and a policy's."""

from __future__ import annotations

import math

import numpy as np

from controller.types import Array, Reason, Rung


class Handover:
    """Fades from the last command of one to the commands of the other, in both directions.

    From the tick at which the other takes over, n ticks long, the command is
    origin + (k / n) (requested - origin) at the k-th of them: what jumps by D without it changes
    by D / n per tick, beside what the request itself changes by. The safe command is never
    faded: a fade that it interrupts begins anew from it.

    Args:
        blend_s: length of a fade; 0 for none.
        period_ns: period of the loop.
    """

    def __init__(self, blend_s: float, period_ns: int) -> None:
        self._ticks = max(1, math.ceil(round(blend_s * 1e9) / period_ns))
        self._human: bool | None = False
        self._origin: Array | None = None
        self._since = 0

    def blend(
        self, tick: int, rung: Rung, requested: Array, previous: Array
    ) -> tuple[Array, Reason]:
        """Return the command on the way to ``requested``, and BLENDED while it is on the way.

        Args:
            tick: number of the tick.
            rung: where ``requested`` comes from; one that acts.
            requested: the action asked for.
            previous: the command before this one.
        """
        human = rung is Rung.HUMAN
        if human is not self._human:
            self._human, self._origin, self._since = human, previous, tick
        origin = self._origin
        if origin is None:
            return requested, Reason.NONE
        part = (tick - self._since + 1) / self._ticks
        if part >= 1:
            self._origin = None
            return requested, Reason.NONE
        start = origin.astype(np.float64)
        faded = start + part * (requested.astype(np.float64) - start)
        if requested.dtype.kind != "f":
            faded = np.rint(faded)
        return faded.astype(requested.dtype), Reason.BLENDED

    def interrupt(self) -> None:
        """Take note that the safe command was sent."""
        if self._human or self._origin is not None:
            self._human, self._origin = None, None

    def resume(self, rung: Rung) -> None:
        """Take note of a tick outside a fade."""
        self._human, self._origin = rung is Rung.HUMAN, None
