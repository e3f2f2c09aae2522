"""BC: the likelihood against densities of torch, and the update beside a plain one."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from policies.algos.learner import Batch
from policies.algos.likelihood import EDGE, log_normal, log_tanh_normal
from policies.learners import make_learner
from policies.model import GaussianModel
from tests.policies.algos.beside import (
    batches,
    require_same_when_compiled,
    require_stacked,
    sizes_of,
    updated,
)
from tests.policies.algos.ladder import (
    bandit_action,
    ladder,
    require_resumed,
    require_transcription,
)


def draws(seed=0, rows=50):
    generator = torch.Generator().manual_seed(seed)
    mean, log_std, noise = torch.randn(3, rows, 4, generator=generator).unbind()
    return mean, 0.5 * log_std - 1.0, noise


def squashed(mean, log_std):
    normal = Independent(Normal(mean.double(), log_std.double().exp()), 1)
    return TransformedDistribution(normal, [TanhTransform()])


def test_log_normal_is_that_of_torch():
    mean, log_std, noise = draws()
    x = mean + noise
    expected = Independent(Normal(mean, log_std.exp()), 1).log_prob(x)
    torch.testing.assert_close(log_normal(x, mean, log_std), expected, rtol=1e-5, atol=1e-5)


def test_log_tanh_normal_is_that_of_torch():
    mean, log_std, noise = draws()
    action = (mean + log_std.exp() * noise).tanh().clamp(-0.999, 0.999)
    expected = squashed(mean, log_std).log_prob(action.double()).float()
    torch.testing.assert_close(
        log_tanh_normal(action, mean, log_std), expected, rtol=1e-3, atol=1e-3
    )


def test_the_density_of_actions_has_mass_one():
    # Over u the density of a is flat enough for a midpoint rule: a = tanh u, da = (1 - a^2) du.
    u = torch.linspace(-7.0, 7.0, 20_001, dtype=torch.float64)[:, None]
    a = u.tanh()
    density = log_tanh_normal(a, torch.tensor([0.4]), torch.tensor([-0.3])).exp()
    mass = float((density * (1.0 - a[:, 0] ** 2)).sum() * (u[1, 0] - u[0, 0]))
    assert mass == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("limit", [-1.0, 1.0])
def test_actions_at_their_limits_are_finite_and_those_just_inside(limit):
    mean, log_std = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1)
    at, inside = (
        log_tanh_normal(torch.full((1, 1), limit * size), mean, log_std) for size in (1.0, EDGE)
    )
    assert math.isfinite(float(at.detach()))
    assert float(at.detach()) == float(inside.detach())
    (gradient,) = torch.autograd.grad(at.sum(), mean)
    assert float(gradient) == pytest.approx(limit * math.atanh(EDGE), rel=1e-2)


def transcribe(networks, batch, noise, step):
    assert noise is None
    mean, log_std = networks["online"].heads(batch.condition, "last_fc", "last_fc_log_std")
    density = squashed(mean, log_std.clamp(-5.0, 2.0))
    loss = -density.log_prob(batch.action.double()).mean().float()
    networks["online"].step(loss)
    return {"loss": loss}


def test_losses_and_weights_are_those_of_the_formula():
    require_transcription(ladder("bc"), transcribe, seeds=(0, 5))


def test_runs_side_by_side_are_the_runs_one_by_one():
    require_stacked(ladder("bc", optimiser={"grad_clip": 0.5}))


def test_two_updates_and_two_resumed_are_four(tmp_path):
    require_resumed(ladder("bc"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    require_same_when_compiled(ladder("bc"))


def test_an_update_makes_the_data_likelier():
    config = ladder("bc", optimiser={"learning_rate": 1e-4})
    learner = make_learner(config, sizes_of([0]))
    batch = batches(1, 1)[0]
    losses = [float(learner.update(batch, learner.prepare(step))["loss"]) for step in range(10)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_spread_beyond_its_limits_stays_there():
    # Rows that agree have a likelihood without bound: log sigma stops at its limit.
    config = ladder("bc", optimiser={"steps": 300, "learning_rate": 0.01, "final_rate": 0.0})
    learner = make_learner(config, sizes_of([0]))
    batch = batches(1, 1)[0]
    same = Batch(**vars(batch) | {"action": torch.full_like(batch.action, 0.2)})
    losses = [float(learner.update(same, learner.prepare(step))["loss"]) for step in range(300)]
    # Three elements at the mean: -log N = log sigma + log(2 pi)/2, da = (1 - a^2) du.
    least = 3 * (-5.0 + 0.5 * math.log(2 * math.pi) + math.log(1 - 0.04))
    assert min(losses) > least - 1e-2
    assert losses[-1] < least + 0.5


def test_the_mean_of_even_actions_is_their_middle():
    assert abs(float(bandit_action("bc"))) < 0.15


def test_what_the_bundle_gets():
    learner, _ = updated(ladder("bc"))
    arrays, model = learner.policy_arrays(0), learner.model
    assert isinstance(model, GaussianModel)
    assert (model.squash, model.log_std_min, model.log_std_max) == ("action", -5.0, 2.0)
    assert arrays["last_fc_log_std.weight"].shape == (3, 32)
    assert learner.critic is None
    assert learner.critic_arrays(0) is None
