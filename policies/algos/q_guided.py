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
        imitation: weight of L_imitation; 0 computes none.
    """

    def __init__(
        self,
        actor: ConsistencyBC | DiffusionBC,
        values: Valuation,
        settings: ImproveSettings,
        imitation: float = 1.0,
    ) -> None:
        super().__init__(actor.sizes)
        self.actor, self.values, self.settings = actor, values, settings
        self.weight = imitation
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
        noise, chosen = self.actor.sampling_noise(rows), self.values.choose(self.generator)
        figures = self._critic_gradient(batch, noise, chosen)
        self.values.adam.step()
        self.values.follow()
        return figures

    def _find_critic_gradient(self, batch: Batch, noise: Tensor, chosen: Tensor | None) -> Figures:
        with torch.no_grad():
            condition, times = batch.next_condition, self.values.settings.max_q
            if times > 1:
                condition = condition.repeat_interleave(times, 1)
            ahead = self.actor.sample(self.actor.averages["slow"].fixed, condition, noise)
            y = self.values.goal(batch, self.values.ahead(batch.next_condition, ahead, chosen))
        return self.values.gradient(batch, y)

    def update_actor(self, batch: Batch | None, condition: Tensor, variant: Variant) -> Figures:
        """Take a step down L_imitation + eta L_q; move the actor's averages.

        Args:
            batch: what is imitated; None for nothing in this update.
            condition: (R, B, d) observations where the critics judge the actor.
            variant: from :meth:`prepare`.
        """
        anchors = batch if self.weight else None
        if anchors is None and not self.settings.eta:
            return {}
        noise = self.actor.sampling_noise(condition.shape[1])
        draw = () if anchors is None else self.actor.draw(anchors)
        figures = self._actor_gradient(anchors, draw, condition, noise, variant[-1])
        figures["norm"] = self.actor.adam.step()
        self.actor.averages.move(variant[:-1])
        return figures

    def _find_actor_gradient(
        self, anchors: Batch | None, draw: Draw, condition: Tensor, noise: Tensor, coin: int
    ) -> Figures:
        terms, figures = [], {}
        if anchors is not None:
            imitation = self.actor.imitation(anchors, draw)
            figures["loss"] = imitation.detach()
            terms.append(imitation if self.weight == 1.0 else self.weight * imitation)
        if self.settings.eta:
            online = self.actor.online
            action = self.actor.sample(online.arrays, condition, noise)
            value = q_loss(self.values, condition, action, self.settings.q_loss, coin)
            figures["policy_loss"] = value.detach()
            terms.append(self.settings.eta * value)
        self.actor.online.descend(sum(terms[1:], terms[0]).sum())
        return figures

    def load_policy(self, weights: Arrays) -> None:
        """Put the arrays of a policy into the actor and every average of it, of the only run."""
        for network in (self.actor.online, *self.actor.averages.kept.values()):
            network.load_arrays(weights)

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
