"""Soft actor-critic on an ensemble of critics: SAC, and RLPD by its settings.

Two critics, all of them asked, are SAC (Haarnoja et al. 2018). Ten critics with layer norm, of
which a subset makes each target (Chen et al. 2021), learning from offline and online rows by
halves, are RLPD (Ball et al. 2023, arXiv:2302.02948).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.algos.learner import (
    Averages,
    Batch,
    Figures,
    Learner,
    Optimiser,
    Variant,
    fused,
)
from policies.algos.sac import squash
from policies.algos.value import Valuation
from policies.learning import OptimiserSettings
from policies.manifest import Arrays
from policies.model import CriticSettings, GaussianModel
from policies.nets import Heads, Views
from policies.parameters import Parameters

LOG_ALPHA = "log_alpha"


@dataclass(frozen=True)
class SoftSettings:
    """The temperature.

    Attributes:
        temperature: alpha, kept; None learns it, from 1.
        rate: its learning rate.
    """

    temperature: float | None = None
    rate: float = 3e-4


class Soft(Learner):
    """A squashed Gaussian with an ensemble of critics and a temperature.

    y = r + gamma alive (V(s') - alpha log pi(a'|s')), a' ~ pi, V of the critics that are asked;
    L_pi = E[alpha log pi(a|s) - Q(s, a)], Q the same aggregate, or the mean of all where targets
    are of a subset; L_alpha = -alpha E[log pi(a|s) - A], whose target entropy is -A.

    Args:
        model: widths, and limits of log sigma.
        values: the critics.
        settings: the temperature.
        optimiser: of the policy.
    """

    def __init__(
        self,
        model: GaussianModel,
        values: Valuation,
        settings: SoftSettings,
        optimiser: OptimiserSettings,
    ) -> None:
        super().__init__(values.sizes)
        sizes = values.sizes
        self.values, self.settings, self.optimiser = values, settings, optimiser
        self._model = model
        self.net = Heads(sizes.condition, sizes.action, model.hidden, "state")
        self.online = sizes.parameters(self.net.shapes, 0)
        self.averages = Averages(self.online, {"served": optimiser.served}, self.dials)
        self.adam = Optimiser(self.online, optimiser.weight_decay, optimiser.grad_clip)
        self.alpha = Parameters({LOG_ALPHA: ()}, len(sizes.seeds), sizes.device)
        self.alpha.flat.fill_(math.log(settings.temperature or 1.0))
        self.networks = {
            "online": self.online,
            **self.averages.kept,
            "critic": values.online,
            "critic_target": values.target,
            "temperature": self.alpha,
        }
        self.optimisers = {"actor": self.adam, "critic": values.adam}
        if settings.temperature is None:
            self.optimisers["temperature"] = Optimiser(self.alpha)
        self._critic_gradient = fused(self._find_critic_gradient, optimiser.compile)
        self._actor_gradient = fused(self._find_actor_gradient, optimiser.compile)

    @property
    def model(self) -> GaussianModel:
        """What the policy is made of."""
        return self._model

    @property
    def critic(self) -> CriticSettings:
        """Shape of the critics."""
        return self.values.nets.settings

    @property
    def target_entropy(self) -> float:
        """H, -A."""
        return -float(self.sizes.action)

    def prepare(self, step: int) -> Variant:
        """Set learning rates and the share of the average."""
        share = self.optimiser.share(step)
        self.adam.set_rate(self.optimiser.learning_rate * share)
        self.values.set_rate(share)
        if "temperature" in self.optimisers:
            self.optimisers["temperature"].set_rate(self.settings.rate)
        return self.averages.prepare(step)

    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Take one step with the critics, then one with policy and temperature."""
        return self.update_critics(batch) | self.update_actor(None, batch.condition, variant)

    def draw(self, views: Views, condition: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (R, B, A) in [-1, 1] and log pi (R, B) of them."""
        mean, spread = self.net(views, condition)
        assert spread is not None
        limits = self._model.log_std_min, self._model.log_std_max
        drawn = squash(torch.cat([mean, spread], -1), noise, *limits)
        return drawn.action, drawn.log_prob

    def update_critics(self, batch: Batch) -> Figures:
        """Take a step down E[(y - Q_i(s, a))^2]; the targets follow."""
        noise, chosen = self.noise(*batch.action.shape), self.values.choose(self.generator)
        figures = self._critic_gradient(batch, noise, chosen)
        self.values.adam.step()
        self.values.follow()
        return figures

    def _find_critic_gradient(self, batch: Batch, noise: Tensor, chosen: Tensor | None) -> Figures:
        with torch.no_grad():
            ahead, log_prob = self.draw(self.online.fixed, batch.next_condition, noise)
            value = self.values.ahead(batch.next_condition, ahead, chosen)
            alpha = self.alpha.fixed[LOG_ALPHA].exp().unsqueeze(1)
            y = self.values.goal(batch, value - alpha * log_prob)
        return self.values.gradient(batch, y)

    def update_actor(self, batch: Batch | None, condition: Tensor, variant: Variant) -> Figures:
        """Take a step down L_pi and one down L_alpha; move the average.

        Args:
            batch: not used: nothing is imitated.
            condition: (R, B, d) observations.
            variant: from :meth:`prepare`.
        """
        del batch
        noise = self.noise(*condition.shape[:2], self.sizes.action)
        figures = self._actor_gradient(condition, noise)
        figures["norm"] = self.adam.step()
        if "temperature" in self.optimisers:
            self.optimisers["temperature"].step()
        self.averages.move(variant)
        return figures

    def _find_actor_gradient(self, condition: Tensor, noise: Tensor) -> Figures:
        alpha = self.alpha.fixed[LOG_ALPHA].exp()
        action, log_prob = self.draw(self.online.arrays, condition, noise)
        q = self.values.of_policy(condition, action)
        value = q.mean(1) if self.values.subset else self.values.aggregate(q)
        loss = (alpha.unsqueeze(1) * log_prob - value).mean(1)
        self.online.descend(loss.sum())
        entropy = -log_prob.detach().mean(1)
        # d/dlog alpha of -alpha (E log pi + H).
        self.alpha.grads[LOG_ALPHA].copy_(alpha * (entropy - self.target_entropy))
        return {"policy_loss": loss.detach(), "entropy": entropy, "alpha": alpha.clone()}

    def load_policy(self, weights: Arrays) -> None:
        """Put the arrays of a policy into it and its average, of the only run."""
        for network in (self.online, *self.averages.kept.values()):
            network.load_arrays(weights)

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served policy of one run."""
        return self.averages["served"].to_arrays(run)

    def critic_arrays(self, run: int) -> Arrays:
        """Return the target critics of one run."""
        return self.values.target.to_arrays(run)
