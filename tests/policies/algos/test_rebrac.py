"""ReBRAC beside a plain one: both penalties, and where the data has no next action."""

import pytest
import torch

from policies.algos.learner import Batch
from policies.learners import make_learner
from tests.policies.algos.beside import (
    batches,
    require_same_when_compiled,
    require_stacked,
    sizes_of,
)
from tests.policies.algos.ladder import (
    bandit_action,
    cloned_pay,
    ladder,
    pay,
    require_resumed,
    require_transcription,
)

ACTOR, CRITIC, TAU = 0.4, 0.3, 0.5
NORMED = {"layer_norm": True}


def rebrac(**changes):
    td3 = {"actor_bc": ACTOR, "critic_bc": CRITIC} | changes.pop("td3", {})
    return ladder("rebrac", td3=td3, critic=NORMED, **changes)


def transcribe(networks, batch, noise, step):
    """Tarasov et al. 2023, for one run."""
    critic, target = networks["critic"], networks["critic_target"]
    with torch.no_grad():
        ahead = networks["target"].heads(batch.next_condition, "last_fc").tanh()
        ahead = torch.clamp(ahead + torch.clamp(0.2 * noise, -0.5, 0.5), -1.0, 1.0)
        penalty = ((ahead - batch.next_action) ** 2).sum(-1)
        following = target.least(batch.next_condition, ahead) - CRITIC * penalty
        y = batch.reward + 0.99 * batch.alive * following
    losses = [((critic.q(k, batch.condition, batch.action) - y) ** 2).mean() for k in (0, 1)]
    critic.step(losses[0] + losses[1])
    figures = {"q_loss": losses[0] + losses[1], "q": y.mean()}
    if step % 2 == 0:
        return figures
    action = networks["online"].heads(batch.condition, "last_fc").tanh()
    q = critic.least(batch.condition, action)
    imitation = ACTOR * ((action - batch.action) ** 2).sum(-1).mean()
    value = -(q / q.detach().abs().mean()).mean()
    networks["online"].step(imitation + value)
    networks["target"].towards(networks["online"], TAU)
    target.towards(critic, TAU)
    return figures | {"imitation": imitation, "policy_loss": value}


def test_losses_and_weights_are_those_of_the_formulas():
    require_transcription(rebrac(), transcribe, seeds=(0, 5), updates=6)


def test_the_critics_are_held_by_hand():
    learner = make_learner(rebrac(), sizes_of([0]))
    batch = batches(1, 1)[0]
    ahead = torch.arange(16.0)[None]
    action = batch.next_action.clone()
    action[0, 3] += torch.tensor([0.1, -0.2, 0.2])
    got = learner.corrected(ahead, batch, action)
    expected = ahead.clone()
    expected[0, 3] -= CRITIC * 0.09
    torch.testing.assert_close(got, expected)


def test_without_a_next_action_there_is_no_penalty():
    learner = make_learner(rebrac(), sizes_of([0]))
    batch = batches(1, 1)[0]
    known = batch.next_action.clone()
    known[0, :4] = 0.0
    ended = Batch(**vars(batch) | {"next_action": known})
    got = learner.corrected(torch.zeros(1, 16), ended, torch.ones(1, 16, 3))
    assert (got[0, :4] == 0.0).all()
    assert (got[0, 4:] < 0.0).all()


def test_a_heavier_penalty_lowers_the_values():
    def value_of(weight):
        learner = make_learner(rebrac(td3={"critic_bc": weight}), sizes_of([0]))
        figures = learner.update(batches(1, 1)[0], learner.prepare(0))
        return float(figures["q"])

    light, middle, heavy = (value_of(weight) for weight in (0.0, 0.5, 1.0))
    assert light > middle > heavy
    # The first target is linear in the weight.
    assert light - middle == pytest.approx(middle - heavy, rel=1e-3)


def test_runs_side_by_side_are_the_runs_one_by_one():
    require_stacked(rebrac(optimiser={"grad_clip": 0.5}))


def test_two_updates_and_two_resumed_are_four(tmp_path):
    require_resumed(rebrac(), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    require_same_when_compiled(rebrac())


def test_it_finds_what_pays():
    learned = bandit_action("rebrac", td3={"actor_bc": 0.01}, critic=NORMED)
    assert pay(learned) > 3 * cloned_pay()


def test_with_imitation_above_all_it_finds_the_middle():
    learned = bandit_action("rebrac", td3={"actor_bc": 1000.0}, critic=NORMED)
    assert abs(float(learned)) < 0.15
