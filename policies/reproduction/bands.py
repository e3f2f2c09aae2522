"""Learning curves of several seeds brought together: their mean, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRID = 101
"""Places that curves are read at."""
T_975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788,
    2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
    2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
"""Quantiles at 97.5 % of Student's t with 1 to 30 degrees of freedom."""
Z_975 = 1.959964
ENOUGH = 3
"""Seeds from which a band is a 95 % interval of the mean by Student's t. That of two seeds is
mean ± 6.4 times their distance and tells nothing in a picture: there it is the range of both."""


@dataclass(frozen=True)
class Band:
    """A mean curve with its band.

    Attributes:
        x: places, shape (n,).
        mean: over the seeds, shape (n,).
        low: lower edge, shape (n,).
        high: upper edge, shape (n,).
        seeds: behind it.
    """

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    seeds: int


def t_975(freedom: int) -> float:
    """Return the quantile at 97.5 % of Student's t.

    Beyond 30 degrees of freedom by the first terms of its expansion (Abramowitz & Stegun 26.7.5):
    z + (z³ + z) / 4ν + (5z⁵ + 16z³ + 3z) / 96ν².
    """
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = Z_975
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean by Student's t, None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = float(np.mean(values))
    half = t_975(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def band(curves: Sequence[tuple[Floats, Floats]]) -> Band | None:
    """Return the mean of curves where all of them are known, None where that is nowhere.

    Between its points a curve is a straight line. The band is the 95 % interval of the mean by
    Student's t at each place; of two curves their range, of one nothing: see ``ENOUGH``.

    Args:
        curves: places, rising, and values of each: shapes (n,).
    """
    there = [(x, y) for x, y in curves if len(x)]
    if not there:
        return None
    first, last = max(x[0] for x, _ in there), min(x[-1] for x, _ in there)
    if last < first:
        return None
    grid = np.linspace(first, last, GRID)
    values = np.stack([np.interp(grid, x, y) for x, y in there])
    mean = values.mean(axis=0)
    n = len(there)
    if n < ENOUGH:
        return Band(grid, mean, values.min(axis=0), values.max(axis=0), n)
    half = t_975(n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
    return Band(grid, mean, mean - half, mean + half, n)
