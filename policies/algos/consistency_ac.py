"""Consistency-AC: a consistency policy with twin critics (Ding & Jin 2024, alg. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.diffusion.precond import Network, Precondition
from policies.diffusion.sampler import one_step
from policies.nets import TwinCritic

Info = dict[str, float]


@dataclass(frozen=True)
class Batch:
    """B transitions in network units.

    Attributes:
        condition: (B, d) encoded observations.
        action: (B, A) encoded actions.
        reward: (B,).
        next_condition: (B, d).
        alive: (B,), 0 where the successor is terminal, else 1.
    """

    condition: Tensor
    action: Tensor
    reward: Tensor
    next_condition: Tensor
    alive: Tensor


@dataclass(frozen=True)
class OneStepActor:
    """pi(s) = clip(f(T z, T | s)), z ~ N(0, I).

    Attributes:
        network: F.
        precondition: the wrapping of F.
        sigma: T, where sampling starts.
        action_size: A.
    """

    network: Network
    precondition: Precondition
    sigma: float
    action_size: int

    def __call__(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Return one (B, A) sample in [-1, 1] per row; gradients flow to the network."""
        noise = torch.randn((len(condition), self.action_size), generator=generator)
        return one_step(lambda x, tau: self._denoise(x, tau, condition), noise, self.sigma).clamp(
            -1.0, 1.0
        )

    def _denoise(self, x: Tensor, sigma: float, condition: Tensor) -> Tensor:
        return self.precondition.denoise(self.network, x, x.new_full((len(x), 1), sigma), condition)


def critic_loss(
    critic: TwinCritic,
    target: TwinCritic,
    actor: OneStepActor,
    batch: Batch,
    discount: float,
    generator: torch.Generator,
) -> tuple[Tensor, Info]:
    """Return MSE(Q_1, y) + MSE(Q_2, y) with y = r + gamma alive min_i Q'_i(s', a'), a' ~ pi'(s').

    Clipped double Q (Fujimoto et al. 2018; Ding & Jin 2024, eq. 8).

    Args:
        critic: Q, learning.
        target: Q', a slow average of it.
        actor: pi', the average of the policy.
        batch: transitions.
        discount: gamma.
        generator: source of the policy's noise.
    """
    with torch.no_grad():
        next_action = actor(batch.next_condition, generator)
        worst = target(batch.next_condition, next_action).amin(0)
        y = batch.reward + discount * batch.alive * worst
    q = critic(batch.condition, batch.action)
    loss = (q - y).square().mean(1).sum()
    return loss, {"q_loss": float(loss.detach()), "q": float(y.mean())}


def value_loss(
    critic: TwinCritic, actor: OneStepActor, condition: Tensor, generator: torch.Generator
) -> tuple[Tensor, Info]:
    """Return L_q = -E[Q(s, pi(s))] / E|Q(s, pi(s))|, Q the mean of both critics.

    The divisor carries no gradient: it makes eta independent of the scale of the reward, as
    in TD3+BC (Fujimoto & Gu 2021, eq. 5).
    """
    q = critic(condition, actor(condition, generator)).mean(0)
    loss = -q.mean() / q.detach().abs().mean().clamp(min=1e-6)
    return loss, {"q_policy": float(q.detach().mean())}
