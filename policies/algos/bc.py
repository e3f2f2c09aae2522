"""Behaviour cloning with a Gaussian: the first rung of the ladder."""

from __future__ import annotations

from torch import Tensor

from policies.algos.learner import (
    Averages,
    Batch,
    Figures,
    Learner,
    Optimiser,
    Sizes,
    Variant,
    fused,
)
from policies.algos.likelihood import log_tanh_normal
from policies.learning import OptimiserSettings
from policies.manifest import Arrays
from policies.model import GaussianModel
from policies.nets import Heads


class GaussianBC(Learner):
    """L = -E[log pi(a|s)], a = tanh(mu(s) + sigma(s) n): maximum likelihood.

    Args:
        sizes: of the robot.
        model: widths, and limits of log sigma.
        optimiser: of the network.
    """

    def __init__(self, sizes: Sizes, model: GaussianModel, optimiser: OptimiserSettings) -> None:
        super().__init__(sizes)
        self._model, self.settings = model, optimiser
        self.net = Heads(sizes.condition, sizes.action, model.hidden, "state")
        self.online = sizes.parameters(self.net.shapes, 0)
        self.averages = Averages(self.online, {"served": optimiser.served}, self.dials)
        self.networks = {"online": self.online, **self.averages.kept}
        self.adam = Optimiser(self.online, optimiser.weight_decay, optimiser.grad_clip)
        self.optimisers = {"actor": self.adam}
        self._gradient = fused(self._find_gradient, optimiser.compile)

    @property
    def model(self) -> GaussianModel:
        """What the policy is made of."""
        return self._model

    def prepare(self, step: int) -> Variant:
        """Set the learning rate and the share of the average."""
        self.adam.set_rate(self.settings.learning_rate * self.settings.share(step))
        return self.averages.prepare(step)

    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Take one step down the loss."""
        loss = self._gradient(batch)
        norm = self.adam.step()
        self.averages.move(variant)
        return {"loss": loss, "norm": norm}

    def _find_gradient(self, batch: Batch) -> Tensor:
        loss = self.imitation(batch)
        self.online.descend(loss.sum())
        return loss.detach()

    def imitation(self, batch: Batch) -> Tensor:
        """Return L of each run, (R,)."""
        mean, spread = self.net(self.online.arrays, batch.condition)
        assert spread is not None
        log_std = spread.clamp(self._model.log_std_min, self._model.log_std_max)
        return -log_tanh_normal(batch.action, mean, log_std).mean(1)

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served weights of one run."""
        return self.averages["served"].to_arrays(run)
