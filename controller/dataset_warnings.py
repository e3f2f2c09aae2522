"""What a careful person would look at in a dataset before training on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.transitions import REAL_COLUMNS, Transitions, not_finite

TOLERANCE = 1e-5
"""Relative to the limit: what rounding to float32 may add."""


@dataclass(frozen=True)
class Expected:
    """What is known of the task, to hold a dataset against.

    Attributes:
        low: (A,) lower limits of the action; None where they are not known.
        high: (A,) upper limits.
        rewards: smallest and largest reward of a step; None where that is not known.
        episode_steps: longest episode; 0 where that is not known.
    """

    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    rewards: tuple[float, float] | None = None
    episode_steps: int = 0


def warnings(data: Transitions, expected: Expected | None = None) -> list[str]:
    """Return one line for each finding.

    Args:
        data: the transitions; values that are not finite are findings too.
        expected: what is known of the task.
    """
    known = expected or Expected()
    return [
        *_not_finite(data),
        *_constant(data),
        *_out_of_range(data, known),
        *_odd_episodes(data, known),
        *_repeated(data),
    ]


def _not_finite(data: Transitions) -> Iterator[str]:
    for name in REAL_COLUMNS:
        bad = not_finite(getattr(data, name))
        if bad.any():
            yield f"{name}: not finite in {int(bad.sum())} rows, first {int(bad.argmax())}"


def _constant(data: Transitions) -> Iterator[str]:
    observations, actions = data.observations, data.actions.reshape(len(data), -1)
    still = observations.min(axis=0) == observations.max(axis=0)
    if still.any():
        names = [name for name, size in data.layout for _ in range(size)]
        constant = sorted({names[i] for i in np.flatnonzero(still)})
        yield f"{int(still.sum())} observation elements never change, in {constant}"
    idle = np.flatnonzero(actions.min(axis=0) == actions.max(axis=0))
    if len(idle):
        yield f"action elements {idle.tolist()} never change"


def _out_of_range(data: Transitions, known: Expected) -> Iterator[str]:
    if known.low is not None and known.high is not None:
        actions = data.actions.reshape(len(data), -1)
        slack = TOLERANCE * np.maximum(1.0, np.abs([known.low, known.high]))
        outside = (actions < known.low - slack[0]) | (actions > known.high + slack[1])
        if outside.any():
            rows, worst = outside.any(axis=1), int(outside.sum(axis=0).argmax())
            found = actions[:, worst][outside[:, worst]]
            extreme = found[np.abs(found).argmax()]
            yield (
                f"actions: outside their limits in {int(rows.sum())} rows, first "
                f"{int(rows.argmax())}; element {worst} is {extreme:.4g}, allowed "
                f"{known.low[worst]:.4g} to {known.high[worst]:.4g}"
            )
    if known.rewards is not None:
        low, high = known.rewards
        bad = (data.rewards < low - TOLERANCE) | (data.rewards > high + TOLERANCE)
        if bad.any():
            yield (
                f"rewards: outside {low:g} to {high:g} in {int(bad.sum())} rows, first "
                f"{int(bad.argmax())}: {data.rewards[int(bad.argmax())]:.4g}"
            )


def _odd_episodes(data: Transitions, known: Expected) -> Iterator[str]:
    lengths = data.lengths()
    ends = data.starts + lengths - 1
    single = (lengths == 1) & data.terminals[ends]
    single[0] = False
    single &= data.terminals[ends - lengths]
    if single.any():
        first = int(ends[single.argmax()])
        yield (
            f"{int(single.sum())} episodes are a single terminal row after a terminal row, first "
            f"row {first}: terminals in the middle of an episode, whose returns are in pieces"
        )
    if known.episode_steps and (lengths > known.episode_steps).any():
        count, longest = int((lengths > known.episode_steps).sum()), int(lengths.max())
        yield (
            f"{count} episodes are longer than the task's {known.episode_steps} steps, up to "
            f"{longest}: not every end is marked"
        )


def _repeated(data: Transitions) -> Iterator[str]:
    """Find episodes that share rows: copies, and stretches that occur twice."""
    pairs = _equal_rows(data)
    if len(pairs):
        first, second = data.episode[pairs[:, 0]], data.episode[pairs[:, 1]]
        lengths = data.lengths()
        shared = np.stack([first, second], axis=1)
        which, counts = np.unique(shared, axis=0, return_counts=True)
        whole = (counts >= lengths[which[:, 0]]) & (lengths[which[:, 0]] == lengths[which[:, 1]])
        copies = np.unique(which[whole, 1])
        if len(copies):
            a, b = which[whole][0].tolist()
            yield f"{len(copies)} episodes are copies of another one: episode {b} of episode {a}"
        partial = which[~whole]
        if len(partial):
            a, b = partial[0].tolist()
            yield (
                f"{len(partial)} pairs of episodes overlap: "
                f"{int(counts[~whole].sum())} of their rows are the same, the first pair is "
                f"episodes {a} and {b}"
            )
        return
    begun = data.observations[data.starts]
    repeated = len(begun) - len(np.unique(begun, axis=0))
    if repeated:
        yield f"{repeated} episodes begin exactly like another one"


def _equal_rows(data: Transitions) -> NDArray[np.int64]:
    """Return (K, 2) rows of different episodes with equal observation and action.

    Each row is paired with the first one that equals it.
    """
    columns = (data.observations, data.actions.reshape(len(data), -1))
    key = _hash(columns)
    order = np.argsort(key, kind="stable")
    again = np.zeros(len(data), np.bool_)
    again[1:] = key[order[1:]] == key[order[:-1]]
    if not again.any():
        return np.zeros((0, 2), np.int64)
    head = np.maximum.accumulate(np.where(again, 0, np.arange(len(data))))
    pairs = np.stack([order[head[again]], order[again]], axis=1)
    pairs = pairs[data.episode[pairs[:, 0]] != data.episode[pairs[:, 1]]]
    equal = np.ones(len(pairs), np.bool_)
    for column in columns:
        equal &= (column[pairs[:, 0]] == column[pairs[:, 1]]).all(axis=1)
    result: NDArray[np.int64] = pairs[equal]
    return result


def _hash(columns: tuple[NDArray[np.floating], ...]) -> NDArray[np.uint64]:
    """Return (N,) one number per row: a random linear map of its bits, modulo 2**64."""
    rng = np.random.default_rng(0)
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        # -0.0 and 0.0 are equal, and so must their bits be.
        for element in column.T:
            bits = (element.astype(np.float32) + np.float32(0)).view(np.uint32)
            total += bits * rng.integers(2**63, dtype=np.uint64) * np.uint64(2) + bits
    return total
