"""Sampling from a consistency function ``denoise(x, tau)``, or from a diffusion model.

Written for anything with arithmetic: numpy arrays and tensors alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from policies.diffusion.schedule import VarianceSchedule

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


def ancestral(
    predict_noise: Callable[[X, int], X],
    noises: Sequence[X],
    schedule: VarianceSchedule,
    clip: Callable[[X], X],
) -> X:
    """Walk the chain back from pure noise, N network evaluations (Ho et al. 2020, alg. 2).

    With the clean sample of each step clipped, as Wang et al. (2023) do:

        x0 = clip((x_t - sqrt(1 - abar_t) e_t) / sqrt(abar_t)),
        x_{t-1} = [sqrt(abar_{t-1}) beta_t x0 + sqrt(1 - beta_t)(1 - abar_{t-1}) x_t] / (1 - abar_t)
                  + sqrt(variance_t) z.

    Args:
        predict_noise: e_t from x_t and the step t = N..1.
        noises: N standard normal arrays: x_N, then one for each step but the last.
        schedule: the chain.
        clip: limits of a clean sample.
    """
    x = noises[0]
    following = (*noises[1:], None)
    for t, noise in zip(range(len(schedule), 0, -1), following, strict=True):
        beta, after = schedule.betas[t - 1], schedule.alpha_bars[t - 1]
        before = schedule.alpha_bars[t - 2] if t > 1 else 1.0
        clean = clip((x - (1.0 - after) ** 0.5 * predict_noise(x, t)) / after**0.5)
        mean = before**0.5 * beta * clean + (1.0 - beta) ** 0.5 * (1.0 - before) * x
        x = mean / (1.0 - after)
        if noise is not None:
            x = x + schedule.variances[t - 1] ** 0.5 * noise
    return x
