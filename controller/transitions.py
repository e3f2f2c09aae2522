"""Logged experience in columns: what simulations and logs give, and what learning takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.spec import Spec
from controller.types import Array

Layout = tuple[tuple[str, int], ...]


def layout_of(spec: Spec) -> Layout:
    """Return (name, size) of each observation array in spec order."""
    return tuple((array.name, array.size) for array in spec.observation)


def flatten(arrays: Sequence[Array]) -> Array:
    """Return the arrays of one observation end to end, as one vector of their common dtype."""
    return np.concatenate([array.reshape(-1) for array in arrays])


@dataclass(frozen=True)
class Transitions:
    """N transitions in time order; row i leads from an observation to its own successor.

    Attributes:
        observations: (N, D), the arrays of each observation end to end in spec order.
        actions: (N, A), the actions that were executed, in plant units.
        rewards: (N,).
        next_observations: (N, D); the row's own successor, also at the end of an episode.
        terminals: (N,) bool; the successor is terminal, so its value is zero.
        timeouts: (N,) bool; the episode, or the recording, was cut after this row. The
            successor has a value. Never true where ``terminals`` is.
        layout: (name, size) of each array within D.
        task: name of the task, empty when unknown.
        info: further columns of length N by name.
    """

    observations: NDArray[np.floating]
    actions: NDArray[np.floating]
    rewards: NDArray[np.floating]
    next_observations: NDArray[np.floating]
    terminals: NDArray[np.bool_]
    timeouts: NDArray[np.bool_]
    layout: Layout
    task: str = ""
    info: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    def episodes(self) -> list[slice]:
        """Return the rows of each episode; the last one may be unfinished."""
        ends = np.flatnonzero(self.terminals | self.timeouts) + 1
        starts = [0, *ends.tolist()]
        stops = [*ends.tolist(), len(self)]
        return [slice(a, b) for a, b in zip(starts, stops, strict=True) if b > a]

    def returns(self) -> NDArray[np.float64]:
        """Return the undiscounted return of each episode."""
        return np.array([self.rewards[rows].sum(dtype=np.float64) for rows in self.episodes()])

    def select(self, rows: slice | Array) -> Transitions:
        """Return the given rows as transitions of their own."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in _COLUMNS}
        info = {name: column[rows] for name, column in self.info.items()}
        return replace(self, **columns, info=info)

    def digest(self) -> str:
        """Return 16 hex digits that identify the six columns."""
        total = hashlib.sha256()
        for name in _COLUMNS:
            total.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return total.hexdigest()[:16]

    def validate(self, source: str) -> Transitions:
        """Return self, or raise naming ``source`` and the first fault found.

        Raises:
            DataError: empty, columns of unequal length, values that are not finite, an
                observation width that is not the layout's, or a row both terminal and timeout.
        """
        rows = len(self)
        if rows == 0:
            raise DataError(f"{source}: no transitions")
        for name, column in [*((n, getattr(self, n)) for n in _COLUMNS), *self.info.items()]:
            if len(column) != rows:
                raise DataError(f"{source}: {name} has {len(column)} rows, rewards has {rows}")
        width = sum(size for _, size in self.layout)
        for name in ("observations", "next_observations"):
            if getattr(self, name).shape[1:] != (width,):
                raise DataError(
                    f"{source}: {name} rows have shape {getattr(self, name).shape[1:]}, "
                    f"expected ({width},) for {', '.join(n for n, _ in self.layout)}"
                )
        for name in ("observations", "actions", "rewards", "next_observations"):
            bad = ~np.isfinite(getattr(self, name)).reshape(rows, -1).all(axis=1)
            if bad.any():
                raise DataError(
                    f"{source}: {name} is not finite in {int(bad.sum())} of {rows} rows, "
                    f"first in row {int(bad.argmax())}"
                )
        both = self.terminals & self.timeouts
        if both.any():
            raise DataError(f"{source}: row {int(both.argmax())} is both terminal and timeout")
        return self


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """Return the parts end to end; an unfinished episode at a seam becomes a timeout.

    Raises:
        DataError: there are no parts, or they are not of one layout.
    """
    if not parts:
        raise DataError("no transitions to concatenate")
    first = parts[0]
    for part in parts:
        if part.layout != first.layout or part.actions.shape[1:] != first.actions.shape[1:]:
            raise DataError(
                f"cannot join transitions of {part.task or 'another task'} {part.layout} "
                f"with those of {first.task or 'the first'} {first.layout}"
            )
    closed = [_close_last(part) for part in parts if len(part)]
    if not closed:
        return first
    shared = set.intersection(*(set(part.info) for part in closed))
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in closed]) for name in _COLUMNS
    }
    info = {name: np.concatenate([part.info[name] for part in closed]) for name in sorted(shared)}
    return replace(first, **columns, info=info)


def _close_last(part: Transitions) -> Transitions:
    if part.terminals[-1] or part.timeouts[-1]:
        return part
    timeouts = part.timeouts.copy()
    timeouts[-1] = True
    return replace(part, timeouts=timeouts)


_COLUMNS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminals",
    "timeouts",
)
