"""ReBRAC: actor and critics are held to the data apart (Tarasov et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from policies.algos.delayed import Delayed
from policies.algos.learner import Batch
from policies.algos.value import per_size


class Rebrac(Delayed):
    """Actor: L = beta_1 E|pi(s) - a|^2 - E[min_i Q_i(s, pi(s))] / E|min_i Q_i|.

    Critics: V(s') = min_i Q_i(s', a') - beta_2 |a' - a'_data|^2. Squares are sums over
    the elements of an action.
    """

    def corrected(self, ahead: Tensor, batch: Batch, action: Tensor) -> Tensor:
        """Return V(s'), (R, B), with no penalty where the data has no next action."""
        known = (batch.next_action != 0.0).any(-1)
        far = (action - batch.next_action).square().sum(-1)
        return ahead - self.settings.critic_bc * known * far

    def actor_terms(self, batch: Batch, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms of L, (R,) each."""
        imitation = (action - batch.action).square().sum(-1).mean(1)
        q = self.values.of_policy(batch.condition, action).amin(1)
        return self.settings.actor_bc * imitation, -per_size(q).mean(1)
