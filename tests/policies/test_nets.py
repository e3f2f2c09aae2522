"""Networks against torch's own functions and plain matrix products."""

import torch
from torch.nn import functional

from policies.nets import Denoiser, TwinCritic, mish
from policies.settings import NetworkSettings

SMALL = NetworkSettings(hidden=(8, 8))


def test_mish_is_torchs_mish_also_far_out():
    x = torch.tensor([-200.0, -30.0, -5.0, -1e-4, 0.0, 1e-4, 1.0, 19.9, 20.1, 300.0])
    x = torch.cat([x, torch.linspace(-12, 25, 999)])
    assert torch.allclose(mish(x), functional.mish(x), rtol=2e-6, atol=1e-7)


def test_mish_gradient_is_torchs_and_that_of_differences():
    x = torch.linspace(-12, 25, 999, requires_grad=True)
    ours = torch.autograd.grad(mish(x).sum(), x)[0]
    theirs = torch.autograd.grad(functional.mish(x).sum(), x)[0]
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    wide = torch.randn(40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mish, (wide,))


def test_time_embedding_tells_levels_apart_and_starts_at_frequency_one():
    settings = NetworkSettings(time_features=4)
    assert settings.frequencies == (1.0, 1e-4)
    net = Denoiser(1, 1, SMALL)
    low, high = (net.time(torch.tensor([[label]])) for label in (-1500.0, 1000.0))
    assert low.shape == (1, 16)
    assert not torch.allclose(low, high, atol=1e-3)


def test_denoiser_is_the_declared_mlp():
    torch.manual_seed(0)
    net = Denoiser(2, 3, SMALL)
    x, label, s = torch.randn(5, 2), torch.randn(5, 1), torch.randn(5, 3)
    h = torch.cat([x, net.time(label), s], 1)
    for layer in net.layers:
        h = functional.mish(h @ layer.weight.T + layer.bias)
    assert torch.allclose(net(x, label, s), h @ net.head.weight.T + net.head.bias, atol=1e-6)


def test_dropout_acts_in_training_only():
    net = Denoiser(2, 3, NetworkSettings(hidden=(64,), dropout=0.5))
    inputs = torch.randn(5, 2), torch.randn(5, 1), torch.randn(5, 3)
    assert not torch.equal(net.train()(*inputs), net(*inputs))
    assert torch.equal(net.eval()(*inputs), net(*inputs))


def test_twin_critics_are_two_independent_networks():
    torch.manual_seed(0)
    critic = TwinCritic(2, 3, SMALL)
    s, a = torch.randn(7, 3), torch.randn(7, 2)
    both = critic(s, a)
    assert both.shape == (2, 7)
    for twin in range(2):
        h = torch.cat([s, a], 1)
        for i in range(2):
            h = functional.mish(h @ critic.weights[i][twin] + critic.biases[i][twin])
        alone = (h @ critic.weights[2][twin] + critic.biases[2][twin])[:, 0]
        assert torch.allclose(both[twin], alone, atol=1e-6)
    with torch.no_grad():
        critic.weights[0][0] += 1.0
    moved = critic(s, a)
    assert not torch.allclose(moved[0], both[0])
    assert torch.equal(moved[1], both[1])
