"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv:1812.05905).

Actions are in network units, [-1, 1]: u = μ(s) + σ(s) n with n ~ N(0, I), a = tanh u, and by
change of variables log π(a|s) = Σ log N(u; μ, σ) - Σ log(1 - tanh² u) (appendix C). With
log(1 - tanh² u) = 2 (log 2 - u - softplus(-2u)), which cannot overflow,
∂ log π/∂u at fixed n is 2 tanh u, and ∂ log π/∂ log σ at fixed u and n is -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from controller.types import Array
from policies.stack import Stack

Info = dict[str, float]

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
LOG_TWO = math.log(2.0)
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Batch:
    """B transitions.

    Attributes:
        observation: (B, D).
        action: (B, A) in [-1, 1].
        reward: (B,).
        alive: (B,), 0 where the successor is terminal, else 1.
        next_observation: (B, D).
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    alive: Tensor
    next_observation: Tensor


@dataclass(frozen=True)
class Draw:
    """Actions drawn from the policy, and what their gradients need.

    Attributes:
        action: (B, A) in [-1, 1].
        log_prob: (B,).
        step: (B, A), σ n, the derivative of u by log σ.
        free: (B, A), 1 where log σ is within its limits, else 0.
    """

    action: Tensor
    log_prob: Tensor
    step: Tensor
    free: Tensor


def squash(
    heads: Tensor, noise: Tensor, low: float = LOG_STD_MIN, high: float = LOG_STD_MAX
) -> Draw:
    """Draw a = tanh(μ + σ n).

    Args:
        heads: (..., 2A), μ and then log σ, which is clipped.
        noise: (..., A), n.
        low: lower limit of log σ.
        high: upper limit.
    """
    mean, raw = heads.chunk(2, -1)
    log_std = raw.clamp(low, high)
    step = log_std.exp() * noise
    u = mean + step
    log_prob = 2.0 * (u + functional.softplus(-2.0 * u)) - 0.5 * noise.square() - log_std
    constant = noise.shape[-1] * (HALF_LOG_TWO_PI + 2.0 * LOG_TWO)
    return Draw(u.tanh(), log_prob.sum(-1) - constant, step, (log_std == raw).to(step.dtype))


def soft_target(
    batch: Batch, q_next: Tensor, log_prob: Tensor, alpha: Tensor, discount: float
) -> Tensor:
    """Return y = r + γ alive (min_i Q'_i(s', a') - α log π(a'|s')), (B,) (eq. 3 and 5).

    Args:
        batch: transitions.
        q_next: (2, B), Q' at the successor and an action a' drawn there.
        log_prob: (B,) of a'.
        alpha: temperature.
        discount: γ.
    """
    value = q_next.amin(0) - alpha * log_prob
    return torch.addcmul(batch.reward, batch.alive, value, value=discount)


def actor_gradient(draw: Draw, q_gradient: Tensor, alpha: Tensor) -> Tensor:
    """Return (B, 2A), the gradient of mean(α log π(a|s) - min_i Q_i(s, a)) by the heads (eq. 7).

    ∂/∂u = 2α a/B + (1 - a²) ∂/∂a; by μ it is that, by log σ that times σ n, less α/B.

    Args:
        draw: actions drawn from the policy.
        q_gradient: (B, A), the gradient of mean(-min_i Q_i(s, a)) by a.
        alpha: temperature.
    """
    rows = len(q_gradient)
    by_mean = torch.addcmul(q_gradient, q_gradient, draw.action.square(), value=-1.0)
    by_mean += (2.0 / rows) * alpha * draw.action
    by_log_std = (by_mean * draw.step - alpha / rows) * draw.free
    return torch.cat([by_mean, by_log_std], -1)


def temperature_gradient(alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Return the gradient of J(α) = mean(-α (log π(a|s) + H)) by log α (eq. 18)."""
    return -alpha * (log_prob.mean() + target_entropy)


class SoftActorCritic:
    """The networks and their optimisers.

    Args:
        observation_size: D.
        action_size: A.
        hidden: width of each hidden layer of policy and critics.
        learning_rate: of everything.
        discount: γ.
        tau: share of the critics that enters their targets in each update.
        temperature: α, kept; None learns it.
        target_entropy: H; None for -A.
        generator: source of initial weights and of the policy's noise; its device is where
            everything lives.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        learning_rate: float,
        discount: float,
        tau: float,
        temperature: float | None,
        target_entropy: float | None,
        generator: torch.Generator,
    ) -> None:
        self.discount, self.tau, self.generator = discount, tau, generator
        self.target_entropy = -float(action_size) if target_entropy is None else target_entropy
        self.device = generator.device
        both = observation_size + action_size
        self.actor = Stack([observation_size, *hidden, 2 * action_size], 1, self.device)
        self.critic = Stack([both, *hidden, 1], 2, self.device)
        self.target = Stack([both, *hidden, 1], 2, self.device)
        self.actor.initialise(generator)
        self.critic.initialise(generator)
        self.target.flat.copy_(self.critic.flat)
        self.log_alpha = torch.tensor(math.log(temperature or 1.0), device=self.device)
        self.log_alpha.grad = torch.zeros((), device=self.device)
        learned = [self.actor.flat, *([] if temperature else [self.log_alpha])]
        self.actor_adam = torch.optim.Adam(learned, learning_rate, fused=True)
        self.critic_adam = torch.optim.Adam([self.critic.flat], learning_rate, fused=True)
        self.figures: dict[str, Tensor] = {}

    def noise(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    @torch.no_grad()
    def act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return (B, A) actions for (B, D) observations: drawn with ``noise``, else tanh μ."""
        heads = self.actor.forward(observation)[-1][0]
        return heads.chunk(2, -1)[0].tanh() if noise is None else squash(heads, noise).action

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Take one step with the critics, the policy and the temperature; move the targets."""
        noise, alpha = self.noise(2, *batch.action.shape), self.log_alpha.exp()
        self._update_critic(batch, noise[0], alpha)
        self._update_actor(batch.observation, noise[1], alpha)
        self.target.flat.lerp_(self.critic.flat, self.tau)

    def _update_critic(self, batch: Batch, noise: Tensor, alpha: Tensor) -> None:
        """Descend J(Q) = Σ_i mean ½ (Q_i(s, a) - y)² (eq. 5)."""
        ahead = squash(self.actor.forward(batch.next_observation)[-1][0], noise)
        q_next = _values(self.target, batch.next_observation, ahead.action)[-1].squeeze(-1)
        y = soft_target(batch, q_next, ahead.log_prob, alpha, self.discount)
        passed = _values(self.critic, batch.observation, batch.action)
        error = passed[-1] - y.unsqueeze(-1)
        self.critic.backward(passed, error / len(y))
        self.critic_adam.step()
        self.figures = {"q": y, "q_error": error}

    def _update_actor(self, observation: Tensor, noise: Tensor, alpha: Tensor) -> None:
        """Descend J(π) = mean(α log π(a|s) - min_i Q_i(s, a)) and J(α)."""
        heads = self.actor.forward(observation)
        draw = squash(heads[-1][0], noise)
        passed = _values(self.critic, observation, draw.action)
        q = passed[-1]
        smaller = torch.stack([q[0] <= q[1], q[0] > q[1]]).to(q.dtype)
        by_q = smaller * (-1.0 / len(observation))
        by_action = self.critic.input_gradient(passed, by_q, observation.shape[-1])
        self.actor.backward(heads, actor_gradient(draw, by_action, alpha).unsqueeze(0))
        gradient = temperature_gradient(alpha, draw.log_prob, self.target_entropy)
        self.log_alpha.grad = gradient
        self.actor_adam.step()
        self.figures |= {"entropy": draw.log_prob, "alpha": alpha}

    def policy_arrays(self) -> dict[str, Array]:
        """Return the policy's layers, named as in ``policies.behaviour_file``."""
        arrays: dict[str, Array] = {}
        for index, pair in enumerate(zip(self.actor.weights, self.actor.biases, strict=True)):
            weight, bias = (array[0].cpu().numpy() for array in pair)
            if index < len(self.actor.weights) - 1:
                arrays |= _layer(f"fc{index}", weight, bias)
            else:
                for name, half in zip(("last_fc", "last_fc_log_std"), (0, 1), strict=True):
                    columns = np.split(weight, 2, axis=1)[half], np.split(bias, 2, axis=1)[half]
                    arrays |= _layer(name, *columns)
        return arrays

    def info(self) -> Info:
        """Return figures of the last update: mean target, RMS error, entropy, temperature."""
        if not self.figures:
            return {}
        return {
            "q": float(self.figures["q"].mean()),
            "q_error": float(self.figures["q_error"].square().mean().sqrt()),
            "entropy": -float(self.figures["entropy"].mean()),
            "alpha": float(self.figures["alpha"]),
        }


def _layer(name: str, weight: Array, bias: Array) -> dict[str, Array]:
    return {f"{name}.weight": weight.T.copy(), f"{name}.bias": bias[0].copy()}


def _values(critic: Stack, observation: Tensor, action: Tensor) -> list[Tensor]:
    return critic.forward(torch.cat([observation, action], -1))
