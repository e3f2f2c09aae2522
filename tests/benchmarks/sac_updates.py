"""Gradient updates per second of soft actor-critic on one thread, 256 rows, 256 x 256 units:

``ours``: ``policies.algos.sac``;
``plain``: the same losses with torch's modules, automatic differentiation and Adam, as usually
written;
``arithmetic``: the multiplications of an update alone, at the rate of a 256 x 256 x 256 product.

The three take turns; each figure is the fastest of its turns.

    python -m tests.benchmarks.sac_updates [--json] [--observation 11] [--action 3] [--threads 1]
"""

import argparse
import copy
import time

import torch
from torch import nn

from controller.display import say
from policies.algos.sac import Batch, SoftActorCritic

ROWS, WIDTH, UPDATES, ROUNDS = 256, 256, 20, 20


def operations(observation, action):
    """Return the multiply-adds of an update, times two.

    The policy goes forward twice and back once, for its weights. A critic goes forward three
    times, once as target; back once for its weights and once for the action.
    """
    d, a, w = observation, action, WIDTH
    policy, critic = d * w + w * w + 2 * a * w, (d + a) * w + w * w + w
    actor = 3 * policy + w * w + 2 * a * w
    critics = 2 * (4 * critic + w * w + w + w * w + w + a * w)
    return 2 * ROWS * (actor + critics)


def mlp(inputs, outputs):
    inner = [nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*inner, nn.Linear(WIDTH, outputs))


def plain(batch):
    """Return a function that does one update the usual way."""
    d, a = batch.observation.shape[1], batch.action.shape[1]
    actor, critics = mlp(d, 2 * a), nn.ModuleList(mlp(d + a, 1) for _ in range(2))
    targets, log_alpha = copy.deepcopy(critics), nn.Parameter(torch.zeros(()))
    adams = [torch.optim.Adam(m.parameters(), 3e-4) for m in (actor, critics)]
    adams.append(torch.optim.Adam([log_alpha], 3e-4))

    def draw(observation):
        mean, log_std = actor(observation).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        u = normal.rsample()
        squash = torch.log1p(-u.tanh().square() + 1e-6)
        return u.tanh(), (normal.log_prob(u) - squash).sum(-1, keepdim=True)

    def descend(adam, loss):
        adam.zero_grad()
        loss.backward()
        adam.step()

    def least(networks, observation, action):
        both = torch.cat([observation, action], -1)
        return torch.min(networks[0](both), networks[1](both))

    def update():
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            ahead, log_prob = draw(batch.next_observation)
            value = least(targets, batch.next_observation, ahead) - alpha * log_prob
            y = batch.reward[:, None] + 0.99 * batch.alive[:, None] * value
        both = torch.cat([batch.observation, batch.action], -1)
        descend(adams[1], sum((0.5 * (q(both) - y).square()).mean() for q in critics))
        action, log_prob = draw(batch.observation)
        q = least(critics, batch.observation, action)
        descend(adams[0], (alpha * log_prob - q).mean())
        descend(adams[2], -(log_alpha.exp() * (log_prob.detach() - a)).mean())
        with torch.no_grad():
            for old, new in zip(targets.parameters(), critics.parameters(), strict=True):
                old.lerp_(new, 0.005)

    return update


def ours(batch):
    """Return a function that does one update our way."""
    learner = SoftActorCritic(
        batch.observation.shape[1],
        batch.action.shape[1],
        (WIDTH, WIDTH),
        learning_rate=3e-4,
        discount=0.99,
        tau=0.005,
        temperature=None,
        target_entropy=None,
        generator=torch.Generator().manual_seed(0),
    )
    return lambda: learner.update(batch)


def products():
    """Return a function that does a 256 x 256 x 256 product."""
    a, b, c = torch.randn(3, ROWS, WIDTH)
    return lambda: torch.mm(a, b, out=c)


def fastest(turns):
    """Return the least time of one call of each, seconds, from turns taken in rotation."""
    least = [float("inf")] * len(turns)
    for _ in range(ROUNDS):
        for index, act in enumerate(turns):
            start = time.perf_counter()
            for _ in range(UPDATES):
                act()
            least[index] = min(least[index], (time.perf_counter() - start) / UPDATES)
    return least


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    for name, value in (("--observation", 11), ("--action", 3), ("--threads", 1)):
        parser.add_argument(name, type=int, default=value)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    d, a = words.observation, words.action
    batch = Batch(
        observation=torch.randn(ROWS, d),
        action=torch.rand(ROWS, a) * 2 - 1,
        reward=torch.randn(ROWS),
        alive=torch.ones(ROWS),
        next_observation=torch.randn(ROWS, d),
    )
    mine, usual, product = fastest([ours(batch), plain(batch), products()])
    arithmetic = product * operations(d, a) / (2 * ROWS * WIDTH * WIDTH)
    figures = {
        "ours": 1 / mine,
        "plain": 1 / usual,
        "arithmetic": 1 / arithmetic,
        "ours_by_plain": usual / mine,
        "ours_by_arithmetic": arithmetic / mine,
    }
    say({name: round(value, 2) for name, value in figures.items()}, words.json)


if __name__ == "__main__":
    main()
