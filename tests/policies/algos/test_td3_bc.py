"""TD3+BC beside a plain one; the delay, the noise, the direction of its steps."""

import pytest
import torch

from policies.learners import make_learner
from policies.model import DeterministicModel
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

ALPHA, TAU, DISCOUNT = 2.5, 0.5, 0.99


def transcribe(networks, batch, noise, step, alpha=ALPHA, delay=2):
    """Fujimoto & Gu 2021, with Fujimoto et al. 2018, algorithm 1, for one run."""
    critic, target = networks["critic"], networks["critic_target"]
    with torch.no_grad():
        shift = torch.clamp(0.2 * noise, min=-0.5, max=0.5)
        ahead = networks["target"].heads(batch.next_condition, "last_fc").tanh() + shift
        ahead = torch.clamp(ahead, min=-1.0, max=1.0)
        y = batch.reward + DISCOUNT * batch.alive * target.least(batch.next_condition, ahead)
    losses = [(critic.q(k, batch.condition, batch.action) - y).pow(2).mean() for k in (0, 1)]
    critic.step(losses[0] + losses[1])
    figures = {"q_loss": losses[0] + losses[1], "q": y.mean()}
    if step % delay != delay - 1:
        return figures
    action = networks["online"].heads(batch.condition, "last_fc").tanh()
    q = critic.q(0, batch.condition, action)
    imitation = torch.nn.functional.mse_loss(action, batch.action)
    value = -alpha / q.abs().mean().detach() * q.mean()
    networks["online"].step(imitation + value)
    networks["target"].towards(networks["online"], TAU)
    target.towards(critic, TAU)
    return figures | {"imitation": imitation, "policy_loss": value}


def test_losses_and_weights_are_those_of_the_formulas():
    require_transcription(ladder("td3_bc"), transcribe, seeds=(0, 5), updates=6)


def test_another_weight_and_delay():
    def other(*given):
        return transcribe(*given, alpha=0.5, delay=3)

    require_transcription(ladder("td3_bc", td3={"alpha": 0.5, "delay": 3}), other, updates=6)


def test_the_actor_and_the_targets_wait():
    learner = make_learner(ladder("td3_bc", td3={"delay": 3}), sizes_of([0]))
    moved = []
    for step, batch in enumerate(batches(1, 6)):
        before = {name: network.flat.clone() for name, network in learner.networks.items()}
        learner.update(batch, learner.prepare(step))
        moved.append(
            {
                n
                for n, network in learner.networks.items()
                if not torch.equal(before[n], network.flat)
            }
        )
    everything = {"online", "target", "critic", "critic_target"}
    assert moved == 2 * [{"critic"}, {"critic"}, everything]


def test_noise_of_the_target_actions_is_clipped_and_so_are_they():
    learner = make_learner(ladder("td3_bc"), sizes_of([0]))
    condition = batches(1, 1)[0].condition
    quiet = learner.act_ahead(condition, torch.zeros(1, 16, 3))
    assert torch.equal(quiet, learner.act(learner.target.fixed, condition))
    small = learner.act_ahead(condition, torch.full((1, 16, 3), 2.0))
    torch.testing.assert_close(small, (quiet + 0.4).clamp(max=1.0))
    loud = learner.act_ahead(condition, torch.full((1, 16, 3), 30.0))
    torch.testing.assert_close(loud, (quiet + 0.5).clamp(max=1.0))
    learner.target.fixed["last_fc.bias"].fill_(50.0)
    assert (learner.act_ahead(condition, torch.ones(1, 16, 3)) == 1.0).all()


@pytest.mark.parametrize("alpha", [0.0, 100.0])
def test_the_actor_goes_where_its_weight_says(alpha):
    config = ladder("td3_bc", td3={"alpha": alpha, "delay": 1}, optimiser={"learning_rate": 1e-4})
    learner = make_learner(config, sizes_of([0]))
    batch = batches(1, 1)[0]

    def standing():
        with torch.no_grad():
            action = learner.act(learner.online.fixed, batch.condition)
            q = learner.values.of_policy(batch.condition, action, only=0).mean()
            return float(q), float((action - batch.action).square().mean())

    q, far = standing()
    learner._actor_gradient(batch)
    learner.adam.set_rate(1e-4)
    learner.adam.step()
    after_q, after_far = standing()
    assert after_far < far if alpha == 0.0 else after_q > q


def test_runs_side_by_side_are_the_runs_one_by_one():
    require_stacked(ladder("td3_bc", optimiser={"grad_clip": 0.5}))


def test_two_updates_and_two_resumed_are_four(tmp_path):
    require_resumed(ladder("td3_bc"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    require_same_when_compiled(ladder("td3_bc"))


def test_it_finds_what_pays():
    learned = bandit_action("td3_bc")
    assert pay(learned) > 3 * cloned_pay()


def test_with_imitation_alone_it_finds_the_middle():
    assert abs(float(bandit_action("td3_bc", td3={"alpha": 0.0}))) < 0.15


def test_what_the_bundle_gets():
    learner, _ = updated(ladder("td3_bc"), seeds=(0, 1))
    assert learner.model == DeterministicModel((32, 32))
    assert set(learner.policy_arrays(1)) == {
        f"{name}.{kind}" for name in ("fc0", "fc1", "last_fc") for kind in ("weight", "bias")
    }
    assert learner.critic.count == 2
    expected = learner.values.target.to_arrays(1)["head.weight"]
    assert (learner.critic_arrays(1)["head.weight"] == expected).all()
