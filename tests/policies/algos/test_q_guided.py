"""What online learning asks of a guided actor: weights of its two terms, and other anchors."""

import pytest
import torch

from policies.algos.learner import Sizes
from policies.algos.q_guided import QGuided
from policies.algos.value import Valuation
from policies.learners import make_learner
from policies.learning import ValueSettings
from policies.model import CriticSettings
from tests.policies.algos.beside import ACTION, CONDITION, batches, sizes_of, small


def guided(imitation=1.0, eta=0.7, algorithm="consistency_ac", subset=0, **critic):
    """Return a guided actor; every one begins with the same weights and noise."""
    made = make_learner(small(algorithm, improve={"eta": eta, "q_loss": "mean"}), sizes_of([0]))
    shape = CriticSettings(hidden=(32, 32), **critic)
    values = Valuation(Sizes(ACTION, CONDITION), shape, ValueSettings(), None, subset)
    return QGuided(made.actor, values, made.settings, imitation)


def gradient(learner, anchors, condition, seed=3):
    """Return the gradient of one update of the actor, all noise drawn anew from a seed."""
    learner.generator.manual_seed(seed)
    learner.update_actor(anchors, condition, learner.prepare(0))
    return learner.actor.online.grad.clone()


@pytest.mark.parametrize("algorithm", ["consistency_ac", "diffusion_ql"])
def test_the_gradient_is_the_weighted_sum_of_its_terms(algorithm):
    anchors, other = batches(1, 2)
    condition = other.condition
    both = gradient(guided(0.25, 0.7, algorithm), anchors, condition)
    imitation = gradient(guided(1.0, 0.0, algorithm), anchors, condition)
    value = gradient(guided(0.0, 1.0, algorithm), anchors, condition)
    torch.testing.assert_close(both, 0.25 * imitation + 0.7 * value, rtol=1e-4, atol=1e-6)
    assert 0.25 * imitation.norm() > 1e-3 < 0.7 * value.norm()


def test_imitation_is_of_the_anchors_and_value_of_the_states():
    first, second = batches(1, 2)
    learner = [guided(1.0, 0.0) for _ in range(3)]
    same = gradient(learner[0], first, first.condition)
    assert torch.equal(same, gradient(learner[1], first, second.condition))
    assert not torch.equal(same, gradient(learner[2], second, first.condition))
    learner = [guided(0.0, 1.0) for _ in range(3)]
    same = gradient(learner[0], first, first.condition)
    assert torch.equal(same, gradient(learner[1], None, first.condition))
    assert not torch.equal(same, gradient(learner[2], first, second.condition))


def test_without_anchors_the_actor_feels_the_critics_alone():
    batch = batches(1, 1)[0]
    value = gradient(guided(0.0, 0.7), None, batch.condition)
    assert torch.equal(gradient(guided(1.0, 0.7), None, batch.condition), value)


def test_a_subset_of_the_critics_makes_the_target():
    learner = guided(count=4, subset=1)
    values, batch = learner.values, batches(1, 1)[0]
    values.target.flat.zero_()
    values.target.fixed["head.bias"].copy_(torch.arange(4.0).view(1, 4, 1))
    seen = set()
    for _ in range(60):
        values.target.fixed["head.bias"].copy_(torch.arange(4.0).view(1, 4, 1))
        y = learner.update_critics(batch)["q"] - batch.reward.mean()
        seen.add(round(float(y / (0.99 * batch.alive.mean()))))
        values.target.flat.zero_()
    assert seen == {0, 1, 2, 3}


def test_a_subset_is_of_different_critics_and_all_of_them_is_none():
    values = guided(count=6, subset=3).values
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([values.choose(generator) for _ in range(400)])
    assert drawn.shape == (400, 3)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    shares = torch.bincount(drawn.flatten(), minlength=6) / 1200
    torch.testing.assert_close(shares, torch.full((6,), 1 / 6), rtol=0, atol=0.03)
    begun = generator.get_state()
    assert guided(count=2, subset=2).values.choose(generator) is None
    assert guided(count=2).values.choose(generator) is None
    assert torch.equal(generator.get_state(), begun)


def test_only_the_chosen_critics_are_asked():
    values, batch = guided(count=4, subset=2).values, batches(1, 1)[0]
    whole = values.nets(values.target.fixed, batch.condition, batch.action)
    got = values.ahead(batch.condition, batch.action, torch.tensor([3, 1]))
    torch.testing.assert_close(got, torch.minimum(whole[:, 3], whole[:, 1]))


def test_values_that_are_given_are_learned_and_the_targets_are_the_newest():
    values, batch = guided(count=3).values, batches(1, 1)[0]
    values.set_rate(10.0)
    y = batch.condition.sum(-1)
    losses = [values.learn(batch, y)["q_loss"].item() for _ in range(200)]
    assert losses[-1] < 0.1 * losses[0]
    assert torch.equal(values.online.flat, values.target.flat)
