"""Twin-delayed critics and a deterministic actor: what TD3+BC and ReBRAC share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from policies.algos.learner import Averages, Batch, Figures, Learner, Optimiser, Variant, fused
from policies.algos.value import Valuation
from policies.learning import OptimiserSettings, Td3Settings
from policies.manifest import Arrays
from policies.model import CriticSettings, DeterministicModel
from policies.nets import Heads, Views


class Delayed(Learner):
    """TD3 (Fujimoto et al. 2018, alg. 1) from data; what is imitated is left to who inherits.

    Args:
        model: widths of the actor.
        values: the critics.
        settings: noise of the target actions, delay of the actor, weights.
        optimiser: of the actor.
    """

    def __init__(
        self,
        model: DeterministicModel,
        values: Valuation,
        settings: Td3Settings,
        optimiser: OptimiserSettings,
    ) -> None:
        sizes = values.sizes
        super().__init__(sizes)
        self._model, self.values = model, values
        self.settings, self.optimiser = settings, optimiser
        self.net = Heads(sizes.condition, sizes.action, model.hidden, "none")
        self.online = sizes.parameters(self.net.shapes, 0)
        self.target = self.online.copy()
        self.averages = Averages(self.online, {"served": optimiser.served}, self.dials)
        critics = {"critic": values.online, "critic_target": values.target}
        actors = {"online": self.online, "target": self.target, **self.averages.kept}
        self.networks = actors | critics
        self.adam = Optimiser(self.online, optimiser.weight_decay, optimiser.grad_clip)
        self.optimisers = {"actor": self.adam, "critic": values.adam}
        self._critic_gradient = fused(self._find_critic_gradient, optimiser.compile)
        self._actor_gradient = fused(self._find_actor_gradient, optimiser.compile)

    @property
    def model(self) -> DeterministicModel:
        """What the policy is made of."""
        return self._model

    @property
    def critic(self) -> CriticSettings:
        """Shape of the critics."""
        return self.values.nets.settings

    def prepare(self, step: int) -> Variant:
        """Set learning rates and shares; say whether the actor moves: every ``delay`` updates."""
        share = self.optimiser.share(step)
        self.adam.set_rate(self.optimiser.learning_rate * share)
        self.values.set_rate(share)
        due = (step + 1) % self.settings.delay == 0
        return (int(due), *self.averages.prepare(step))

    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Take a step with the critics; where due, one with the actor, and move the targets."""
        figures = self._critic_gradient(batch, self.noise(*batch.action.shape))
        self.values.adam.step()
        if variant[0]:
            figures |= self._actor_gradient(batch)
            figures["norm"] = self.adam.step()
            self.target.follow(self.online, self.values.settings.tau)
            self.values.follow()
        self.averages.move(variant[1:])
        return figures

    def act(self, views: Views, condition: Tensor) -> Tensor:
        """Return pi(s) = tanh(mu(s)), (R, B, A)."""
        return self.net(views, condition)[0].tanh()

    def act_ahead(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Return a' = clip(pi_target(s') + clip(sigma n, -c, c), -1, 1).

        Args:
            condition: (R, B, d) successors.
            noise: (R, B, A), n.
        """
        limit = self.settings.noise_clip
        shift = (self.settings.noise * noise).clamp(-limit, limit)
        return (self.act(self.target.fixed, condition) + shift).clamp(-1.0, 1.0)

    def _find_critic_gradient(self, batch: Batch, noise: Tensor) -> Figures:
        with torch.no_grad():
            action = self.act_ahead(batch.next_condition, noise)
            ahead = self.values.ahead(batch.next_condition, action)
            y = self.values.goal(batch, self.corrected(ahead, batch, action))
        return self.values.gradient(batch, y)

    def _find_actor_gradient(self, batch: Batch) -> Figures:
        action = self.act(self.online.arrays, batch.condition)
        imitation, value = self.actor_terms(batch, action)
        self.online.descend((imitation + value).sum())
        return {"imitation": imitation.detach(), "policy_loss": value.detach()}

    def corrected(self, ahead: Tensor, batch: Batch, action: Tensor) -> Tensor:
        """Return V(s') (R, B) from the critics' value ``ahead`` of the action a' (R, B, A)."""
        del batch, action
        return ahead

    @abstractmethod
    def actor_terms(self, batch: Batch, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two terms of the actor's loss, (R,) each: imitation, and value.

        Args:
            batch: what is imitated.
            action: (R, B, A) of the actor, with its gradient.
        """

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served actor of one run."""
        return self.averages["served"].to_arrays(run)

    def critic_arrays(self, run: int) -> Arrays:
        """Return the target critics of one run."""
        return self.values.target.to_arrays(run)
