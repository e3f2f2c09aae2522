"""Grids of noise levels and the curriculum over them. Needs no torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def karras(n: int, sigma_min: float, sigma_max: float, rho: float) -> NDArray[np.float64]:
    """Return ``n`` noise levels rising from ``sigma_min`` to ``sigma_max``.

    tau_i = (eps^(1/rho) + (i-1)/(n-1) (T^(1/rho) - eps^(1/rho)))^rho, i = 1..n
    (Karras et al. 2022, eq. 5; Song et al. 2023, sec. 2).
    """
    if n < 2:
        raise ValueError(f"a grid of noise levels needs 2 points or more, got {n}")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    levels: NDArray[np.float64] = (low + np.linspace(0.0, 1.0, n) * (high - low)) ** rho
    levels[0], levels[-1] = sigma_min, sigma_max
    return levels


def grid_size(k: int, total: int, s0: int, s1: int) -> int:
    """Return N(k), the number of noise levels at update ``k`` of ``total``.

    N(k) = ceil(sqrt(k/K ((s1+1)^2 - s0^2) + s0^2) - 1) + 1 (Song et al. 2023, app. C):
    s0 at the start, s1 + 1 at the end.
    """
    progress = min(max(k / total, 0.0), 1.0)
    return math.ceil(math.sqrt(progress * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1


def pair_probabilities(levels: NDArray[np.float64], mean: float, std: float) -> NDArray[np.float64]:
    """Return (n-1,) chances of each neighbouring pair when ln(sigma) ~ N(mean, std^2).

    p_i ~ erf((ln tau_{i+1} - mean) / (std sqrt 2)) - erf((ln tau_i - mean) / (std sqrt 2))
    (Song & Dhariwal 2023, sec. 3.5).
    """
    scaled = (np.log(levels) - mean) / (std * math.sqrt(2.0))
    chances = np.diff([math.erf(value) for value in scaled])
    return np.asarray(chances / chances.sum(), dtype=np.float64)
