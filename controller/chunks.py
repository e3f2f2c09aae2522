"""The plan: rows of actions by the tick they are meant for, and how a new chunk joins it.

Nothing here reads a clock. A row is used for its own tick or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError
from controller.spec import ArraySpec
from controller.spelling import nearest
from controller.types import ActionChunk, Array

MAX_ROWS: Final = 1024
"""Rows of a chunk that are kept, from the tick on at which it joins; the wire carries no more."""

Mask = NDArray[np.bool_]


class Joined(Enum):
    """What became of a chunk that arrived."""

    TAKEN = "taken"
    """Its rows that are still to come are the plan now."""
    OLD = "old"
    """It answers an older request than the plan does, or one of an earlier episode."""
    PAST = "past"
    """All its rows are for ticks that have passed, or that are committed."""
    FUTURE = "future"
    """It is for a tick that has not come, so nobody can have asked for it."""


class Source(NamedTuple):
    """A chunk in the plan; its rows up to tick ``until``, exclusive, are what it was asked for."""

    chunk: ActionChunk
    until: int


class Row(NamedTuple):
    """What the plan says for one tick.

    Attributes:
        action: in the shape and dtype of ``Spec.action``; belongs to the plan.
        source: where it came from. In a blend, the chunk that fades in.
        blended: whether it lies between two chunks.
    """

    action: Array
    source: Source
    blended: bool


class Plan:
    """Rows of actions by tick. It never holds more than ``MAX_ROWS`` rows and what is committed.

    Where a chunk takes over while the plan still has rows, it fades in over the next ``blend``
    ticks: row i of the n that both have is ``old + w * (new - old)`` with ``w = (i + 1) /
    (n + 1)``. What fades may itself be a blend.

    Args:
        blend: longest fade, in ticks; 0 switches.
        faded: which elements of an action fade, in its shape; the others switch at the seam.
            None for all.
        tail: rows of a chunk that may be used beyond those it was asked for; None for all.
    """

    def __init__(self, blend: int = 0, faded: Mask | None = None, tail: int | None = None) -> None:
        self._blend = blend
        self._faded = faded
        self._tail = MAX_ROWS if tail is None else tail
        self._rows: Array | None = None
        self._sources: list[Source] = []
        self._blended: list[bool] = []
        self._first = 0
        self._fixed = 0
        self._newest = -1

    def clear(self, tick: int) -> None:
        """Forget everything; no chunk that was asked for before ``tick`` is ever used."""
        self._rows = None
        self._sources, self._blended = [], []
        self._first = self._fixed = tick
        self._newest = tick - 1

    def join(self, chunk: ActionChunk, tick: int, span: int = 1) -> Joined:
        """Let a chunk that arrived before the command of ``tick`` take over, where it may.

        Rows that are committed stay as they are, and rows of ticks that have passed are dropped.

        Args:
            chunk: of finite actions in the shape and dtype of the robot's.
            tick: the present tick.
            span: rows of it that are intended to be used.
        """
        if chunk.tick > tick:
            return Joined.FUTURE
        if chunk.tick <= self._newest:
            return Joined.OLD
        end = self._first + len(self._sources)
        seam = max(tick, min(self._fixed, end))
        source = Source(chunk, chunk.tick + span)
        last = min(source.until + self._tail, seam + MAX_ROWS)
        rows = chunk.actions[seam - chunk.tick : max(0, last - chunk.tick)]
        count = len(rows)
        if not count:
            return Joined.PAST
        fading = min(self._blend, count, end - seam) if end > seam else 0
        if seam > tick or fading:
            self._splice(rows, source, tick, seam, fading)
        else:
            self._rows = rows.copy()
            self._sources, self._blended = [source] * count, [False] * count
        self._first, self._newest = tick, chunk.tick
        return Joined.TAKEN

    def _splice(self, rows: Array, source: Source, tick: int, seam: int, fading: int) -> None:
        """Put ``rows`` behind those up to ``seam``, faded in over ``fading``."""
        assert self._rows is not None
        begin, kept, count = tick - self._first, seam - tick, len(rows)
        old = self._rows[begin:]
        rows = np.concatenate((old[:kept], rows))
        fade = slice(kept, kept + fading)
        rows[fade] = _fade(old[fade], rows[fade], self._faded)
        flags = [True] * fading + [False] * (count - fading)
        self._rows = rows
        self._sources = [*self._sources[begin : begin + kept], *[source] * count]
        self._blended = [*self._blended[begin : begin + kept], *flags]

    def row(self, tick: int) -> Row | None:
        """Return the row for ``tick``, or None where there is none."""
        index = tick - self._first
        if self._rows is None or not 0 <= index < len(self._sources):
            return None
        return Row(self._rows[index], self._sources[index], self._blended[index])

    def left(self, tick: int) -> int:
        """Return how many rows there are from ``tick`` on."""
        return max(0, self._first + len(self._sources) - tick)

    def commit(self, tick: int, count: int) -> Array | None:
        """Return the next ``count`` rows from ``tick`` on, which no later chunk replaces.

        Fewer where there are fewer, and None where there are none.
        """
        count = min(count, self.left(tick))
        if self._rows is None or count < 1:
            return None
        self._fixed = max(self._fixed, tick + count)
        begin = tick - self._first
        return self._rows[begin : begin + count].copy()

    @property
    def newest(self) -> ActionChunk | None:
        """The newest chunk in the plan; None while it is empty."""
        return self._sources[-1].chunk if self._sources else None


def faded_elements(action: ArraySpec, exclude: Sequence[str | int]) -> Mask:
    """Return which elements of an action fade, in its shape.

    Args:
        action: the robot's.
        exclude: those that do not, by name or by number.

    Raises:
        ConfigError: the action has no such element.
    """
    faded = np.ones(action.size, np.bool_)
    for element in exclude:
        faded[_index_of(element, action)] = False
    return faded.reshape(action.shape)


def _index_of(element: str | int, action: ArraySpec) -> int:
    if isinstance(element, int) and 0 <= element < action.size:
        return element
    if isinstance(element, str) and element in action.elements:
        return action.elements.index(element)
    names = f", or {', '.join(action.elements)}" if action.elements else ""
    close = nearest(str(element), action.elements)
    hint = f"; did you mean {close}?" if close else ""
    raise ConfigError(
        f"blend_exclude: {action.name} has no element {element!r}, "
        f"expected 0 to {action.size - 1}{names}{hint}"
    )


def _fade(old: Array, new: Array, faded: Mask | None) -> Array:
    count = len(old)
    weights = (np.arange(1, count + 1) / (count + 1)).reshape(-1, *[1] * (old.ndim - 1))
    begun = old.astype(np.float64)
    mixed = begun + weights * (new.astype(np.float64) - begun)
    if new.dtype.kind != "f":
        mixed = np.rint(mixed)
    mixed = mixed.astype(new.dtype)
    return mixed if faded is None else np.where(faded, mixed, new)
