"""TD3+BC: TD3 with a term that imitates (Fujimoto & Gu 2021)."""

from __future__ import annotations

from torch import Tensor

from policies.algos.delayed import Delayed
from policies.algos.learner import Batch
from policies.algos.value import per_size


class Td3Bc(Delayed):
    """L = E[(pi(s) - a)^2] - alpha E[Q_1(s, pi(s))] / E|Q_1| (eq. 3 and 5).

    The square is the mean over the elements of an action.
    """

    def actor_terms(self, batch: Batch, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms of L, (R,) each."""
        imitation = (action - batch.action).square().mean((1, 2))
        q = self.values.of_policy(batch.condition, action, only=0)[:, 0]
        return imitation, -self.settings.alpha * per_size(q).mean(1)
