"""IQL beside a plain one; expectiles in closed form; the weights of its regression."""

import numpy as np
import pytest
import torch

from policies.algos.iql import expectile_loss
from policies.algos.learner import Batch, Sizes
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
    cloned_pay,
    ladder,
    pay,
    require_resumed,
    require_transcription,
)

TAU = 0.5


def expectile(values, tau):
    """Return m with tau E[(x - m)+] = (1 - tau) E[(m - x)+], by bisection."""
    low, high = float(min(values)), float(max(values))
    for _ in range(60):
        m = (low + high) / 2
        above, below = np.maximum(values - m, 0).mean(), np.maximum(m - values, 0).mean()
        low, high = (m, high) if tau * above > (1 - tau) * below else (low, m)
    return low


def transcribe(networks, batch, noise, step, tau=0.7, beta=3.0, most=100.0):
    """Kostrikov et al. 2022, algorithm 1 with eq. 5 to 7, for one run."""
    assert noise is None
    v, critic, target, actor = (networks[n] for n in ("v", "critic", "critic_target", "online"))
    with torch.no_grad():
        q = target.least(batch.condition, batch.action)
    difference = q - v.q(0, batch.condition)
    v_loss = torch.where(difference > 0, tau, 1 - tau).mul(difference**2).mean()
    v.step(v_loss)
    with torch.no_grad():
        weight = torch.exp(beta * (q - v.q(0, batch.condition))).clamp(max=most)
        y = batch.reward + 0.99 * batch.alive * v.q(0, batch.next_condition)
    spread = actor["last_fc_log_std.bias"].clamp(-5.0, 2.0).exp()
    policy = torch.distributions.Normal(actor.heads(batch.condition, "last_fc").tanh(), spread)
    policy_loss = -(weight * policy.log_prob(batch.action).sum(-1)).mean()
    losses = [(critic.q(k, batch.condition, batch.action) - y).pow(2).mean() for k in (0, 1)]
    actor.step(policy_loss)
    critic.step(losses[0] + losses[1])
    target.towards(critic, TAU)
    return {
        "v_loss": v_loss,
        "policy_loss": policy_loss,
        "weight": weight.mean(),
        "q_loss": losses[0] + losses[1],
        "q": y.mean(),
    }


def test_losses_and_weights_are_those_of_the_formulas():
    require_transcription(ladder("iql"), transcribe, seeds=(0, 5))


def test_another_expectile_temperature_and_limit():
    def other(*given):
        return transcribe(*given, tau=0.9, beta=10.0, most=1.2)

    changed = {"expectile": 0.9, "beta": 10.0, "weight_max": 1.2}
    require_transcription(ladder("iql", iql=changed), other)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.7, 0.9])
def test_expectiles_in_closed_form(tau):
    # Of 0 and 1, the latter with probability p: m = tau p / (tau p + (1 - tau)(1 - p)).
    p, rows = 0.3, torch.tensor([1.0] * 3 + [0.0] * 7)
    m = tau * p / (tau * p + (1 - tau) * (1 - p))
    assert expectile(rows.numpy(), tau) == pytest.approx(m, abs=1e-6)
    around = [float(expectile_loss(rows - at, tau).mean()) for at in (m - 1e-2, m, m + 1e-2)]
    assert around[1] < min(around[0], around[2])
    at = torch.tensor(m, requires_grad=True)
    (slope,) = torch.autograd.grad(expectile_loss(rows - at, tau).mean(), at)
    assert float(slope) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_v_becomes_the_expectile_of_two_actions(tau):
    # One observation; -0.5 pays 0, 0.5 pays 1 and comes three times of ten; episodes end there.
    value = {"learning_rate": 5e-3, "decay": False, "tau": 0.1}
    config = ladder("iql", iql={"expectile": tau}, value=value, optimiser={"steps": 400})
    learner = make_learner(config, Sizes(1, 2))
    condition, over = torch.ones(1, 10, 2), torch.zeros(1, 10)
    reward = torch.tensor([[1.0] * 3 + [0.0] * 7])
    batch = Batch(
        condition, reward[..., None] - 0.5, reward, condition, over, torch.zeros(1, 10, 1)
    )
    for step in range(400):
        learner.update(batch, learner.prepare(step))
    with torch.no_grad():
        v = float(learner.value(learner.v.fixed, condition[:, :1]))
    assert v == pytest.approx(tau * 0.3 / (tau * 0.3 + (1 - tau) * 0.7), abs=0.02)


def test_without_advantage_it_is_behaviour_cloning():
    learner = make_learner(ladder("iql", iql={"beta": 0.0}), sizes_of([0]))
    batch = batches(1, 1)[0]
    likelihood = learner.log_likelihood(batch).mean().detach()
    figures = learner.update(batch, learner.prepare(0))
    assert float(figures["weight"]) == 1.0
    assert float(figures["policy_loss"]) == pytest.approx(-float(likelihood), rel=1e-5)


def test_weights_are_cut():
    learner = make_learner(ladder("iql", iql={"beta": 1e6}), sizes_of([0]))
    figures = learner.update(batches(1, 1)[0], learner.prepare(0))
    # Each weight is all or nothing then.
    assert float(figures["weight"]) * 16 / 100 == pytest.approx(
        round(float(figures["weight"]) * 16 / 100), abs=1e-3
    )
    assert float(figures["weight"]) > 0.0


def test_the_policys_rate_decays_and_that_of_the_values_does_not():
    config = ladder("iql", optimiser={"final_rate": 0.0}, value={"decay": False})
    learner = make_learner(config, sizes_of([0]))
    learner.prepare(5)
    rates = {n: each.adam.param_groups[0]["lr"] for n, each in learner.optimisers.items()}
    assert rates == {"actor": pytest.approx(5e-4), "critic": 1e-3, "v": 1e-3}


def test_runs_side_by_side_are_the_runs_one_by_one():
    require_stacked(ladder("iql", optimiser={"grad_clip": 0.5}))


def test_two_updates_and_two_resumed_are_four(tmp_path):
    require_resumed(ladder("iql"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    require_same_when_compiled(ladder("iql"))


def test_it_finds_what_pays():
    learned = bandit_action("iql", iql={"beta": 10.0})
    assert pay(learned) > 3 * cloned_pay()


def test_without_advantage_it_finds_the_middle():
    assert abs(float(bandit_action("iql", iql={"beta": 0.0}))) < 0.15


def test_what_the_bundle_gets():
    learner, _ = updated(ladder("iql"), seeds=(0, 1))
    arrays, model = learner.policy_arrays(1), learner.model
    assert isinstance(model, GaussianModel)
    assert (model.squash, model.log_std_min, model.log_std_max) == ("mean", -5.0, 2.0)
    assert not arrays["last_fc_log_std.weight"].any()
    assert arrays["last_fc_log_std.weight"].shape == (3, 32)
    assert arrays["last_fc_log_std.bias"].shape == (3,)
