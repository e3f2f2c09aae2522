"""Logged experience in columns: what simulations and logs give, and what learning takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.spec import Spec
from controller.types import Array
from controller.views import Chunks, NStep, chunks, n_step

Layout = tuple[tuple[str, int], ...]

REAL_COLUMNS = ("observations", "actions", "rewards", "next_observations")
COLUMNS = (*REAL_COLUMNS, "terminals", "timeouts")


def layout_of(spec: Spec) -> Layout:
    """Return (name, size) of each observation array in spec order."""
    return tuple((array.name, array.size) for array in spec.observation)


def flatten(arrays: Sequence[Array]) -> Array:
    """Return the arrays of one observation end to end, as one vector of their common dtype."""
    return np.concatenate([array.reshape(-1) for array in arrays])


@dataclass(frozen=True)
class Transitions:
    """N transitions in time order; row i leads from an observation to its own successor.

    Columns are shared, not copied, by whatever looks at them: treat them as read-only.

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

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(E,) first row of each episode."""
        if not len(self):
            return np.zeros(0, np.int64)
        ends = np.flatnonzero((self.terminals | self.timeouts)[:-1])
        return np.concatenate([[0], ends + 1])

    @cached_property
    def episode(self) -> NDArray[np.int64]:
        """(N,) number of the episode each row is in, from 0."""
        return np.repeat(np.arange(len(self.starts)), self.lengths())

    @cached_property
    def last_rows(self) -> NDArray[np.int64]:
        """(N,) last row of the episode each row is in."""
        return np.repeat(self.starts + self.lengths() - 1, self.lengths())

    def lengths(self) -> NDArray[np.int64]:
        """Return (E,) rows of each episode; the last one may be unfinished."""
        return np.diff(np.append(self.starts, len(self)))

    def episodes(self) -> list[slice]:
        """Return the rows of each episode; the last one may be unfinished."""
        stops = (self.starts + self.lengths()).tolist()
        return [slice(a, b) for a, b in zip(self.starts.tolist(), stops, strict=True)]

    def returns(self) -> NDArray[np.float64]:
        """Return (E,) the undiscounted return of each episode."""
        if not len(self):
            return np.zeros(0)
        totals: NDArray[np.float64] = np.add.reduceat(self.rewards, self.starts, dtype=np.float64)
        return totals

    def n_step(self, n: int, discount: float) -> NStep:
        """Return what n steps earn from each row, and where they end.

        Steps stop at the end of an episode: a terminal successor has no value, that of a
        timeout, or of the last row, has one.

        Raises:
            ValueError: ``n`` is below 1.
        """
        return n_step(self.rewards, self.terminals, self.last_rows, n, discount)

    def chunks(self, horizon: int) -> Chunks:
        """Return the next ``horizon`` actions of each row, never beyond its episode.

        Raises:
            ValueError: ``horizon`` is below 1.
        """
        return chunks(self.actions, self.last_rows, horizon)

    def single(self) -> Transitions:
        """Return the same with real numbers in float32; columns that are so stay shared."""
        columns: dict[str, Any] = {
            name: getattr(self, name).astype(np.float32, copy=False) for name in REAL_COLUMNS
        }
        return replace(self, **columns)

    def select(self, rows: slice | Array) -> Transitions:
        """Return the given rows as transitions of their own."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        info = {name: column[rows] for name, column in self.info.items()}
        return replace(self, **columns, info=info)

    def digest(self) -> str:
        """Return 16 hex digits that identify the six columns."""
        total = hashlib.sha256()
        for name in COLUMNS:
            total.update(np.ascontiguousarray(getattr(self, name)).reshape(-1).data)
        return total.hexdigest()[:16]

    def validate(self, source: str, *, finite: bool = True) -> Transitions:
        """Return self, or raise naming ``source`` and the first fault found.

        Args:
            source: where the data comes from.
            finite: whether values that are not finite are a fault.

        Raises:
            DataError: empty, columns of unequal length, values that are not finite, an
                observation width that is not the layout's, or a row both terminal and timeout.
        """
        rows = len(self)
        if rows == 0:
            raise DataError(f"{source}: no transitions")
        for name, column in [*((n, getattr(self, n)) for n in COLUMNS), *self.info.items()]:
            if len(column) != rows:
                raise DataError(f"{source}: {name} has {len(column)} rows, rewards has {rows}")
        width = sum(size for _, size in self.layout)
        for name in ("observations", "next_observations"):
            if getattr(self, name).shape[1:] != (width,):
                raise DataError(
                    f"{source}: {name} rows have shape {getattr(self, name).shape[1:]}, "
                    f"expected ({width},) for {', '.join(n for n, _ in self.layout)}"
                )
        for name in REAL_COLUMNS if finite else ():
            bad = not_finite(getattr(self, name))
            if bad.any():
                raise DataError(
                    f"{source}: {name} is not finite in {int(bad.sum())} of {rows} rows, "
                    f"first in row {int(bad.argmax())}"
                )
        both = self.terminals & self.timeouts
        if both.any():
            raise DataError(f"{source}: row {int(both.argmax())} is both terminal and timeout")
        return self


def not_finite(column: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return (N,) which rows have a number that is not finite."""
    # The extremes carry every NaN and infinity, and finding them allocates nothing.
    if not column.size or (np.isfinite(column.min()) and np.isfinite(column.max())):
        return np.zeros(len(column), np.bool_)
    bad: NDArray[np.bool_] = ~np.isfinite(column).reshape(len(column), -1).all(axis=1)
    return bad


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
        name: np.concatenate([getattr(part, name) for part in closed]) for name in COLUMNS
    }
    info = {name: np.concatenate([part.info[name] for part in closed]) for name in sorted(shared)}
    return replace(first, **columns, info=info)


def _close_last(part: Transitions) -> Transitions:
    if part.terminals[-1] or part.timeouts[-1]:
        return part
    timeouts = part.timeouts.copy()
    timeouts[-1] = True
    return replace(part, timeouts=timeouts)
