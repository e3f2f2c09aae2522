"""Grids of noise levels and the curriculum over them. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def doubling_size(k: int, total: int, s0: int, s1: int) -> int:
    """Return N(k) that doubles from s0 + 1 to s1 + 1 in equal stretches of the run.

    N(k) = min(s0 2^floor(k / K'), s1) + 1 with K' = floor(K / (log2(s1 / s0) + 1))
    (Song & Dhariwal 2023, sec. 3.4).
    """
    stretch = max(1, math.floor(total / (math.log2(s1 / s0) + 1)))
    doublings = min(k // stretch, math.ceil(math.log2(s1 / s0)))
    return min(s0 << doublings, s1) + 1


@dataclass(frozen=True)
class VarianceSchedule:
    """A variance-preserving chain of N steps; entry t-1 belongs to step t = 1..N.

    Attributes:
        betas: (N,) variance added by each step.
        alpha_bars: (N,) share of the clean signal's variance left after each step.
        variances: (N,) of the reverse step, beta_t (1 - abar_{t-1}) / (1 - abar_t); 0 at t = 1.
    """

    betas: tuple[float, ...]
    alpha_bars: tuple[float, ...]
    variances: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.betas)


def variance_preserving(n: int, b_min: float = 0.1, b_max: float = 10.0) -> VarianceSchedule:
    """Return the chain with beta_t = 1 - exp(-b_min/N - (b_max - b_min)(2t - 1) / (2 N^2)).

    The exponents add up to b_min + (b_max - b_min)/2 for any N, so that every chain ends at the
    same noise level: abar_N = 0.0064 with the default ends (Xiao et al. 2022; Wang et al. 2023,
    sec. 3; Ho et al. 2020, eq. 7 for the reverse variance).
    """
    if n < 1:
        raise ValueError(f"a diffusion chain needs 1 step or more, got {n}")
    t = np.arange(1, n + 1, dtype=np.float64)
    betas: NDArray[np.float64] = -np.expm1(-b_min / n - 0.5 * (b_max - b_min) * (2 * t - 1) / n**2)
    alpha_bars = np.cumprod(1.0 - betas, dtype=np.float64)
    before = np.concatenate([[1.0], alpha_bars[:-1]])
    variances = betas * (1.0 - before) / (1.0 - alpha_bars)
    return VarianceSchedule(*(tuple(column.tolist()) for column in (betas, alpha_bars, variances)))


def respaced(chain: VarianceSchedule, steps: int) -> tuple[VarianceSchedule, list[int]]:
    """Return a chain of ``steps`` of the steps, spread evenly, and which they are, from 0.

    The last step is always among them. beta_t = 1 - abar_t / abar_before of the steps that are
    left (Nichol & Dhariwal 2021, sec. 4).

    Raises:
        ValueError: the chain has fewer steps, or none is asked for.
    """
    whole = len(chain)
    if not 1 <= steps <= whole:
        raise ValueError(f"{steps} steps of a chain of {whole}: expected 1 to {whole}")
    if steps == whole:
        return chain, list(range(whole))
    kept = [round((i + 1) * whole / steps) - 1 for i in range(steps)]
    bars = [chain.alpha_bars[index] for index in kept]
    before = [1.0, *bars[:-1]]
    betas = [1.0 - now / last for now, last in zip(bars, before, strict=True)]
    variances = [
        beta * (1.0 - last) / (1.0 - now)
        for beta, now, last in zip(betas, bars, before, strict=True)
    ]
    return VarianceSchedule(tuple(betas), tuple(bars), tuple(variances)), kept


def consistency_levels(n: int, sigma_max: float = 80.0, lowest: float = 2.0) -> tuple[float, ...]:
    """Return ``n`` falling noise levels for ``n`` network evaluations, spaced evenly.

    The released code of Ding & Jin (2024) queries the whole grid from T down to 2; one level is
    T alone. The paper's algorithm stops one point above its grid's lower end:
    :func:`paper_levels`.
    """
    if n < 1:
        raise ValueError(f"sampling needs 1 noise level or more, got {n}")
    return tuple(np.linspace(sigma_max, lowest, n).tolist()) if n > 1 else (sigma_max,)


def paper_levels(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> tuple[float, ...]:
    """Return the n - 1 falling levels that the paper's grid of ``n`` points queries.

    The grid is linspace(eps, T, n); its lowest point, where f is the identity, is not queried
    (Ding & Jin 2024, alg. 1: n = N-1 down to 2).
    """
    if n < 2:
        raise ValueError(f"the paper's grid needs 2 points or more, got {n}")
    return tuple(np.linspace(sigma_max, sigma_min, n)[:-1].tolist())
