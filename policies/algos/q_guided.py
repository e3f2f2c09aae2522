"""A generative policy guided by critics: L = L_imitation + eta L_q (Ding & Jin 2024, alg. 2)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from policies.algos.consistency_bc import ConsistencyBC
from policies.algos.diffusion_bc import DiffusionBC
from policies.algos.learner import Batch, Draw, Figures, Learner, Variant, fused
from policies.algos.value import Valuation, q_loss
from policies.learning import ImproveSettings
from policies.manifest import Arrays
from policies.model import CriticSettings, Model


class QGuided(Learner):
    """An actor of :mod:`policies.algos` that imitates and samples, with critics.

    Args:
        actor: imitates and samples.
        values: the critics.
        settings: how the critics guide the actor.
    """

    def __init__(
        self,
        actor: ConsistencyBC | DiffusionBC,
        values: Valuation,
        settings: ImproveSettings,
    ) -> None:
        super().__init__(actor.sizes)
        self.actor, self.values, self.settings = actor, values, settings
        self.generator, self.dials = actor.generator, actor.dials
        critics = {"critic": values.online, "critic_target": values.target}
        self.networks = actor.networks | critics
        self.optimisers = actor.optimisers | {"critic": values.adam}
        compiled = actor.settings.compile
        self._critic_gradient = fused(self._find_critic_gradient, compiled)
        self._actor_gradient = fused(self._find_actor_gradient, compiled)

    @property
    def model(self) -> Model:
        """What the policy is made of."""
        return self.actor.model

    @property
    def critic(self) -> CriticSettings:
        """Shape of the critics."""
        return self.values.nets.settings

    def prepare(self, step: int) -> Variant:
        """Set the dials of actor and critics; throw the coin of L_q."""
        self.values.set_rate(self.actor.settings.share(step))
        coin = _throw(self.sizes.seeds, step) if self.settings.q_loss == "coin" else 0
        return (*self.actor.prepare(step), coin)

    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Take one step with the critics, then one with the actor; move the averages."""
        figures = self.update_critics(batch)
        figures |= self.update_actor(batch, batch.condition, variant)
        return figures

    def update_critics(self, batch: Batch) -> Figures:
        """Take a step down E[(y - Q_i(s, a))^2], y from a' ~ the slow actor (eq. 8).

        The target critics move after it.
        """
        rows = batch.reward.shape[1] * self.values.settings.max_q
        figures = self._critic_gradient(batch, self.actor.sampling_noise(rows))
        self.values.adam.step()
        self.values.follow()
        return figures

    def _find_critic_gradient(self, batch: Batch, noise: Tensor) -> Figures:
        with torch.no_grad():
            condition, times = batch.next_condition, self.values.settings.max_q
            if times > 1:
                condition = condition.repeat_interleave(times, 1)
            ahead = self.actor.sample(self.actor.averages["slow"].fixed, condition, noise)
            y = self.values.goal(batch, self.values.ahead(batch.next_condition, ahead))
        return self.values.gradient(batch, y)

    def update_actor(self, batch: Batch, condition: Tensor, variant: Variant) -> Figures:
        """Take a step down L_imitation + eta L_q; move the actor's averages.

        Args:
            batch: what is imitated.
            condition: (R, B, d) observations where the critics judge the actor.
            variant: from :meth:`prepare`.
        """
        noise = self.actor.sampling_noise(condition.shape[1])
        draw, coin = self.actor.draw(batch), variant[-1]
        figures = self._actor_gradient(batch, draw, condition, noise, coin)
        figures["norm"] = self.actor.adam.step()
        self.actor.averages.move(variant[:-1])
        return figures

    def _find_actor_gradient(
        self, batch: Batch, draw: Draw, condition: Tensor, noise: Tensor, coin: int
    ) -> Figures:
        imitation = self.actor.imitation(batch, draw)
        loss, figures = imitation, {"loss": imitation.detach()}
        if self.settings.eta:
            online = self.actor.online
            action = self.actor.sample(online.arrays, condition, noise)
            value = q_loss(self.values, condition, action, self.settings.q_loss, coin)
            loss = imitation + self.settings.eta * value
            figures["policy_loss"] = value.detach()
        self.actor.online.descend(loss.sum())
        return figures

    def policy_arrays(self, run: int) -> Arrays:
        """Return the served policy of one run."""
        return self.actor.policy_arrays(run)

    def critic_arrays(self, run: int) -> Arrays:
        """Return the target critics of one run."""
        return self.values.target.to_arrays(run)


def _throw(seeds: tuple[int, ...], step: int) -> int:
    """Return 0 or 1, for these runs together."""
    key = f"{','.join(map(str, seeds))}:{step}"
    return hashlib.blake2s(key.encode(), digest_size=1).digest()[0] & 1
