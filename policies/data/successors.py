"""From rows in time order to transitions: each row's own successor, in place where possible."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.transitions import Layout, Transitions
from controller.types import Array


@dataclass
class Columns:
    """The columns of a file, M rows in time order.

    Attributes:
        observations: (M, D).
        actions: (M, A).
        rewards: (M,).
        next_observations: (M, D), None where they are to be taken from the rows themselves.
        terminals: (M,) bool.
        timeouts: (M,) bool; without ``next_observations`` these rows have no successor.
        info: further columns by name.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    next_observations: NDArray[np.float32] | None
    terminals: NDArray[np.bool_]
    timeouts: NDArray[np.bool_]
    info: dict[str, Array] = field(default_factory=dict)


def with_successors(columns: Columns, layout: Layout, task: str) -> Transitions:
    """Return the rows that have a successor, as transitions. The columns are used up."""
    if columns.next_observations is None and len(columns.rewards):
        _take_from_next_row(columns)
    values: dict[str, Any] = {f.name: getattr(columns, f.name) for f in fields(columns)}
    if values["next_observations"] is None:
        values["next_observations"] = columns.observations
    return Transitions(**values, layout=layout, task=task)


def _take_from_next_row(columns: Columns) -> None:
    ends = columns.terminals
    cut = columns.timeouts & ~ends
    cut[-1] = not ends[-1]
    kept = np.flatnonzero(~cut)
    following = np.empty((len(kept), *columns.observations.shape[1:]), np.float32)
    # "clip" writes straight into ``out``; the default mode fills a buffer of that size first.
    own = columns.observations
    np.take(own, kept + ~ends[kept], axis=0, out=following, mode="clip")
    # The row before a cut, if it belongs to the same episode, is now the last of its episode.
    last = np.zeros_like(cut)
    last[:-1] = cut[1:] & ~ends[:-1]
    columns.timeouts = last
    stretches = _stretches(cut)
    for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
        setattr(columns, name, _close_gaps(getattr(columns, name), stretches))
    columns.info = {name: _close_gaps(each, stretches) for name, each in columns.info.items()}
    columns.next_observations = following


def _stretches(gaps: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, beyond) of every run of rows without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], gaps, [True]]).astype(np.int8)))
    pairs: list[list[int]] = edges.reshape(-1, 2).tolist()
    return [(first, beyond) for first, beyond in pairs]


def _close_gaps(column: Array, stretches: list[tuple[int, int]]) -> Array:
    """Move the stretches of a column together, in place, and return the part they fill."""
    end = 0
    for first, beyond in stretches:
        if end != first:
            column[end : end + beyond - first] = column[first:beyond]
        end += beyond - first
    return column[:end]
