"""Diffusion-BC: behaviour cloning with a diffusion model (Wang et al. 2023, sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.algos.learner import (
    Averages,
    Batch,
    Draw,
    Figures,
    Learner,
    Optimiser,
    Sizes,
    Variant,
    fused,
)
from policies.diffusion.sampler import ancestral
from policies.diffusion.schedule import variance_preserving
from policies.learning import NEWEST, Averaging, OptimiserSettings
from policies.manifest import Arrays
from policies.model import DiffusionModel
from policies.nets import Denoiser, Views


class DiffusionBC(Learner):
    """L_d = E |z - e(sqrt(abar_t) a + sqrt(1 - abar_t) z, t | s)|^2, t even on 1..N.

    Ho et al. 2020, eq. 14; Wang et al. 2023, eq. 2.

    Args:
        sizes: of the robot.
        model: network and chain.
        optimiser: of the network.
        average: of the weights that act in a TD target.
    """

    def __init__(
        self,
        sizes: Sizes,
        model: DiffusionModel,
        optimiser: OptimiserSettings,
        average: Averaging = NEWEST,
    ) -> None:
        super().__init__(sizes)
        self._model, self.settings = model, optimiser
        chain = model.chain
        self.chain = variance_preserving(chain.steps, chain.b_min, chain.b_max)
        bars = torch.tensor(self.chain.alpha_bars, device=sizes.device)
        self._signal, self._noise = bars.sqrt(), (1.0 - bars).sqrt()
        self.net = Denoiser(sizes.action, sizes.condition, model.network, sizes.device)
        self.net.training = True
        self.online = sizes.parameters(self.net.shapes, 0)
        kept = {"slow": average, "served": optimiser.served}
        self.averages = Averages(self.online, kept, self.dials)
        self.networks = {"online": self.online, **self.averages.kept}
        self.adam = Optimiser(self.online, optimiser.weight_decay, optimiser.grad_clip)
        self.optimisers = {"actor": self.adam}
        self._gradient = fused(self._find_gradient, optimiser.compile)

    @property
    def model(self) -> DiffusionModel:
        """What the policy is made of."""
        return self._model

    def prepare(self, step: int) -> Variant:
        """Set the learning rate and the shares of the averages."""
        self.adam.set_rate(self.settings.learning_rate * self.settings.share(step))
        return self.averages.prepare(step)

    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Take one step down the loss."""
        loss = self._gradient(batch, self.draw(batch))
        norm = self.adam.step()
        self.averages.move(variant)
        return {"loss": loss, "norm": norm}

    def _find_gradient(self, batch: Batch, draw: Draw) -> Tensor:
        loss = self.imitation(batch, draw)
        self.online.descend(loss.sum())
        return loss.detach()

    def draw(self, batch: Batch) -> Draw:
        """Draw what the loss of a batch needs: noise, and which steps."""
        shape = batch.action.shape
        return self.noise(*shape), self.uniform(*shape[:2], 1)

    def imitation(self, batch: Batch, draw: Draw) -> Tensor:
        """Return L_d of each run, (R,), the mean over actions' elements too."""
        z, place = draw
        t = (place * len(self.chain)).long().clamp_(max=len(self.chain) - 1)
        noisy = self._signal[t] * batch.action + self._noise[t] * z
        guess = self.net(self.online.arrays, noisy, t.to(z.dtype), batch.condition)
        return (guess - z).square().mean((1, 2))

    def sampling_noise(self, rows: int) -> Tensor:
        """Draw (N, R, rows, A), noise for the N steps of the chain."""
        return self.noise(len(self.chain), len(self.sizes.seeds), rows, self.sizes.action)

    def sample(self, views: Views, condition: Tensor, noise: Tensor) -> Tensor:
        """Return (R, B, A) actions in [-1, 1] by the whole chain (Ho et al. 2020, alg. 2).

        Gradients flow through every evaluation to ``views``.
        """

        def predict(x: Tensor, step: int) -> Tensor:
            return self.net(views, x, x.new_full((1, 1, 1), step - 1.0), condition)

        return ancestral(predict, noise.unbind(), self.chain, lambda x: x.clamp(-1.0, 1.0))

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served weights of one run."""
        return self.averages["served"].to_arrays(run)
