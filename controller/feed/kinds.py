"""Whose commands the ticks of a run hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controller.feed.rows import RowKind
from controller.types import Reason, Rung

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Kinds = NDArray[np.uint8]


def kinds(rung: Ints, reasons: Ints, asked: Flags, known: Flags) -> Kinds:
    """Return (N,) values of :class:`RowKind`, one for each tick.

    A safe command is one whatever acted. Any other is ``UNAPPLIED``, whoever gave it, where
    nobody knows which command the plant made its step with.

    Args:
        rung: (N,) values of ``Rung``.
        reasons: (N,) bit sets of ``Reason``.
        asked: (N,) the action before the safety filter was finite; for one that was not, the
            filter sent the safe command.
        known: (N,) it is known which command the plant made its step with.
    """
    found = np.full(len(rung), RowKind.POLICY, np.uint8)
    found[(reasons & Reason.EXPLORED) != 0] = RowKind.EXPLORED
    found[rung == Rung.HUMAN] = RowKind.HUMAN
    found[~known] = RowKind.UNAPPLIED
    found[(rung == Rung.HOLD) | (rung == Rung.STOP) | ~asked] = RowKind.FALLBACK
    return found
