"""Ways to look at transitions without copying them: n steps ahead, and chunks of actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class NStep:
    """Where n steps lead from each of N rows, and what they earn.

    The target of row i is ``rewards[i] + discounts[i] * V(next_observations[last[i]])``.

    Attributes:
        rewards: (N,) float64 sum of discounted rewards, row i's own undiscounted.
        discounts: (N,) float64 weight of the value at the end: the discount to the power of the
            steps taken, 0 where the successor is terminal.
        last: (N,) the row whose successor is the end: row i + n - 1, or the last of its episode
            where that comes first.
    """

    rewards: NDArray[np.float64]
    discounts: NDArray[np.float64]
    last: Rows


def n_step(
    rewards: NDArray[np.floating], terminals: Flags, last_rows: Rows, n: int, discount: float
) -> NStep:
    """Return the n-step view of rows in time order.

    Args:
        rewards: (N,).
        terminals: (N,) whether the row's successor is terminal.
        last_rows: (N,) the last row of each row's episode.
        n: steps to look ahead, at least 1.
        discount: of reward, per step.

    Raises:
        ValueError: ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    rows = np.arange(len(rewards))
    last = np.minimum(rows + (n - 1), last_rows)
    total = rewards.astype(np.float64)
    for step in range(1, min(n, len(rewards))):
        inside = last[:-step] - rows[:-step] >= step
        total[:-step] += inside * (discount**step * rewards[step:].astype(np.float64))
    ends = np.power(discount, last - rows + 1)
    return NStep(total, np.where(terminals[last], 0.0, ends), last)


@dataclass(frozen=True)
class Chunks:
    """The next ``horizon`` actions of each of N rows, never beyond the row's episode.

    Attributes:
        actions: (N, A) the actions themselves.
        last: (N,) the last row of each row's episode.
        horizon: actions of a chunk, at least 1.
    """

    actions: NDArray[np.floating]
    last: Rows
    horizon: int

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def windows(self) -> NDArray[np.floating]:
        """(N - horizon + 1, horizon, A): every run of actions, read-only, nothing copied.

        Those that begin in ``whole`` lie within one episode.
        """
        width = self.actions.shape[1]
        if len(self) < self.horizon:
            return np.zeros((0, self.horizon, width), self.actions.dtype)
        seen = sliding_window_view(self.actions, self.horizon, axis=0)
        return seen.swapaxes(1, 2)

    @property
    def whole(self) -> Rows:
        """(M,) rows whose chunk needs no padding."""
        rows = np.arange(len(self))
        return np.flatnonzero(self.last - rows >= self.horizon - 1)

    def valid(self, rows: Rows) -> Flags:
        """Return (B, horizon): which actions of the chunks of ``rows`` are real, not padding."""
        result: Flags = rows[:, None] + np.arange(self.horizon) <= self.last[rows, None]
        return result

    def take(self, rows: Rows) -> tuple[NDArray[np.floating], Flags]:
        """Return (B, horizon, A) chunks of ``rows``, and which of their actions are real.

        Beyond the end of an episode its last action is repeated.
        """
        index = np.minimum(rows[:, None] + np.arange(self.horizon), self.last[rows, None])
        return self.actions[index], self.valid(rows)


def chunks(actions: NDArray[np.floating], last_rows: Rows, horizon: int) -> Chunks:
    """Return the chunked view of actions in time order.

    Args:
        actions: (N, A) or (N, ...), flattened.
        last_rows: (N,) the last row of each row's episode.
        horizon: actions of a chunk.

    Raises:
        ValueError: ``horizon`` is below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}, expected at least 1")
    return Chunks(actions.reshape(len(actions), -1), last_rows, horizon)
