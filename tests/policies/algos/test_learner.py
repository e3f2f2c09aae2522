"""Averages, dials, optimisers and noise, and how an algorithm is prepared."""

import math

import pytest
import torch

from policies.algos.learner import Averages, Dials, Optimiser, Sizes, fused
from policies.learners import LEARNERS, make_learner
from policies.learning import Averaging, OptimiserSettings
from policies.parameters import Parameters
from tests.policies.algos.beside import batches, sizes_of, small, updated


def parameters(value=0.0, runs=1):
    made = Parameters({"w": (2,)}, runs)
    made.flat.fill_(value)
    return made


def walk(averaging, steps):
    """Return the average after each update, the newest weight being the number of updates."""
    online, dials = parameters(), Dials()
    averages = Averages(online, {"slow": averaging}, dials)
    seen = []
    for step in range(steps):
        online.flat.fill_(step + 1.0)
        averages.move(averages.prepare(step))
        seen.append(float(averages["slow"].flat[0]))
    return seen


def test_average_by_hand():
    # 0.75 of the old: 0.25, then 0.75 0.25 + 0.25 2, ...
    assert walk(Averaging(0.75, grow=False), 3) == pytest.approx([0.25, 0.6875, 1.265625])


def test_average_begins_late_and_moves_now_and_then():
    # Updates 4 and 6 (from 0) are the first that are even and not before 3.
    seen = walk(Averaging(0.5, every=2, after=3, grow=False), 8)
    assert seen == pytest.approx([0, 0, 0, 0, 2.5, 2.5, 4.75, 4.75])


def test_growing_average_forgets_where_it_began():
    # The share of the newest is 1 - min(decay, (k + 1)/(k + 10)).
    averaging = Averaging(0.9, grow=True)
    assert [averaging.share(k) for k in (0, 8, 79, 80, 81, 1000)] == pytest.approx(
        [0.9, 0.5, 9 / 89, 0.1, 0.1, 0.1]
    )
    left = math.prod(1.0 - averaging.share(k) for k in range(20))
    online, dials = parameters(0.0), Dials()
    averages = Averages(online, {"slow": averaging}, dials)
    averages.kept["slow"].flat.fill_(1.0)
    for step in range(20):
        averages.move(averages.prepare(step))
    assert float(averages["slow"].flat[0]) == pytest.approx(left, rel=1e-4)
    assert left < 1e-6


def test_no_average_is_the_newest():
    online = parameters(3.0)
    averages = Averages(online, {"slow": Averaging(every=0)}, Dials())
    assert averages["slow"] is online
    assert averages.kept == {}
    assert averages.prepare(0) == ()


def test_variants_say_which_averages_move():
    kept = {"one": Averaging(every=2, grow=False), "two": Averaging(every=3, after=1, grow=False)}
    averages = Averages(parameters(), kept, Dials())
    moves = [averages.prepare(step) for step in range(7)]
    assert moves == [(1, 0), (0, 0), (1, 0), (0, 1), (1, 0), (0, 0), (1, 1)]


def test_an_average_that_is_not_due_stays_whatever_its_dial_says():
    averages = Averages(parameters(8.0), {"slow": Averaging(0.5, grow=False)}, dials := Dials())
    averages["slow"].flat.zero_()
    dials.set("slow", 0.5)
    averages.move((False,))
    assert averages["slow"].flat.tolist() == [0.0, 0.0]
    averages.move((True,))
    assert averages["slow"].flat.tolist() == [4.0, 4.0]


def test_a_dial_stays_the_same_tensor():
    dials = Dials()
    dials.set("levels", 3.0)
    tensor = dials["levels"]
    dials.set("levels", 5.0)
    assert dials["levels"] is tensor
    assert tensor.shape == ()
    assert float(tensor) == 5.0


def test_schedule_of_the_learning_rate_by_hand():
    settings = OptimiserSettings(steps=100, warmup=4, final_rate=0.2)
    cosine = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * k / 100)) for k in range(101)]
    assert settings.share(0) == pytest.approx(0.25 * cosine[0])
    assert settings.share(2) == pytest.approx(0.75 * cosine[2])
    assert settings.share(50) == pytest.approx(0.6)
    assert settings.share(100) == pytest.approx(0.2)
    assert OptimiserSettings(warmup=0, final_rate=1.0).share(7_000) == 1.0


def steps_of(optimiser, module, gradients):
    """Take the same steps with ours and with torch's AdamW on a parameter of its own."""
    theirs = torch.nn.Parameter(optimiser.parameters.flat.clone())
    adam = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    optimiser.set_rate(0.1)
    for gradient in gradients:
        optimiser.parameters.grad.copy_(gradient)
        optimiser.step()
        theirs.grad = gradient.clone()
        if module.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_([theirs], module.grad_clip)
        adam.step()
    return theirs


@pytest.mark.parametrize("clip", [None, 0.5])
def test_optimiser_takes_the_steps_of_adam(clip):
    made = Parameters({"a": (3,), "b": (2, 2)}, 1)
    made.initialise([0])
    optimiser = Optimiser(made, weight_decay=0.01, grad_clip=clip)
    gradients = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    theirs = steps_of(optimiser, optimiser, gradients * torch.arange(1, 7)[:, None])
    torch.testing.assert_close(made.flat, theirs.detach())


def test_optimiser_returns_the_norm_before_clipping():
    made = parameters(runs=2)
    optimiser = Optimiser(made, grad_clip=1.0)
    made.grads["w"].copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    assert optimiser.step().tolist() == pytest.approx([5.0, 0.5])
    assert made.grads["w"].flatten().tolist() == pytest.approx([0.6, 0.8, 0.3, 0.4], rel=1e-5)


def test_optimiser_can_go_on_from_a_state():
    gradients = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    whole, first = Optimiser(parameters()), Optimiser(parameters())
    for optimiser, some in ((whole, gradients), (first, gradients[:2])):
        optimiser.set_rate(0.1)
        for gradient in some:
            optimiser.parameters.grad.copy_(gradient)
            optimiser.step()
    second = Optimiser(first.parameters.copy())
    second.begin()
    for name, value in second.state().items():
        value.copy_(first.state()[name])
    second.set_rate(0.1)
    for gradient in gradients[2:]:
        second.parameters.grad.copy_(gradient)
        second.step()
    assert torch.equal(second.parameters.flat, whole.parameters.flat)


def test_noise_depends_on_the_seeds_alone():
    draws = [
        torch.randn(9, generator=Sizes(1, 1, seeds).generator())
        for seeds in ((7,), (7,), (8,), (7, 8), (8, 7))
    ]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], torch.randn(9, generator=torch.Generator().manual_seed(7)))
    for other in draws[2:]:
        assert not torch.equal(draws[0], other)
    assert not torch.equal(draws[3], draws[4])


def test_function_is_left_alone_without_fusing():
    assert fused(abs, False) is abs


@pytest.mark.parametrize("algorithm", ["consistency_ac", "diffusion_ql"])
def test_the_coin_is_fair_and_comes_from_seed_and_step(algorithm):
    config = small(algorithm)
    first, again, other = (make_learner(config, sizes_of([seed])) for seed in (0, 0, 1))
    throws = [[each.prepare(step)[-1] for step in range(2000)] for each in (first, again, other)]
    assert throws[0] == throws[1]
    assert throws[0] != throws[2]
    # A fair coin: mean 1000, standard deviation 22; pairs of equal sides likewise.
    assert abs(sum(throws[0]) - 1000) < 90
    assert abs(sum(a == b for a, b in zip(throws[0], throws[0][1:], strict=False)) - 1000) < 90
    assert abs(sum(a == b for a, b in zip(throws[0], throws[2], strict=True)) - 1000) < 90


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_same_seed_same_weights_and_another_seed_others(algorithm):
    config = small(algorithm)
    first, again, other = (updated(config, [seed], 2)[0] for seed in (0, 0, 1))
    for name, network in first.networks.items():
        assert torch.equal(network.flat, again.networks[name].flat)
        assert not torch.equal(network.flat, other.networks[name].flat)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_figures_are_of_each_run_and_of_no_graph(algorithm):
    _, figures = updated(small(algorithm), (0, 1), 2)
    for name, value in figures[-1].items():
        assert value.shape == (2,), name
        assert not value.requires_grad, name
        assert value.isfinite().all(), name


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_a_batch_is_not_changed(algorithm):
    learner, (batch,) = make_learner(small(algorithm), sizes_of([0])), batches(1, 1)
    before = {name: value.clone() for name, value in vars(batch).items()}
    learner.update(batch, learner.prepare(0))
    assert all(torch.equal(value, before[name]) for name, value in vars(batch).items())
