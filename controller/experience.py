"""Which ticks of a run are experience: pairs of an observation and its own successor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def pair_rows(
    tick: Ints, running: Flags, episode: Ints, step: Ints, done: Flags, finite: Flags
) -> tuple[Ints, Flags]:
    """Return the ticks that lead to the tick after them, and where the chain is cut.

    A tick leads to the next one when the loop was in RUN, both belong to one episode that was
    not over, no period was skipped between them, both observations are finite, and the plant
    made at least one step. Where the plant made none, both ticks saw the same observation: the
    earlier one gives no row, as the later command replaced its own, and the chain goes on.
    Everything else cuts the chain.

    Args:
        tick: (T,) tick numbers in order.
        running: (T,) the loop was in RUN.
        episode: (T,) episode of the observation.
        step: (T,) steps of the plant since the reset.
        done: (T,) the observation ends its episode.
        finite: (T,) the observation is finite.

    Returns:
        (N,) row numbers, each leading to the row after it, and (N,) whether the chain is cut
        after that row.
    """
    if len(tick) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.bool_)
    linked = (
        running[:-1]
        & ~done[:-1]
        & finite[:-1]
        & finite[1:]
        & (np.diff(tick) == 1)
        & (np.diff(episode) == 0)
    )
    advance = np.diff(step)
    rows = np.flatnonzero(linked & (advance > 0))
    broken = ~(linked & (advance >= 0))
    chain = np.concatenate([[0], np.cumsum(broken)])[rows]
    cut = np.ones(len(rows), np.bool_)
    cut[:-1] = np.diff(chain) != 0
    return rows, cut
