"""Behaviour cloning and actor-critic with a policy of this package."""

import copy

import torch
from torch import nn
from torch.nn import functional

from tests.benchmarks.plain.draws import Draws
from tests.benchmarks.plain.networks import Critic


class Buffer:
    """A dataset that batches are drawn from; the tensors are on the device already."""

    def __init__(self, state, action, reward, next_state, not_done):
        self.columns = (state, action, reward, next_state, not_done)
        self.size = len(state)

    def sample(self, rows):
        index = torch.randint(0, self.size, (rows,), device=self.columns[0].device)
        return tuple(column[index] for column in self.columns)


class Cloning:
    """Consistency-BC or Diffusion-BC.

    Args:
        policy: has ``loss`` and ``sample``.
        network: what they call.
        learning_rate: of Adam.
        grad_norm: largest norm of a gradient, None for any.
        decay_steps: updates of a cosine decay to 0, None for a rate that stays.
        ema_decay: of the average of the weights.
        ema_every: updates between two moves of the average; 0 for no average.
        ema_after: updates before its first move.
        draws: random numbers.
    """

    def __init__(
        self,
        policy,
        network,
        learning_rate=3e-4,
        grad_norm=None,
        decay_steps=None,
        ema_decay=0.995,
        ema_every=5,
        ema_after=1000,
        draws=None,
    ):
        self.policy, self.actor = policy, network
        self.ema = copy.deepcopy(network) if ema_every else network
        self.ema_decay, self.ema_every, self.ema_after = ema_decay, ema_every, ema_after
        self.actor_optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.grad_norm, self.decay_steps, self.step = grad_norm, decay_steps, 0
        self.schedules = [self.schedule(self.actor_optimizer)] if decay_steps else []
        self.draws = draws or Draws()

    def schedule(self, optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.decay_steps)

    def imitation(self, state, action):
        return self.policy.loss(self.actor, self.ema, state, action, self.step, self.draws)

    def descend(self, optimizer, network, loss):
        optimizer.zero_grad()
        loss.backward()
        if self.grad_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.grad_norm)
        optimizer.step()

    def finish(self):
        """Move the average and the learning rates."""
        if self.ema_every and self.step >= self.ema_after and self.step % self.ema_every == 0:
            for slow, fast in zip(self.ema.parameters(), self.actor.parameters(), strict=True):
                slow.data = slow.data * self.ema_decay + (1 - self.ema_decay) * fast.data
        for schedule in self.schedules:
            schedule.step()
        self.step += 1

    def update(self, batch):
        state, action, *_ = batch
        loss = self.imitation(state, action)
        self.descend(self.actor_optimizer, self.actor, loss)
        self.finish()
        return {"loss": loss.item()}


class ActorCritic(Cloning):
    """Consistency-AC or Diffusion-QL.

    Args:
        policy: has ``loss`` and ``sample``.
        network: what they call.
        critic: two value networks.
        eta: weight of the Q term.
        q_term: ``coin``, ``mean`` or ``raw``.
        q_norm: divide the TD targets by their spread.
        max_q: actions drawn for each successor.
        discount: gamma.
        tau: share of the critics that enters their targets in each update.
        critic_rate: learning rate of the critics.
        others: of :class:`Cloning`.
    """

    def __init__(
        self,
        policy,
        network,
        critic: Critic,
        eta=1.0,
        q_term="coin",
        q_norm=False,
        max_q=1,
        discount=0.99,
        tau=0.005,
        critic_rate=3e-4,
        **others,
    ):
        super().__init__(policy, network, **others)
        self.critic, self.critic_target = critic, copy.deepcopy(critic)
        self.critic_optimizer = torch.optim.Adam(critic.parameters(), lr=critic_rate)
        if self.decay_steps:
            self.schedules.append(self.schedule(self.critic_optimizer))
        self.eta, self.q_term, self.q_norm, self.max_q = eta, q_term, q_norm, max_q
        self.discount, self.tau = discount, tau

    def sample(self, network, state, action_size, purpose):
        return self.policy.sample(network, state, action_size, self.draws, purpose)

    def ahead(self, next_state, action_size):
        """Return the target critics' value of the successors, (B, 1)."""
        if self.max_q == 1:
            next_action = self.sample(self.ema, next_state, action_size, "ahead")
            return self.critic_target.q_min(next_state, next_action)
        repeated = torch.repeat_interleave(next_state, repeats=self.max_q, dim=0)
        next_action = self.sample(self.ema, repeated, action_size, "ahead")
        both = self.critic_target(repeated, next_action)
        q1, q2 = (q.view(len(next_state), self.max_q).max(dim=1, keepdim=True)[0] for q in both)
        return torch.min(q1, q2)

    def critic_loss(self, state, action, reward, next_state, not_done):
        target = reward + not_done * self.discount * self.ahead(next_state, action.shape[-1])
        if self.q_norm:
            target = target / (target.std() + 1e-6)
        target = target.detach()
        q1, q2 = self.critic(state, action)
        return functional.mse_loss(q1, target) + functional.mse_loss(q2, target)

    def policy_loss(self, state, action_size):
        q1, q2 = self.critic(state, self.sample(self.actor, state, action_size, "policy"))
        if self.q_term == "coin":
            if self.draws.coin():
                q1, q2 = q2, q1
            return -q1.mean() / q2.abs().mean().detach()
        q = (q1 + q2) / 2
        return -q.mean() if self.q_term == "raw" else -q.mean() / q.abs().mean().detach()

    def update(self, batch):
        state, action, reward, next_state, not_done = batch
        critic_loss = self.critic_loss(state, action, reward, next_state, not_done)
        self.descend(self.critic_optimizer, self.critic, critic_loss)
        for slow, fast in zip(
            self.critic_target.parameters(), self.critic.parameters(), strict=True
        ):
            slow.data.copy_(self.tau * fast.data + (1 - self.tau) * slow.data)
        imitation = self.imitation(state, action)
        policy_loss = self.policy_loss(state, action.shape[-1])
        loss = imitation + self.eta * policy_loss
        self.descend(self.actor_optimizer, self.actor, loss)
        self.finish()
        return {
            "loss": imitation.item(),
            "q_loss": critic_loss.item(),
            "policy_loss": policy_loss.item(),
        }
