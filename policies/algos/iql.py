"""Implicit Q-learning: values of the data's own actions only (Kostrikov et al. 2022)."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from torch import Tensor

from policies.algos.learner import Averages, Batch, Figures, Learner, Optimiser, Variant, fused
from policies.algos.likelihood import log_normal
from policies.algos.value import Valuation
from policies.learning import IqlSettings, OptimiserSettings
from policies.manifest import Arrays
from policies.model import CriticSettings, GaussianModel
from policies.nets import Critics, Heads, Views


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Return |tau - 1(u < 0)| u^2 of each difference u (sec. 4.1)."""
    return (expectile - (difference < 0.0).to(difference.dtype)).abs() * difference.square()


class Iql(Learner):
    """Implicit Q-learning, with advantage-weighted regression for the policy.

    L_V = E[L_2^tau(min_i Q'_i(s, a) - V(s))] (eq. 5), L_Q = E[(r + gamma V(s') - Q_i(s, a))^2]
    (eq. 6), L_pi = -E[exp(beta (min_i Q'_i(s, a) - V(s))) log pi(a|s)] (eq. 7), the weight cut
    at ``weight_max``. pi is N(tanh mu(s), sigma^2), sigma the same for all observations.

    Args:
        model: of the policy.
        values: the critics; V has their shape.
        settings: tau, beta, the cut.
        optimiser: of the policy.
    """

    def __init__(
        self,
        model: GaussianModel,
        values: Valuation,
        settings: IqlSettings,
        optimiser: OptimiserSettings,
    ) -> None:
        sizes = values.sizes
        super().__init__(sizes)
        self._model, self.values = model, values
        self.settings, self.optimiser = settings, optimiser
        self.net = Heads(sizes.condition, sizes.action, model.hidden, "free")
        self.online = sizes.parameters(self.net.shapes, 0)
        self.averages = Averages(self.online, {"served": optimiser.served}, self.dials)
        self._v_net = Critics(0, sizes.condition, msgspec.structs.replace(self.critic, count=1))
        self.v = sizes.parameters(self._v_net.shapes, 2)
        critics = {"critic": values.online, "critic_target": values.target, "v": self.v}
        self.networks = {"online": self.online, **self.averages.kept} | critics
        self.adam = Optimiser(self.online, optimiser.weight_decay, optimiser.grad_clip)
        self.v_adam = Optimiser(self.v, 0.0, optimiser.grad_clip)
        self.optimisers = {"actor": self.adam, "critic": values.adam, "v": self.v_adam}
        self._value_gradient = fused(self._find_value_gradient, optimiser.compile)
        self._other_gradients = fused(self._find_other_gradients, optimiser.compile)

    @property
    def model(self) -> GaussianModel:
        """What the policy is made of."""
        return self._model

    @property
    def critic(self) -> CriticSettings:
        """Shape of the critics."""
        return self.values.nets.settings

    def prepare(self, step: int) -> Variant:
        """Set learning rates and the share of the average."""
        share = self.optimiser.share(step)
        self.adam.set_rate(self.optimiser.learning_rate * share)
        self.values.set_rate(share)
        self.v_adam.set_rate(self.values.rate(share))
        return self.averages.prepare(step)

    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Take a step with V; then, judged by the new V, with the policy and the critics."""
        q, figures = self._value_gradient(batch)
        self.v_adam.step()
        figures |= self._other_gradients(batch, q)
        figures["norm"] = self.adam.step()
        self.values.adam.step()
        self.values.follow()
        self.averages.move(variant)
        return figures

    def value(self, views: Views, condition: Tensor) -> Tensor:
        """Return V(s), (R, B)."""
        return self._v_net(views, condition, condition[..., :0])[:, 0]

    def _find_value_gradient(self, batch: Batch) -> tuple[Tensor, Figures]:
        """Find the gradient of L_V; return min_i Q'_i(s, a) too, (R, B)."""
        with torch.no_grad():
            q = self.values.ahead(batch.condition, batch.action)
        v = self.value(self.v.arrays, batch.condition)
        loss = expectile_loss(q - v, self.settings.expectile).mean(1)
        self.v.descend(loss.sum())
        return q, {"v_loss": loss.detach(), "v": v.detach().mean(1)}

    def _find_other_gradients(self, batch: Batch, q: Tensor) -> Figures:
        """Find the gradients of L_pi and L_Q."""
        with torch.no_grad():
            both = torch.cat([batch.condition, batch.next_condition], 1)
            v, following = self.value(self.v.fixed, both).chunk(2, 1)
            weight = (self.settings.beta * (q - v)).exp().clamp(max=self.settings.weight_max)
            y = self.values.goal(batch, following)
        loss = -(weight * self.log_likelihood(batch)).mean(1)
        self.online.descend(loss.sum())
        figures = {"policy_loss": loss.detach(), "weight": weight.mean(1)}
        return figures | self.values.gradient(batch, y)

    def log_likelihood(self, batch: Batch) -> Tensor:
        """Return log pi(a|s), (R, B)."""
        mean, spread = self.net(self.online.arrays, batch.condition)
        assert spread is not None
        log_std = spread.clamp(self._model.log_std_min, self._model.log_std_max)
        return log_normal(batch.action, mean.tanh(), log_std)

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served policy of one run; its spread as a layer that sees nothing."""
        arrays = self.averages["served"].to_arrays(run)
        arrays["last_fc_log_std.weight"] = np.zeros_like(arrays["last_fc.weight"])
        return arrays

    def critic_arrays(self, run: int) -> Arrays:
        """Return the target critics of one run."""
        return self.values.target.to_arrays(run)
