"""Consistency-BC: behaviour cloning with a consistency model (Ding & Jin 2024, alg. 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policies.algos.imitator import Imitator
from policies.algos.learner import Batch, Draw, Sizes, Variant
from policies.diffusion.precond import Network, Precondition
from policies.diffusion.sampler import multi_step
from policies.learning import NEWEST, Averaging, ConsistencySettings, OptimiserSettings
from policies.model import ConsistencyModel, PreconditionSettings, SamplerSettings
from policies.nets import Denoiser, Views


class ConsistencyLoss:
    """L = E[lambda d(f(a + tau_{n+1} z, tau_{n+1} | s), f_target(a + tau_n z, tau_n | s))].

    The same z on both sides, no gradient through the target, n drawn per sample from a grid
    of N(k) levels (Ding & Jin 2024, eq. 6; Song et al. 2023, alg. 3).

    Args:
        settings: lambda, d, the distribution of n and the curriculum N(k).
        noise: noise levels and preconditioning.
    """

    def __init__(self, settings: ConsistencySettings, noise: PreconditionSettings) -> None:
        self.settings, self.noise = settings, noise
        self.precondition = Precondition.of(noise)
        self._low, self._high = (s ** (1 / noise.rho) for s in (noise.sigma_min, noise.sigma_max))

    def __call__(
        self,
        network: Network,
        target: Network,
        batch: Batch,
        levels: Tensor,
        z: Tensor,
        draw: Tensor,
    ) -> Tensor:
        """Return the loss of each run, (R,).

        Args:
            network: F of the online model.
            target: F of the target model.
            batch: conditions and actions.
            levels: N(k), a number.
            z: (R, B, A) standard normal.
            draw: (R, B, 1) even in [0, 1), chooses n.
        """
        low, high = self.pair(levels, draw)
        with torch.no_grad():
            goal = self.precondition.denoise(target, batch.action + low * z, low, batch.condition)
        guess = self.precondition.denoise(network, batch.action + high * z, high, batch.condition)
        return (self.weight(low, high) * self.distance(guess, goal)).mean((1, 2))

    def pair(self, levels: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Return neighbouring levels tau_n, tau_{n+1} of a Karras grid of ``levels`` points.

        Uniform n, or n as often as ln(sigma) ~ N(mean, std^2) falls between the two levels:
        the same as rounding such a sigma, cut to [eps, T], down to the grid.
        """
        steps = levels - 1
        place = draw
        if self.settings.levels == "lognormal":
            place = self._grid_place(draw)
        index = (place * steps).floor_().minimum(steps - 1)
        return self._level(index / steps), self._level((index + 1) / steps)

    def _level(self, share: Tensor) -> Tensor:
        """Return (eps^(1/rho) + share (T^(1/rho) - eps^(1/rho)))^rho."""
        rooted = self._low + share * (self._high - self._low)
        level: Tensor = rooted**self.noise.rho
        return level.clamp_(self.noise.sigma_min, self.noise.sigma_max)

    def _grid_place(self, draw: Tensor) -> Tensor:
        """Return where on the grid, 0 to 1, the quantile ``draw`` of ln(sigma) lies."""
        mean, std = self.settings.lognormal_mean, self.settings.lognormal_std
        ends = (self.noise.sigma_min, self.noise.sigma_max)
        below, above = (0.5 * math.erfc((mean - math.log(s)) / (std * 2**0.5)) for s in ends)
        quantile = (below + draw * (above - below)).clamp(1e-7, 1.0 - 1e-7)
        sigma: Tensor = (mean + std * torch.special.ndtri(quantile)).exp()
        place: Tensor = (sigma ** (1 / self.noise.rho) - self._low) / (self._high - self._low)
        return place

    def weight(self, low: Tensor, high: Tensor) -> Tensor | float:
        """Return lambda: 1, or xi / (tau_{n+1} - tau_n) (Ding & Jin 2024, sec. 4.2)."""
        if self.settings.weighting == "none":
            return 1.0
        return self.settings.xi / (high - low)

    def distance(self, guess: Tensor, goal: Tensor) -> Tensor:
        """Return d per sample, (R, B, 1): mean square, or pseudo-Huber of the vector.

        sqrt(|x - y|^2 + c^2) - c with c = huber sqrt(A) (Song & Dhariwal 2023, eq. 8).
        """
        square = (guess - goal).square()
        if self.settings.distance == "l2":
            return square.mean(-1, keepdim=True)
        c = self.settings.huber * math.sqrt(guess.shape[-1])
        norm: Tensor = (square.sum(-1, keepdim=True) + c * c).sqrt()
        return norm - c


class ConsistencyBC(Imitator):
    """Consistency-BC.

    Args:
        sizes: of the robot.
        model: network and noise levels.
        loss: the consistency loss.
        optimiser: of the network.
        sampler: how an action is drawn in training, by those who do.
        average: of the weights that act in a TD target.
    """

    def __init__(
        self,
        sizes: Sizes,
        model: ConsistencyModel,
        loss: ConsistencySettings,
        optimiser: OptimiserSettings,
        sampler: SamplerSettings,
        average: Averaging = NEWEST,
    ) -> None:
        self.net = Denoiser(sizes.action, sizes.condition, model.network, sizes.device)
        self.net.training = True
        kept = {"target": loss.target, "slow": average}
        super().__init__(sizes, self.net.shapes, optimiser, kept)
        self._model, self.levels = model, model.levels(sampler)
        self.loss = ConsistencyLoss(loss, model.noise)

    @property
    def model(self) -> ConsistencyModel:
        """What the policy is made of."""
        return self._model

    def prepare(self, step: int) -> Variant:
        """Set N(k), the learning rate and the shares of the averages."""
        self.dials.set("levels", self.loss.settings.levels_at(step, self.settings.steps))
        return super().prepare(step)

    def imitation(self, batch: Batch, draw: Draw) -> Tensor:
        """Return L_c of each run, (R,)."""
        target = self.averages["target"].fixed
        return self.loss(
            lambda *x: self.net(self.online.arrays, *x),
            lambda *x: self.net(target, *x),
            batch,
            self.dials["levels"],
            *draw,
        )

    def sampling_noise(self, rows: int) -> Tensor:
        """Draw (K, R, rows, A), noise for the K levels of a sample."""
        return self.noise(len(self.levels), len(self.sizes.seeds), rows, self.sizes.action)

    def sample(self, views: Views, condition: Tensor, noise: Tensor) -> Tensor:
        """Return (R, B, A) actions in [-1, 1] for (R, B, d) conditions (alg. 2).

        Gradients flow through every evaluation to ``views``.
        """

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.loss.precondition.denoise(
                lambda *x: self.net(views, *x), x, sigma, condition
            )

        lowest = self._model.noise.sigma_min
        return multi_step(denoise, noise.unbind(), self.levels, lowest).clamp(-1.0, 1.0)
