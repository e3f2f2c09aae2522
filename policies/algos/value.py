"""Critics and the values they learn, for every algorithm that has them."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.algos.learner import Batch, Figures, Optimiser, Sizes
from policies.learning import ValueSettings
from policies.model import CriticSettings
from policies.nets import Critics


class Valuation:
    """An ensemble of critics with its targets.

    Args:
        sizes: of the robot.
        shape: of the critics.
        settings: how they learn.
        grad_clip: largest norm of their gradient; None for no limit.
        subset: M, critics that make a target, drawn anew for each update (Chen et al. 2021,
            alg. 1); 0 for all.
    """

    def __init__(
        self,
        sizes: Sizes,
        shape: CriticSettings,
        settings: ValueSettings,
        grad_clip: float | None,
        subset: int = 0,
    ) -> None:
        self.sizes, self.settings = sizes, settings
        self.subset = subset if subset < shape.count else 0
        self.nets = Critics(sizes.action, sizes.condition, shape)
        self.online = sizes.parameters(self.nets.shapes, 1)
        self.target = self.online.copy()
        self.adam = Optimiser(self.online, 0.0, grad_clip)

    def set_rate(self, share: float) -> None:
        """Set the learning rate; ``share`` is that of the policy's schedule."""
        self.adam.set_rate(self.rate(share))

    def rate(self, share: float) -> float:
        """Return the learning rate; ``share`` is that of the policy's schedule."""
        return self.settings.learning_rate * (share if self.settings.decay else 1.0)

    def aggregate(self, q: Tensor) -> Tensor:
        """Return one value (R, B) from the ensemble's (R, K, B)."""
        if self.settings.aggregate == "min":
            return q.amin(1)
        if self.settings.aggregate == "mean":
            return q.mean(1)
        return q.mean(1) - self.settings.lcb * q.std(1, correction=0)

    def choose(self, generator: torch.Generator) -> Tensor | None:
        """Draw the critics of the next targets, (M,) numbers; None where all of them make them."""
        if not self.subset:
            return None
        count = self.nets.settings.count
        drawn = torch.randperm(count, generator=generator, device=self.sizes.device)
        return drawn[: self.subset]

    def ahead(
        self, next_condition: Tensor, next_action: Tensor, chosen: Tensor | None = None
    ) -> Tensor:
        """Return the target critics' value (R, B) of the successors.

        Args:
            next_condition: (R, B, d).
            next_action: (R, M B, A), M actions of each successor, one after the other. With
                M > 1 each critic takes its largest value over them (max-Q backup; Kumar et
                al. 2019, app. C).
            chosen: numbers of the critics to ask; None for all. The others are not computed.
        """
        rows = next_condition.shape[1]
        times = next_action.shape[1] // rows
        if times > 1:
            next_condition = next_condition.repeat_interleave(times, 1)
        views = self.target.fixed
        if chosen is not None:
            views = {name: view.index_select(1, chosen) for name, view in views.items()}
        q = self.nets(views, next_condition, next_action)
        if times > 1:
            q = q.view(*q.shape[:2], rows, times).amax(-1)
        return self.aggregate(q)

    def goal(self, batch: Batch, value: Tensor) -> Tensor:
        """Return y = r + gamma alive V(s'), (R, B), divided by its spread with ``q_norm``."""
        y = batch.reward + self.settings.discount * batch.alive * value
        if self.settings.q_norm:
            y = y / (y.std(1, keepdim=True) + 1e-6)
        return y

    def learn(self, batch: Batch, y: Tensor) -> Figures:
        """Take a step towards the values y (R, B) of (s, a), whatever they are; targets too."""
        figures = self.gradient(batch, y)
        self.adam.step()
        self.target.flat.copy_(self.online.flat)
        return figures

    def gradient(self, batch: Batch, y: Tensor) -> Figures:
        """Find the gradient of sum_i MSE(Q_i(s, a), y)."""
        q = self.nets(self.online.arrays, batch.condition, batch.action)
        loss = (q - y.unsqueeze(1)).square().mean(2).sum(1)
        self.online.descend(loss.sum())
        return {"q_loss": loss.detach(), "q": y.mean(1)}

    def follow(self) -> None:
        """Move the target critics."""
        self.target.follow(self.online, self.settings.tau)

    def of_policy(self, condition: Tensor, action: Tensor, only: int | None = None) -> Tensor:
        """Return (R, K, B) values whose gradient flows to the action alone."""
        return self.nets(self.online.fixed, condition, action, only)


def q_loss(values: Valuation, condition: Tensor, action: Tensor, kind: str, coin: int) -> Tensor:
    """Return L_q of each run, (R,): how bad the actions of the policy are.

    ``raw``: -E[Q], Q the mean of the critics (Ding & Jin 2024, eq. 9). ``mean``: that over its own
    mean size, so that eta does not depend on the scale of the reward (Fujimoto & Gu 2021, eq.
    5). ``coin``: one critic's mean over the other's mean size (Wang et al. 2023, the code).

    Args:
        values: the critics.
        condition: (R, B, d).
        action: (R, B, A) of the policy.
        kind: see above.
        coin: which critic ``coin`` asks.
    """
    if kind == "coin":
        q = values.of_policy(condition, action, coin).mean((1, 2))
        with torch.no_grad():
            size = values.of_policy(condition, action, 1 - coin).abs().mean((1, 2))
        return -q / size.clamp(min=1e-6)
    q = values.of_policy(condition, action).mean(1)
    if kind == "raw":
        return -q.mean(1)
    return -per_size(q).mean(1)


def per_size(q: Tensor) -> Tensor:
    """Return q (R, B) over its mean size in the batch, which has no gradient."""
    return q / q.detach().abs().mean(1, keepdim=True).clamp(min=1e-6)
