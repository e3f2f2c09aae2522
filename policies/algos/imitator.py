"""What every algorithm that imitates has: one network, its averages, one loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

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
from policies.learning import Averaging, OptimiserSettings
from policies.manifest import Arrays
from policies.parameters import Shape


class Imitator(Learner):
    """Descends one loss with one network, and serves an average of it.

    Args:
        sizes: of the robot.
        shapes: of the network's arrays.
        optimiser: of the network.
        averages: of its weights, by name, beside the served one.
    """

    def __init__(
        self,
        sizes: Sizes,
        shapes: Mapping[str, Shape],
        optimiser: OptimiserSettings,
        averages: Mapping[str, Averaging],
    ) -> None:
        super().__init__(sizes)
        self.settings = optimiser
        self.online = sizes.parameters(shapes, 0)
        kept = {**averages, "served": optimiser.served}
        self.averages = Averages(self.online, kept, self.dials)
        self.networks = {"online": self.online, **self.averages.kept}
        self.adam = Optimiser(self.online, optimiser.weight_decay, optimiser.grad_clip)
        self.optimisers = {"actor": self.adam}
        self._gradient = fused(self._find_gradient, optimiser.compile)

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
        """Draw what the loss of a batch needs: noise, and which level or step."""
        shape = batch.action.shape
        return self.noise(*shape), self.uniform(*shape[:2], 1)

    @abstractmethod
    def imitation(self, batch: Batch, draw: Draw) -> Tensor:
        """Return the loss of each run, (R,)."""

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served weights of one run."""
        return self.averages["served"].to_arrays(run)
