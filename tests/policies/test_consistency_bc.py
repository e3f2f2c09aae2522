"""The consistency loss by hand, its fixed point, and that it learns a distribution."""

import copy

import msgspec
import pytest
import torch

from policies.algos.consistency_bc import ConsistencyLoss, follow, grid
from policies.diffusion.precond import Precondition
from policies.diffusion.sampler import one_step
from policies.nets import Denoiser
from policies.settings import ConsistencySettings, NetworkSettings, PreconditionSettings

NOISE = PreconditionSettings()
EPS, TOP = NOISE.sigma_min, NOISE.sigma_max


def loss_with(noise=NOISE, **settings):
    return ConsistencyLoss(ConsistencySettings(**settings), noise)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def zero(x, label, condition):
    return torch.zeros_like(x)


def test_two_levels_by_hand():
    # One pair only, (eps, T). f(., eps) is the identity, so the target is a + eps z; with
    # F = 0 the guess is c_skip(T) (a + T z).
    action, condition = torch.randn(6, 2), torch.zeros(6, 1)
    generator = seeded()
    torch.randint(1, (6, 1), generator=generator)
    z = torch.randn(6, 2, generator=generator)
    skip = 0.25 / ((TOP - EPS) ** 2 + 0.25)
    by_hand = (skip * (action + TOP * z) - (action + EPS * z)).square().mean()
    got, info = loss_with()(zero, zero, condition, action, (0, 100), seeded())
    assert float(got) == pytest.approx(float(by_hand), rel=1e-5)
    assert info == {"loss": float(got), "levels": 2}


def test_the_exact_consistency_function_of_a_single_action_has_no_loss():
    action = torch.tensor([[0.3, -0.7]]).expand(512, 2)
    pre = Precondition.of(NOISE)

    def exact(x, label, condition):
        tau = (label / 250.0).exp()
        noisy = x / pre.c_in(tau)
        return (action - pre.c_skip(tau) * noisy) / pre.c_out(tau).clamp(min=1e-9)

    got, _ = loss_with(levels_start=30, levels_end=30)(
        exact, exact, torch.zeros(512, 1), action, (0, 1), seeded()
    )
    # Only pairs that begin at eps, where f(a + eps z) = a + eps z, can differ, by eps z.
    assert float(got) < EPS**2


def test_no_gradient_through_the_target():
    scale = torch.ones((), requires_grad=True)
    other = torch.ones((), requires_grad=True)
    got, _ = loss_with(levels_start=20, levels_end=20)(
        lambda x, *_: scale * x,
        lambda x, *_: other * x,
        torch.zeros(64, 1),
        torch.randn(64, 2),
        (0, 1),
        seeded(),
    )
    got.backward()
    assert scale.grad is not None
    assert other.grad is None


def test_both_sides_see_the_same_noise():
    seen = []

    def spy(x, label, condition):
        seen.append((x, (label / 250.0).exp()))
        return x

    loss_with(levels_start=10, levels_end=10)(
        spy, spy, torch.zeros(32, 1), torch.zeros(32, 2), (0, 1), seeded()
    )
    pre = Precondition.of(NOISE)
    z_low, z_high = (x / pre.c_in(tau) / tau for x, tau in seen)
    assert torch.allclose(z_low, z_high, rtol=1e-3, atol=1e-4)
    assert (seen[0][1] < seen[1][1]).all()


def test_levels_are_neighbours_of_the_grid_of_this_update():
    loss = loss_with(levels_start=5, levels_end=5)
    low, high = loss.draw_levels(6, 1000, seeded())
    levels, _ = grid(6, loss.settings, NOISE)
    index = torch.searchsorted(levels, low)
    assert torch.equal(levels[index + 1], high)
    assert set(index.flatten().tolist()) == {0, 1, 2, 3, 4}


def test_lognormal_levels_prefer_the_middle():
    few = loss_with(levels="lognormal", lognormal_mean=0.0, lognormal_std=0.5)
    low, high = few.draw_levels(50, 4000, seeded())
    assert ((high > 0.2) & (low < 5.0)).float().mean() > 0.98


def test_weights_and_distances_by_hand():
    low, high = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    assert loss_with().weight(low, high) == 1.0
    assert float(loss_with(weighting="inverse_step").weight(low, high)) == 50.0
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, -4.0]])
    assert float(loss_with().distance(x, y)) == 12.5
    huber = loss_with(distance="pseudo_huber", huber=0.5).distance(x, y)
    assert float(huber) == pytest.approx(25.5**0.5 - 0.5**0.5)


def test_follow_by_hand():
    slow, fast = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    before = slow.weight.item()
    follow(slow, fast, 0.9)
    assert slow.weight.item() == pytest.approx(0.9 * before + 0.1 * fast.weight.item())


def test_it_learns_a_distribution_from_samples():
    torch.manual_seed(0)
    noise = msgspec.structs.replace(NOISE, sigma_max=10.0)
    loss = ConsistencyLoss(ConsistencySettings(levels_end=8), noise)
    net = Denoiser(1, 1, NetworkSettings(hidden=(64, 64)))
    served = copy.deepcopy(net)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    generator = seeded()
    mean, std = 0.25, 0.4
    for k in range(800):
        action = mean + std * torch.randn(256, 1, generator=generator)
        value, _ = loss(net, net, torch.zeros(256, 1), action, (k, 800), generator)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        follow(served, net, 0.99)
    pre = Precondition.of(noise)
    condition = torch.zeros(20_000, 1)
    with torch.no_grad():
        sample = one_step(
            lambda x, tau: pre.denoise(served, x, torch.full_like(x, tau), condition),
            torch.randn(20_000, 1, generator=generator),
            10.0,
        )
    assert float(sample.mean()) == pytest.approx(mean, abs=0.06)
    assert float(sample.std()) == pytest.approx(std, abs=0.12)
