"""SAC on an ensemble: the same update as the hand-written SAC, targets by hand, differences."""

import math

import numpy as np
import pytest
import torch

from policies.algos import sac
from policies.algos.learner import Batch, Sizes
from policies.algos.soft import LOG_ALPHA, Soft, SoftSettings
from policies.algos.value import Valuation
from policies.learning import NEWEST, OptimiserSettings, ValueSettings
from policies.model import CriticSettings, GaussianModel
from policies.sampling import GaussianDraw

RATE, ROWS, D, A = 1e-3, 6, 3, 2
HIDDEN = (8, 8)
PLAIN = CriticSettings(2, HIDDEN, "relu")


def soft(critic=PLAIN, temperature=None, subset=0, **values):
    settings = ValueSettings(**({"discount": 0.9, "tau": 0.25} | values))
    settings = ValueSettings(
        learning_rate=RATE, decay=False, discount=settings.discount, tau=settings.tau
    )
    optimiser = OptimiserSettings(
        steps=1, learning_rate=RATE, warmup=0, final_rate=1.0, grad_clip=None, served=NEWEST
    )
    valuation = Valuation(Sizes(A, D), critic, settings, None, subset)
    return Soft(GaussianModel(HIDDEN), valuation, SoftSettings(temperature, RATE), optimiser)


def rows(seed=0, count=ROWS):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(1, count, *shape, generator=g)

    alive = (torch.arange(count) % 3 > 0).float()[None]
    return Batch(normal(D), normal(A).tanh(), normal(), normal(D), alive, torch.zeros(1, count, A))


def given(learner, *noise):
    """Let the learner draw these numbers, one after the other."""
    left = iter(noise)
    learner.noise = lambda *shape: next(left).view(*shape)


def by_hand(learner, seed=5):
    """Return the hand-written SAC with the weights of ``learner``."""
    twin = sac.SoftActorCritic(
        D,
        A,
        HIDDEN,
        learning_rate=RATE,
        discount=0.9,
        tau=0.25,
        temperature=None,
        target_entropy=None,
        generator=torch.Generator().manual_seed(seed),
    )
    for index, name in enumerate(("fc0", "fc1")):
        twin.actor.weights[index].copy_(learner.online.fixed[f"{name}.weight"].mT)
        twin.actor.biases[index].copy_(learner.online.fixed[f"{name}.bias"])
    heads = [learner.online.fixed[f"last_fc{end}.weight"] for end in ("", "_log_std")]
    twin.actor.weights[2].copy_(torch.cat(heads, 1).mT)
    biases = [learner.online.fixed[f"last_fc{end}.bias"] for end in ("", "_log_std")]
    twin.actor.biases[2].copy_(torch.cat(biases, 1))
    stacks = ((twin.critic, learner.values.online), (twin.target, learner.values.target))
    for stack, network in stacks:
        for index, name in enumerate(("layers.0", "layers.1", "head")):
            stack.weights[index].copy_(network.fixed[f"{name}.weight"][0].mT)
            stack.biases[index].copy_(network.fixed[f"{name}.bias"][0].unsqueeze(1))
    return twin


def test_updates_are_those_of_the_hand_written_sac():
    learner = soft()
    twin, begun = by_hand(learner), soft()
    for step in range(5):
        batch = rows(step)
        noise = torch.randn(2, ROWS, A, generator=torch.Generator().manual_seed(10 + step))
        given(learner, *noise)
        learner.update(batch, learner.prepare(step))
        twin.noise = lambda *shape, noise=noise: noise
        columns = (batch.condition, batch.action, batch.reward, batch.alive, batch.next_condition)
        twin.update(sac.Batch(*(column[0] for column in columns)))
    # Their TD loss is half of ours, which Adam feels through its epsilon alone.
    room = {"rtol": 0.0, "atol": 0.02 * RATE}
    arrays = twin.policy_arrays()
    for name, array in learner.policy_arrays(0).items():
        torch.testing.assert_close(torch.from_numpy(array), torch.from_numpy(arrays[name]), **room)
        assert abs(array - begun.policy_arrays(0)[name]).max() > RATE
    ours = learner.values.target.fixed["layers.1.weight"][0].mT
    torch.testing.assert_close(ours, twin.target.weights[1], **room)
    torch.testing.assert_close(learner.alpha.fixed[LOG_ALPHA][0], twin.log_alpha, **room)
    assert float(twin.log_alpha) != 0.0


def level(learner, values):
    """Make each target and online critic give one number, whatever it is asked."""
    for network in (learner.values.online, learner.values.target):
        network.flat.zero_()
        network.fixed["head.bias"].copy_(torch.tensor(values).view(1, -1, 1))


def standard(learner):
    """Make the policy a = tanh(n)."""
    learner.online.flat.zero_()


def log_density(noise):
    """Return log p(tanh n), n standard normal, per row."""
    slope = np.log1p(-(np.tanh(noise) ** 2))
    return (-0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - slope).sum(-1)


def test_targets_by_hand():
    learner, batch = soft(temperature=0.3), rows()
    level(learner, [5.0, 4.0])
    standard(learner)
    noise = torch.linspace(-1.5, 1.5, ROWS * A).view(1, ROWS, A)
    given(learner, noise)
    figures = learner.update_critics(batch)
    value = 4.0 - 0.3 * log_density(noise[0].double().numpy())
    y = batch.reward[0].numpy() + 0.9 * batch.alive[0].numpy() * value
    assert figures["q"].item() == pytest.approx(y.mean(), rel=1e-5)
    loss = ((5.0 - y) ** 2).mean() + ((4.0 - y) ** 2).mean()
    assert figures["q_loss"].item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("subset", [0, 2])
def test_the_policys_gradient_is_that_of_differences(subset):
    critic = CriticSettings(3, HIDDEN, "relu", layer_norm=True)
    learner, batch = soft(critic, temperature=0.2, subset=subset), rows(count=16)
    noise = torch.randn(1, 16, A, generator=torch.Generator().manual_seed(1))

    def loss():
        action, log_prob = learner.draw(learner.online.fixed, batch.condition, noise)
        q = learner.values.of_policy(batch.condition, action)
        return float((0.2 * log_prob - (q.mean(1) if subset else q.amin(1))).mean())

    learner._find_actor_gradient(batch.condition, noise)
    flat, h = learner.online.flat, 3e-3
    found = learner.online.grad.clone()
    for place in range(0, len(flat), 5):
        kept = float(flat[place])
        flat[place] = kept + h
        above = loss()
        flat[place] = kept - h
        slope = (above - loss()) / (2 * h)
        flat[place] = kept
        assert found[place].item() == pytest.approx(slope, rel=0.05, abs=2e-3)


def test_a_high_temperature_spreads_the_actions():
    learner, batch = soft(temperature=10.0), rows(count=64)
    entropies = [
        learner.update_actor(None, batch.condition, learner.prepare(step))["entropy"].item()
        for step in range(200)
    ]
    assert np.mean(entropies[-20:]) > np.mean(entropies[:20]) + 0.1


@pytest.mark.parametrize(("log_std", "rises"), [(-4.0, True), (-0.1, False)])
def test_the_temperature_rises_where_there_is_too_little_entropy(log_std, rises):
    # H = -2: sigma of 0.02 has less, -5.0; one of 0.9 more, 0.4 or so.
    learner, batch = soft(), rows(count=64)
    standard(learner)
    learner.online.fixed["last_fc_log_std.bias"].fill_(log_std)
    entropy = learner.update_actor(None, batch.condition, learner.prepare(0))["entropy"].item()
    assert (entropy < -2.0) == rises
    moved = learner.alpha.fixed[LOG_ALPHA].item()
    assert moved == pytest.approx(RATE if rises else -RATE, rel=1e-3)


def test_a_given_temperature_stays():
    learner = soft(temperature=0.3)
    for step in range(3):
        figures = learner.update(rows(step), learner.prepare(step))
    assert figures["alpha"].item() == pytest.approx(0.3)
    assert "temperature" not in learner.optimisers


def test_targets_are_the_least_of_a_subset_drawn_anew():
    critic = CriticSettings(5, HIDDEN, "relu", layer_norm=True)
    learner, batch = soft(critic, temperature=1e-9, subset=2), rows()
    standard(learner)
    seen = []
    for _ in range(300):
        level(learner, [0.0, 1.0, 2.0, 3.0, 4.0])
        y = learner.update_critics(batch)["q"].item()
        seen.append((y - batch.reward.mean().item()) / (0.9 * batch.alive.mean().item()))
    found, counts = np.unique(np.round(seen, 3), return_counts=True)
    # Of 10 pairs 4 have 0 as their least, 3 have 1, 2 have 2, and 1 has 3.
    assert found.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-3)
    np.testing.assert_allclose(counts / 300, [0.4, 0.3, 0.2, 0.1], atol=0.08)


def test_the_bundles_arrays_give_the_actions_of_the_policy():
    learner = soft()
    seen, noise = torch.randn(1, 4, D), torch.randn(1, 4, A)
    drawn = GaussianDraw(learner.model, learner.policy_arrays(0), 1.0)
    got = drawn(seen[0].numpy(), noise.numpy())
    expected = learner.draw(learner.online.fixed, seen, noise)[0][0]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)
