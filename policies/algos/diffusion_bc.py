"""Diffusion-BC: behaviour cloning with a diffusion model (Wang et al. 2023, sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.algos.imitator import Imitator
from policies.algos.learner import Batch, Draw, Sizes
from policies.diffusion.sampler import ancestral
from policies.diffusion.schedule import variance_preserving
from policies.learning import NEWEST, Averaging, OptimiserSettings
from policies.model import DiffusionModel
from policies.nets import Denoiser, Views


class DiffusionBC(Imitator):
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
        self.net = Denoiser(sizes.action, sizes.condition, model.network, sizes.device)
        self.net.training = True
        super().__init__(sizes, self.net.shapes, optimiser, {"slow": average})
        self._model, chain = model, model.chain
        self.chain = variance_preserving(chain.steps, chain.b_min, chain.b_max)
        bars = torch.tensor(self.chain.alpha_bars, device=sizes.device)
        self._signal, self._noise = bars.sqrt(), (1.0 - bars).sqrt()

    @property
    def model(self) -> DiffusionModel:
        """What the policy is made of."""
        return self._model

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
