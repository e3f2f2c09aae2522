"""How likely actions are under Gaussian policies."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
LOG_TWO = math.log(2.0)
EDGE = 1.0 - 1e-6
"""Largest action whose atanh is taken: 7.25."""


def log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log N(x; mean, sigma^2), summed over the last dimension.

    Args:
        x: (..., A).
        mean: (..., A).
        log_std: (..., A), or of a shape that spreads to that.
    """
    z = (x - mean) * (-log_std).exp()
    return (-0.5 * z.square() - log_std - HALF_LOG_TWO_PI).sum(-1)


def log_tanh_normal(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log density at ``action`` of a = tanh(u), u ~ N(mean, sigma^2).

    log p(a) = log N(u) - sum log(1 - tanh(u)^2), the last written as
    2 (log 2 - u - softplus(-2 u)), which does not cancel (Haarnoja et al. 2018, app. C).

    Args:
        action: (..., A), clipped to +-(1 - 1e-6): at the limits themselves u is infinite.
        mean: (..., A) of u.
        log_std: (..., A) of u.
    """
    u = action.clamp(-EDGE, EDGE).atanh()
    slope = 2.0 * (LOG_TWO - u - functional.softplus(-2.0 * u))
    return log_normal(u, mean, log_std) - slope.sum(-1)
