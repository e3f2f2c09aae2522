"""What a few episodes or runs say about the mean: robust averages and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
Interval = tuple[float, float]
Statistic = Callable[[Float64], Float64]
"""Reduces the last axis of an array (..., n)."""

RESAMPLES = 5_000
CELLS = 1 << 20
"""Numbers that are resampled at once, to bound the memory."""


def mean(values: Float64) -> Float64:
    """Return the mean over the last axis."""
    return np.asarray(values.mean(axis=-1))


def iqm(values: Float64) -> Float64:
    """Return the interquartile mean over the last axis: a quarter of the values off each end.

    Of n values int(n / 4) are left out at each end, whole ones only, so that up to three
    values are all kept. Agarwal et al. 2021, "Deep RL at the edge of the statistical
    precipice", section 4.3.
    """
    n = values.shape[-1]
    cut = n // 4
    if not cut:
        return mean(values)
    parted = np.partition(values, (cut, n - cut - 1), axis=-1)
    return mean(parted[..., cut : n - cut])


def interval(
    strata: Sequence[ArrayLike],
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a percentile bootstrap interval of a statistic of several groups together.

    Each group is resampled with replacement on its own, as its share of the whole was no
    accident: runs of each task, or episodes of each run. One group is the plain bootstrap.

    Args:
        strata: the values of each group; at least one group, none of them empty.
        statistic: of all values together.
        confidence: probability that the interval is to cover.
        resamples: how many; the ends vary by about 1 % of the width at 5 000.
        seed: of the resampling.

    Raises:
        ValueError: a group is empty, or there is none.
    """
    groups = [np.asarray(group, np.float64).reshape(-1) for group in strata]
    if not groups or min(len(group) for group in groups) == 0:
        raise ValueError(f"groups of {[len(g) for g in groups]} values: expected 1 or more each")
    rng = np.random.default_rng(seed)
    rows = max(1, CELLS // sum(map(len, groups)))
    counts = [min(rows, resamples - done) for done in range(0, resamples, rows)]
    drawn = [statistic(_resampled(groups, count, rng)) for count in counts]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(np.concatenate(drawn), (tail, 100.0 - tail))
    return float(low), float(high)


def mean_interval(values: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return a percentile bootstrap interval of the mean of ``values``."""
    return interval([values], confidence=confidence, seed=seed)


def _resampled(groups: Sequence[Float64], count: int, rng: np.random.Generator) -> Float64:
    parts = [group[rng.integers(0, len(group), (count, len(group)))] for group in groups]
    return np.concatenate(parts, axis=-1)
