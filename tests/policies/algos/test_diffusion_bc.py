"""The diffusion loss against closed forms, and Diffusion-BC beside the baseline."""

import pytest
import torch

from policies.algos.learner import Batch
from policies.learners import make_learner
from tests.policies.algos.beside import (
    ACTION,
    CONDITION,
    batches,
    require_effect,
    require_equal,
    require_same_when_compiled,
    require_stacked,
    sizes_of,
    small,
)


def learner_with(**changes):
    return make_learner(small("diffusion_bc", **changes), sizes_of([0]))


def told(learner):
    """Make the learner's network note what it is told; it answers 0."""
    seen = []

    def net(views, x, label, condition):
        seen.append((x, label))
        return torch.zeros_like(x)

    learner.net = net
    return seen


def test_without_a_word_of_the_network_the_loss_is_that_of_the_noise():
    learner, batch = learner_with(), batches(1)[0]
    told(learner)
    z, place = learner.draw(batch)
    assert float(learner.imitation(batch, (z, place))) == pytest.approx(float(z.square().mean()))


def test_noisy_actions_have_the_variance_of_their_step():
    learner = learner_with(chain={"steps": 4})
    seen = told(learner)
    rows = 200_000
    action = torch.full((1, rows, ACTION), 0.8)
    spare, condition = torch.zeros(1, rows), torch.zeros(1, rows, CONDITION)
    batch = Batch(condition, action, spare, condition, spare, action)
    learner.imitation(batch, learner.draw(batch))
    ((noisy, label),) = seen
    assert label.unique().tolist() == [0.0, 1.0, 2.0, 3.0]
    for step, left in enumerate(learner.chain.alpha_bars):
        x = noisy[0, label[0, :, 0] == step]
        assert len(x) / rows == pytest.approx(0.25, abs=0.01)
        assert float(x.mean()) == pytest.approx(left**0.5 * 0.8, abs=0.01)
        assert float(x.var()) == pytest.approx(1.0 - left, rel=0.02)


def test_the_draw_chooses_steps_evenly_up_to_its_very_end():
    learner = learner_with(chain={"steps": 3})
    seen, batch = told(learner), batches(1)[0]
    place = ((torch.arange(16) + 0.5) / 16).view(1, 16, 1)
    place[0, -1] = 1.0 - 2**-24
    learner.imitation(batch, (torch.zeros_like(batch.action), place))
    assert seen[0][1].flatten().tolist() == [0.0] * 5 + [1.0] * 6 + [2.0] * 5


def test_samples_are_clipped_and_told_falling_steps():
    learner = learner_with(chain={"steps": 5})
    seen = told(learner)
    noise = 3.0 * learner.sampling_noise(64)
    action = learner.sample({}, torch.zeros(1, 64, CONDITION), noise)
    assert action.abs().max() == 1.0
    assert [float(label) for _, label in seen] == [4.0, 3.0, 2.0, 1.0, 0.0]


OPTIONS = {
    "one step": {"chain": {"steps": 1}},
    "ten steps": {"chain": {"steps": 10}},
    "clipped": {"optimiser": {"grad_clip": 0.1}},
    "cosine": {"optimiser": {"final_rate": 0.0}},
}


def test_losses_and_weights_of_the_baseline():
    require_equal(small("diffusion_bc"))


@pytest.mark.parametrize("option", OPTIONS)
def test_with_each_option(option):
    config = small("diffusion_bc", **OPTIONS[option])
    require_equal(config)
    require_effect(config, small("diffusion_bc"))


def test_runs_side_by_side_are_the_runs_one_by_one():
    require_stacked(small("diffusion_bc", optimiser={"grad_clip": 0.1}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    require_same_when_compiled(small("diffusion_bc"))
