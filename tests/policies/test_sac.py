"""Soft actor-critic against hand calculation, finite differences and automatic differentiation."""

import math

import numpy as np
import pytest
import torch

from policies.algos.sac import (
    Batch,
    SoftActorCritic,
    actor_gradient,
    soft_target,
    squash,
    temperature_gradient,
)


def learner(seed=0, **changes):
    settings = {
        "learning_rate": 1e-3,
        "discount": 0.9,
        "tau": 0.25,
        "temperature": None,
        "target_entropy": None,
        "generator": torch.Generator().manual_seed(seed),
    }
    return SoftActorCritic(3, 2, (8, 8), **(settings | changes))


def batch(rows=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        observation=torch.randn(rows, 3, generator=g),
        action=torch.rand(rows, 2, generator=g) * 2 - 1,
        reward=torch.randn(rows, generator=g),
        alive=(torch.arange(rows) % 3 > 0).float(),
        next_observation=torch.randn(rows, 3, generator=g),
    )


def test_log_prob_is_that_of_a_change_of_variables():
    mean, log_std = np.array([0.3, -1.2]), np.array([-0.5, 0.4])
    noise = np.array([0.7, -1.1])
    heads = torch.tensor(np.concatenate([mean, log_std]))[None]
    draw = squash(heads, torch.tensor(noise)[None])
    u, h = mean + np.exp(log_std) * noise, 1e-6
    slope = (np.tanh(u + h) - np.tanh(u - h)) / (2 * h)
    normal = np.exp(-0.5 * noise**2) / (np.exp(log_std) * math.sqrt(2 * math.pi))
    assert draw.log_prob.item() == pytest.approx(np.log(normal / slope).sum(), rel=1e-8)
    np.testing.assert_allclose(draw.action[0].numpy(), np.tanh(u))


def test_the_density_of_actions_integrates_to_one():
    mean, log_std = 0.4, -0.3
    edges = np.linspace(-1, 1, 200_001)
    a = (edges[1:] + edges[:-1]) / 2
    noise = (np.arctanh(a) - mean) / math.exp(log_std)
    heads = torch.tensor([[mean, log_std]], dtype=torch.float64).expand(len(a), -1)
    density = squash(heads, torch.tensor(noise)[:, None]).log_prob.exp()
    assert float(density.sum()) * (edges[1] - edges[0]) == pytest.approx(1.0, abs=1e-6)


def test_log_prob_is_finite_where_tanh_is_one_in_float32():
    draw = squash(torch.tensor([[30.0, 2.0]]), torch.tensor([[3.0]]))
    assert draw.action.item() == 1.0
    # log(1 - tanh² u) = log 4 - 2u for large u.
    u = 30.0 + 3.0 * math.exp(2.0)
    expected = -0.5 * 9.0 - 2.0 - 0.5 * math.log(2 * math.pi) - (math.log(4.0) - 2 * u)
    assert draw.log_prob.item() == pytest.approx(expected, rel=1e-5)


def test_log_std_is_clipped_and_gets_no_gradient_there():
    draw = squash(torch.tensor([[0.0, 0.0, 3.0, -25.0]]), torch.ones(1, 2))
    assert draw.step[0].tolist() == pytest.approx([math.exp(2.0), math.exp(-20.0)])
    assert draw.free[0].tolist() == [0.0, 0.0]
    assert (actor_gradient(draw, torch.ones(1, 2), torch.tensor(0.5))[0, 2:] == 0).all()


def test_targets_by_hand():
    got = soft_target(
        Batch(None, None, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]), None),
        torch.tensor([[5.0, 9.0], [4.0, 8.0]]),
        torch.tensor([-2.0, 1.0]),
        torch.tensor(0.1),
        0.9,
    )
    # 1 + 0.9 (4 - 0.1 (-2)) = 4.78; a terminal successor leaves the reward.
    assert got.tolist() == pytest.approx([4.78, 2.0])


def test_temperature_gradient_by_hand_and_by_finite_difference():
    log_prob, target, log_alpha = torch.tensor([1.0, 3.0]), -1.5, math.log(0.2)
    got = temperature_gradient(torch.tensor(0.2), log_prob, target).item()
    # -0.2 (2 - 1.5): too little entropy, so that descending raises the temperature.
    assert got == pytest.approx(-0.1)

    def objective(value):
        return float((-math.exp(value) * (log_prob.double() + target)).mean())

    h = 1e-5
    numeric = (objective(log_alpha + h) - objective(log_alpha - h)) / (2 * h)
    assert got == pytest.approx(numeric, rel=1e-6)


def test_the_policys_gradient_is_that_of_automatic_differentiation():
    g = torch.Generator().manual_seed(3)
    heads = torch.randn(5, 4, generator=g, dtype=torch.float64).requires_grad_()
    noise = torch.randn(5, 2, generator=g, dtype=torch.float64)
    slope = torch.randn(5, 2, generator=g, dtype=torch.float64)
    alpha = torch.tensor(0.3, dtype=torch.float64)
    draw = squash(heads, noise)
    # Any critic with this slope by the action will do: -min Q = Σ slope · a.
    loss = (alpha * draw.log_prob).mean() + (slope * draw.action).sum()
    expected = torch.autograd.grad(loss, heads)[0]
    torch.testing.assert_close(actor_gradient(draw, slope, alpha).detach(), expected)


def plain(sac):
    """Return the networks of ``sac`` as functions of leaves that record gradients."""

    def network(stack):
        flat = stack.flat.detach().clone().requires_grad_()
        weights, biases = stack.views(flat)

        def call(x):
            h = x.expand(stack.count, -1, -1)
            for index, (w, b) in enumerate(zip(weights, biases, strict=True)):
                h = h @ w + b
                h = h if index == len(weights) - 1 else h.relu()
            return h

        return flat, call

    return network(sac.actor), network(sac.critic), network(sac.target)


def plain_policy(actor, observation, noise):
    mean, log_std = actor(observation)[0].chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
    u = mean + normal.stddev * noise
    log_prob = normal.log_prob(u) - torch.log1p(-u.tanh().square())
    return u.tanh(), log_prob.sum(-1)


def test_an_update_is_that_of_the_losses_as_they_are_written_in_the_paper():
    sac, rows = learner(), batch()
    (actor_flat, actor), (critic_flat, critic), (target_flat, target) = plain(sac)
    log_alpha = torch.zeros((), requires_grad=True)
    adams = [torch.optim.Adam(p, 1e-3) for p in ([critic_flat], [actor_flat], [log_alpha])]
    twin = learner()
    noise = twin.noise(2, 6, 2)
    assert torch.equal(twin.actor.flat, sac.actor.flat)
    sac.update(rows)

    alpha = log_alpha.exp().detach()
    with torch.no_grad():
        ahead, log_prob = plain_policy(actor, rows.next_observation, noise[0])
        q = target(torch.cat([rows.next_observation, ahead], -1)).squeeze(-1).min(0).values
        y = rows.reward + 0.9 * rows.alive * (q - alpha * log_prob)
    q = critic(torch.cat([rows.observation, rows.action], -1)).squeeze(-1)
    (0.5 * (q - y).square().mean(1).sum()).backward()
    adams[0].step()
    action, log_prob = plain_policy(actor, rows.observation, noise[1])
    q = critic(torch.cat([rows.observation, action], -1)).squeeze(-1).min(0).values
    (alpha * log_prob - q).mean().backward()
    adams[1].step()
    (-log_alpha.exp() * (log_prob.detach() - 2.0)).mean().backward()
    adams[2].step()

    torch.testing.assert_close(sac.critic.flat, critic_flat.detach())
    torch.testing.assert_close(sac.actor.flat, actor_flat.detach())
    torch.testing.assert_close(sac.log_alpha, log_alpha.detach())
    moved = 0.75 * target_flat + 0.25 * critic_flat
    torch.testing.assert_close(sac.target.flat, moved.detach())
    # All of them moved; a gradient of zero would agree just as well.
    fresh = learner()
    for name in ("actor", "critic", "target"):
        assert not torch.equal(getattr(sac, name).flat, getattr(fresh, name).flat)


def test_a_given_temperature_stays():
    sac = learner(temperature=0.3)
    for _ in range(3):
        sac.update(batch())
    assert sac.info()["alpha"] == pytest.approx(0.3)


def test_the_layers_of_the_policy_give_its_actions():
    sac, seen = learner(), torch.randn(4, 3)
    layers = {name: torch.from_numpy(array) for name, array in sac.policy_arrays().items()}
    h = seen
    for name in ("fc0", "fc1"):
        h = (h @ layers[f"{name}.weight"].T + layers[f"{name}.bias"]).relu()
    mean, log_std = (
        h @ layers[f"{name}.weight"].T + layers[f"{name}.bias"]
        for name in ("last_fc", "last_fc_log_std")
    )
    torch.testing.assert_close(sac.act(seen), mean.tanh())
    noise = torch.randn(4, 2)
    torch.testing.assert_close(sac.act(seen, noise), (mean + log_std.exp() * noise).tanh())
