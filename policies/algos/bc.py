"""Behaviour cloning with a Gaussian: the first rung of the ladder."""

from __future__ import annotations

from torch import Tensor

from policies.algos.imitator import Imitator
from policies.algos.learner import Batch, Draw, Sizes
from policies.algos.likelihood import log_tanh_normal
from policies.learning import OptimiserSettings
from policies.model import GaussianModel
from policies.nets import Heads


class GaussianBC(Imitator):
    """L = -E[log pi(a|s)], a = tanh(mu(s) + sigma(s) n): maximum likelihood.

    Args:
        sizes: of the robot.
        model: widths, and limits of log sigma.
        optimiser: of the network.
    """

    def __init__(self, sizes: Sizes, model: GaussianModel, optimiser: OptimiserSettings) -> None:
        self.net = Heads(sizes.condition, sizes.action, model.hidden, "state")
        super().__init__(sizes, self.net.shapes, optimiser, {})
        self._model = model

    @property
    def model(self) -> GaussianModel:
        """What the policy is made of."""
        return self._model

    def draw(self, batch: Batch) -> Draw:
        """Draw nothing: a likelihood needs no random numbers."""
        return ()

    def imitation(self, batch: Batch, draw: Draw) -> Tensor:
        """Return L of each run, (R,)."""
        mean, spread = self.net(self.online.arrays, batch.condition)
        assert spread is not None
        log_std = spread.clamp(self._model.log_std_min, self._model.log_std_max)
        return -log_tanh_normal(batch.action, mean, log_std).mean(1)
