"""Consistency-BC: behaviour cloning with a consistency model (Ding & Jin 2024, alg. 1)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from policies.diffusion.precond import Network, Precondition
from policies.diffusion.schedule import grid_size, karras, pair_probabilities
from policies.settings import ConsistencySettings, PreconditionSettings

Info = dict[str, float]


@lru_cache(maxsize=4)
def grid(
    n: int, loss: ConsistencySettings, noise: PreconditionSettings
) -> tuple[Tensor, Tensor | None]:
    """Return the (n,) noise levels and the (n-1,) chances of each pair, None when uniform."""
    levels = karras(n, noise.sigma_min, noise.sigma_max, noise.rho)
    chances = None
    if loss.levels == "lognormal":
        chances = torch.from_numpy(
            np.cumsum(pair_probabilities(levels, loss.lognormal_mean, loss.lognormal_std))
        ).float()
    return torch.from_numpy(levels).float(), chances


class ConsistencyLoss:
    """L = E[lambda d(f(a + tau_{n+1} z, tau_{n+1} | s), f_target(a + tau_n z, tau_n | s))].

    The same z on both sides, no gradient through the target, n drawn per sample from a grid
    of N(k) levels (Ding & Jin 2024, eq. 6; Song et al. 2023, alg. 3).

    Args:
        settings: lambda, d, the distribution of n and the curriculum N(k).
        noise: noise levels and preconditioning.
    """

    def __init__(self, settings: ConsistencySettings, noise: PreconditionSettings) -> None:
        self.settings = settings
        self.noise = noise
        self.precondition = Precondition.of(noise)

    def __call__(
        self,
        network: Network,
        target: Network,
        condition: Tensor,
        action: Tensor,
        progress: tuple[int, int],
        generator: torch.Generator,
    ) -> tuple[Tensor, Info]:
        """Return the loss and what to report.

        Args:
            network: F of the online model.
            target: F of the target model.
            condition: (B, d) encoded observations.
            action: (B, A) encoded actions.
            progress: (k, K), the update's number and the number of updates.
            generator: source of levels and noise.
        """
        n = grid_size(*progress, self.settings.levels_start, self.settings.levels_end)
        low, high = self.draw_levels(n, len(action), generator)
        z = torch.randn(action.shape, generator=generator)
        with torch.no_grad():
            goal = self.precondition.denoise(target, action + low * z, low, condition)
        guess = self.precondition.denoise(network, action + high * z, high, condition)
        loss = (self.weight(low, high) * self.distance(guess, goal)).mean()
        return loss, {"loss": float(loss.detach()), "levels": n}

    def draw_levels(self, n: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return neighbouring levels tau_n, tau_{n+1}, each (B, 1), of a grid of ``n``."""
        levels, chances = grid(n, self.settings, self.noise)
        if chances is None:
            index = torch.randint(n - 1, (batch, 1), generator=generator)
        else:
            draw = torch.rand((batch, 1), generator=generator)
            index = torch.searchsorted(chances, draw).clamp_(max=n - 2)
        return levels[index], levels[index + 1]

    def weight(self, low: Tensor, high: Tensor) -> Tensor | float:
        """Return lambda: 1, or xi / (tau_{n+1} - tau_n) (Ding & Jin 2024, sec. 4.2)."""
        if self.settings.weighting == "none":
            return 1.0
        return self.settings.xi / (high - low)

    def distance(self, guess: Tensor, goal: Tensor) -> Tensor:
        """Return d per sample, (B, 1): mean square, or pseudo-Huber of the vector.

        sqrt(|x - y|^2 + c^2) - c with c = huber sqrt(A) (Song & Dhariwal 2023, eq. 8).
        """
        square = (guess - goal).square()
        if self.settings.distance == "l2":
            return square.mean(-1, keepdim=True)
        c = self.settings.huber * math.sqrt(guess.shape[-1])
        norm: Tensor = (square.sum(-1, keepdim=True) + c * c).sqrt()
        return norm - c


@torch.no_grad()
def follow(average: torch.nn.Module, online: torch.nn.Module, decay: float) -> None:
    """Move ``average`` towards ``online``: avg <- decay avg + (1 - decay) online."""
    torch._foreach_lerp_(list(average.parameters()), list(online.parameters()), 1.0 - decay)
