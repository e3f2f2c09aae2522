"""The consistency loss against closed forms, and Consistency-BC beside the baseline."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from policies.algos.consistency_bc import ConsistencyLoss
from policies.algos.learner import Batch
from policies.diffusion.schedule import karras
from policies.learners import make_learner
from policies.learning import NEWEST, ConsistencySettings
from policies.model import PreconditionSettings
from tests.policies.algos.beside import (
    ACTION,
    require_effect,
    require_equal,
    require_same_when_compiled,
    require_stacked,
    sizes_of,
    small,
)

NOISE = PreconditionSettings()
EPS, TOP, RHO = NOISE.sigma_min, NOISE.sigma_max, NOISE.rho


def loss_with(noise=NOISE, **settings):
    return ConsistencyLoss(ConsistencySettings(**settings), noise)


def rows(action):
    """Return a batch of one run that is conditioned on nothing."""
    action = action[None]
    nothing = torch.zeros(*action.shape[:2], 1)
    plain = torch.zeros(action.shape[:2])
    return Batch(nothing, action, plain, nothing, plain, action)


def value_of(loss, network, target, action, levels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(1, *action.shape, generator=generator)
    draw = torch.rand(1, len(action), 1, generator=generator)
    return loss(network, target, rows(action), torch.tensor(float(levels)), z, draw)


def zero(x, label, condition):
    return torch.zeros_like(x)


def as_network(function, pre):
    """Return F whose wrapping is the consistency function ``function(x, tau)``."""

    def network(x, label, condition):
        tau = (label / 250.0).exp()
        noisy = x / pre.c_in(tau)
        wanted = function(noisy, tau) - pre.c_skip(tau) * noisy
        return wanted / pre.c_out(tau).clamp(min=1e-9)

    return network


def test_two_levels_by_hand():
    # One pair only, (eps, T). f(., eps) is the identity, so the goal is a + eps z; with F = 0
    # the guess is c_skip(T) (a + T z).
    action, z = torch.randn(1, 6, 2), torch.randn(1, 6, 2)
    skip = 0.25 / ((TOP - EPS) ** 2 + 0.25)
    by_hand = (skip * (action + TOP * z) - (action + EPS * z)).square().mean()
    got = loss_with()(zero, zero, rows(action[0]), torch.tensor(2.0), z, torch.rand(1, 6, 1))
    assert got.shape == (1,)
    assert float(got) == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("levels", [2, 10, 150])
def test_exact_function_of_a_gaussian_has_the_loss_that_follows(levels):
    # For actions N(m, s^2) it is f(x, t) = m + r_t (x - m), r_t^2 = (s^2 + eps^2)/(s^2 + t^2).
    # With the same a and z on both sides f(high) - f(low) is Gaussian with the variance
    # (r_h - r_l)^2 s^2 + (r_h h - r_l l)^2: not 0, for z is not the noise of a trajectory.
    mean, std, pre = 0.3, 0.6, loss_with().precondition
    grid = karras(levels, EPS, TOP, RHO)
    r = np.sqrt((std**2 + EPS**2) / (std**2 + grid**2))
    expected = np.mean(np.diff(r) ** 2 * std**2 + np.diff(r * grid) ** 2)

    def exact(x, tau):
        return mean + ((std**2 + EPS**2) / (std**2 + tau**2)) ** 0.5 * (x - mean)

    network = as_network(exact, pre)
    action = mean + std * torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1))
    got = float(value_of(loss_with(), network, network, action, levels))
    assert got == pytest.approx(expected, rel=0.03)


def test_exact_function_has_no_loss_in_the_limit():
    def exact(x, tau):
        return 0.3 + ((0.36 + EPS**2) / (0.36 + tau**2)) ** 0.5 * (x - 0.3)

    network = as_network(exact, loss_with().precondition)
    action = 0.3 + 0.6 * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1))
    coarse, middle, fine = (
        float(value_of(loss_with(), network, network, action, levels)) for levels in (11, 101, 1001)
    )
    # Neighbours are 10 times nearer each time: squares fall by 100.
    assert coarse / middle == pytest.approx(100, rel=0.4)
    assert middle / fine == pytest.approx(100, rel=0.2)
    assert fine < 1e-5


def test_exact_function_of_a_single_action_has_no_loss():
    only = torch.tensor([0.3, -0.7])
    network = as_network(lambda x, tau: only + 0.0 * x, loss_with().precondition)
    got = value_of(loss_with(), network, network, only.expand(512, 2), 30)
    # Only pairs that begin at eps, where f(a + eps z) = a + eps z, can differ, by eps z.
    assert 0.0 < float(got) < EPS**2


def test_no_gradient_through_the_target():
    scale, other = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    got = value_of(
        loss_with(),
        lambda x, *_: scale * x,
        lambda x, *_: other * x,
        torch.randn(64, 2),
        20,
    )
    got.sum().backward()
    assert scale.grad is not None
    assert scale.grad != 0.0
    assert other.grad is None


def test_both_sides_see_the_same_noise():
    seen = []

    def spy(x, label, condition):
        seen.append((x, (label / 250.0).exp()))
        return x

    value_of(loss_with(), spy, spy, torch.zeros(32, 2), 10)
    pre = loss_with().precondition
    z_low, z_high = (x / pre.c_in(tau) / tau for x, tau in seen)
    assert torch.allclose(z_low, z_high, rtol=1e-3, atol=1e-4)
    assert (seen[0][1] < seen[1][1]).all()


@pytest.mark.parametrize("kind", ["uniform", "lognormal"])
@pytest.mark.parametrize("levels", [2, 3, 10, 150])
def test_pairs_are_neighbours_of_the_karras_grid(levels, kind):
    grid = torch.tensor(karras(levels, EPS, TOP, RHO), dtype=torch.float32)
    draw = torch.rand(1, 5000, 1, generator=torch.Generator().manual_seed(0))
    low, high = loss_with(levels=kind).pair(torch.tensor(float(levels)), draw)
    index = (low - grid).abs().argmin(-1, keepdim=True)
    torch.testing.assert_close(low, grid[index], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(high, grid[index + 1], rtol=1e-5, atol=0.0)
    assert low.min() >= EPS - 1e-9
    assert high.max() <= TOP


def frequencies(loss, levels, count=1_000_000):
    """Return how often each pair comes when [0, 1) is walked through evenly."""
    draw = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).float()
    low, _ = loss.pair(torch.tensor(float(levels)), draw.view(1, -1, 1))
    grid = torch.tensor(karras(levels, EPS, TOP, RHO), dtype=torch.float32)
    middles = (grid[1:] + grid[:-1]) / 2
    found = torch.bincount(torch.bucketize(low.flatten(), middles), minlength=levels - 1)
    return found.numpy() / count


@pytest.mark.parametrize("levels", [2, 10, 150])
def test_uniform_pairs_are_equally_frequent(levels):
    assert np.abs(frequencies(loss_with(), levels) - 1 / (levels - 1)).max() < 5e-6


def test_uniform_pairs_that_a_learner_draws():
    config = small("consistency_bc")
    learner = make_learner(config, sizes_of([0]))
    batch, count = rows(torch.zeros(20_000, ACTION)), 150
    _, draw = learner.draw(batch)
    low, _ = learner.loss.pair(torch.tensor(float(count)), draw)
    found = low.unique(return_counts=True)[1].double()
    assert len(found) == count - 1
    expected = 20_000 / (count - 1)
    chi2 = float(((found - expected) ** 2 / expected).sum())
    # With 148 degrees of freedom: mean 148, standard deviation 17.
    assert abs(chi2 - 148) < 4 * 17.2


@pytest.mark.parametrize(("mean", "std"), [(-1.1, 2.0), (0.0, 0.5)])
@pytest.mark.parametrize("levels", [11, 150])
def test_lognormal_pairs_are_as_frequent_as_the_density_says(levels, mean, std):
    # p_i ~ Phi((ln tau_{i+1} - mean)/std) - Phi((ln tau_i - mean)/std) (Song & Dhariwal 2023).
    loss = loss_with(levels="lognormal", lognormal_mean=mean, lognormal_std=std)
    grid = karras(levels, EPS, TOP, RHO)
    chances = np.diff([NormalDist(mean, std).cdf(value) for value in np.log(grid)])
    found = frequencies(loss, levels)
    assert np.abs(found - chances / chances.sum()).max() < 1e-5


def test_weights_and_distances_by_hand():
    low, high = torch.tensor([[[1.0]]]), torch.tensor([[[3.0]]])
    assert loss_with().weight(low, high) == 1.0
    assert float(loss_with(weighting="inverse_step").weight(low, high)) == 50.0
    assert float(loss_with(weighting="inverse_step", xi=7.0).weight(low, high)) == 3.5
    x, y = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, -4.0]]])
    assert float(loss_with().distance(x, y)) == 12.5
    # c = 0.5 sqrt(2): sqrt(25 + 1/2) - sqrt(1/2).
    huber = loss_with(distance="pseudo_huber", huber=0.5).distance(x, y)
    assert float(huber) == pytest.approx(25.5**0.5 - 0.5**0.5)


def test_pseudo_huber_is_a_square_nearby_and_a_length_far_out():
    loss, one = loss_with(distance="pseudo_huber", huber=0.1), torch.ones(1, 1, 4)
    c = 0.1 * 2.0
    near, far = (float(loss.distance(0.0 * one, size * one)) for size in (1e-2, 1e3))
    assert near == pytest.approx(4e-4 / (2 * c), rel=0.01)
    assert far == pytest.approx(2e3 - c, rel=1e-4)


def test_weights_enter_before_the_mean():
    # Two samples of levels (eps, T): each of the weights is xi / (T - eps).
    action = torch.randn(6, 2)
    plain = float(value_of(loss_with(), zero, zero, action, 2))
    scaled = float(value_of(loss_with(weighting="inverse_step"), zero, zero, action, 2))
    assert scaled == pytest.approx(plain * 100 / (TOP - EPS), rel=1e-5)


OPTIONS = {
    "weighting": {"loss": {"weighting": "inverse_step"}},
    "released curriculum": {"loss": {"growth": "released", "restart": 3}},
    "newest target": {"loss": {"target": NEWEST}},
    "clipped": {"optimiser": {"grad_clip": 0.1}},
    "cosine": {"optimiser": {"final_rate": 0.0}},
}


def test_losses_and_weights_of_the_baseline():
    require_equal(small("consistency_bc"))


@pytest.mark.parametrize("option", OPTIONS)
def test_with_each_option(option):
    config = small("consistency_bc", **OPTIONS[option])
    require_equal(config)
    require_effect(config, small("consistency_bc"))


@pytest.mark.parametrize("noise", ["paper", "edm"])
def test_runs_side_by_side_are_the_runs_one_by_one(noise):
    require_stacked(small("consistency_bc", noise={"kind": noise}))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("levels", ["uniform", "lognormal"])
def test_compiled(levels):
    changes = {"loss": {"levels": levels, "distance": "pseudo_huber", "weighting": "inverse_step"}}
    require_same_when_compiled(small("consistency_bc", **changes, noise={"kind": "edm"}))


def test_it_learns_a_distribution_from_samples():
    # One coordinate N(0.25, 0.4^2): one step from the top must give its mean and its spread.
    changes = {
        "network": {"hidden": (64, 64)},
        "noise": {"kind": "edm", "sigma_max": 10.0},
        "loss": {"target": NEWEST, "levels_end": 8},
        "optimiser": {"steps": 800, "learning_rate": 2e-3, "final_rate": 0.0},
        "improve": {"steps": 1},
    }
    learner = make_learner(small("consistency_bc", **changes), sizes_of([0]))
    generator = torch.Generator().manual_seed(0)
    condition, spare = torch.zeros(1, 256, 5), torch.zeros(1, 256)
    for step in range(800):
        action = 0.25 + 0.4 * torch.randn(1, 256, ACTION, generator=generator)
        batch = Batch(condition, action, spare, condition, spare, action)
        learner.update(batch, learner.prepare(step))
    with torch.no_grad():
        noise = learner.sampling_noise(20_000)
        sample = learner.sample(learner.online.fixed, torch.zeros(1, 20_000, 5), noise)
    assert sample.mean((0, 1)).tolist() == pytest.approx([0.25] * ACTION, abs=0.06)
    assert sample.std((0, 1)).tolist() == pytest.approx([0.4] * ACTION, abs=0.12)
