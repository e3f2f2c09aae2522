"""The wrapping that turns a network into a consistency function.

f(x, tau) = c_skip(tau) x + c_out(tau) F(c_in(tau) x, c_noise(tau)), with f(x, eps) = x.

The coefficients are written once for floats and tensors; this module needs no torch to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from policies.model import PreconditionSettings

if TYPE_CHECKING:
    import torch

Network: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]"
Level = TypeVar("Level", float, "torch.Tensor")


@dataclass(frozen=True)
class Precondition:
    """Coefficients of the consistency function.

    Attributes:
        kind: ``edm``: c_in = 1/sqrt(tau^2 + s^2) and c_noise = 250 ln tau (Song et al.
            2023, app. C). ``paper``: c_in = 1 and c_noise = tau (Ding & Jin 2024).
        sigma_min: eps, where f is the identity.
        sigma_data: s, standard deviation of the data.
    """

    kind: Literal["edm", "paper"]
    sigma_min: float
    sigma_data: float

    @classmethod
    def of(cls, settings: PreconditionSettings) -> Precondition:
        """Take the coefficients' share of ``settings``."""
        return cls(settings.kind, settings.sigma_min, settings.sigma_data)

    def c_skip(self, tau: Level) -> Level:
        """Return s^2 / ((tau - eps)^2 + s^2)."""
        variance = self.sigma_data**2
        share: Level = variance / ((tau - self.sigma_min) ** 2 + variance)
        return share

    def c_out(self, tau: Level) -> Level:
        """Return s (tau - eps) / sqrt(tau^2 + s^2)."""
        share: Level = (tau - self.sigma_min) / (tau**2 + self.sigma_data**2) ** 0.5
        return self.sigma_data * share

    def c_in(self, tau: Level) -> Level:
        """Return the scale of the network's input."""
        if self.kind == "paper":
            return tau * 0.0 + 1.0
        scale: Level = (tau**2 + self.sigma_data**2) ** -0.5
        return scale

    def c_noise(self, tau: Level) -> Level:
        """Return what the network is told of the noise level."""
        if self.kind == "paper":
            return tau
        return 250.0 * (math.log(tau) if isinstance(tau, float | int) else tau.log())

    def denoise(
        self, network: Network, x: torch.Tensor, tau: torch.Tensor | float, condition: torch.Tensor
    ) -> torch.Tensor:
        """Return f(x, tau): the clean action that ``x`` (..., A) leads to.

        Args:
            network: F(x, c_noise, condition).
            x: (..., A) noisy encoded actions.
            tau: noise levels, (..., 1), or one for all.
            condition: (..., d) encoded observations.
        """
        if isinstance(tau, float | int):
            tau = x.new_full((1,) * x.dim(), tau)
        scaled = x if self.kind == "paper" else self.c_in(tau) * x
        inner = network(scaled, self.c_noise(tau), condition)
        return self.c_skip(tau) * x + self.c_out(tau) * inner
