"""Sampling from a consistency function ``denoise(x, tau)``.

Written for anything with arithmetic: numpy arrays and tensors alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

X = TypeVar("X", bound=Any)


def one_step(denoise: Callable[[X, float], X], noise: X, sigma: float) -> X:
    """Return f(sigma z, sigma): one network evaluation (Song et al. 2023, alg. 1, n = 1)."""
    x: X = noise * sigma
    return denoise(x, sigma)


def multi_step(
    denoise: Callable[[X, float], X],
    noises: Sequence[X],
    sigmas: Sequence[float],
    sigma_min: float,
) -> X:
    """Denoise, then renoise to each lower level and denoise again (Song et al. 2023, alg. 1).

    Args:
        denoise: the consistency function.
        noises: one standard normal array per level.
        sigmas: falling noise levels; one network evaluation each.
        sigma_min: eps, the level of the samples the function returns.
    """
    x = one_step(denoise, noises[0], sigmas[0])
    for noise, sigma in zip(noises[1:], sigmas[1:], strict=True):
        x = denoise(x + (sigma**2 - sigma_min**2) ** 0.5 * noise, sigma)
    return x
