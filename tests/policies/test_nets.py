"""Networks against torch's own modules with the same weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from policies.model import CriticSettings, NetworkSettings
from policies.nets import Critics, Denoiser, Heads, layer_norm, linear, mish
from policies.parameters import Parameters
from tests.benchmarks.plain.match import tensors
from tests.benchmarks.plain.networks import PolicyMLP, PolicyResNet, QNetwork

A, D, ROWS, SEEDS = 3, 4, 7, (0, 5)
SMALL = (8, 8)
LN = NetworkSettings(kind="ln_resnet", hidden=(8, 8, 8))


def drawn(shapes, seeds=SEEDS):
    made = Parameters(shapes, len(seeds))
    made.initialise(seeds)
    # Norms and lone biases too, or a forgotten one would not be seen.
    made.flat.add_(0.1 * torch.randn(made.flat.shape, generator=torch.Generator().manual_seed(9)))
    return made


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_mish_is_torchs_mish_also_far_out():
    x = torch.tensor([-200.0, -30.0, -5.0, -1e-4, 0.0, 1e-4, 1.0, 19.9, 20.1, 300.0])
    x = torch.cat([x, torch.linspace(-12, 25, 999)])
    assert torch.allclose(mish(x), functional.mish(x), rtol=2e-6, atol=1e-7)


def test_mish_gradient_is_torchs_and_that_of_differences():
    x = torch.linspace(-12, 25, 999, requires_grad=True)
    ours = torch.autograd.grad(mish(x).sum(), x)[0]
    theirs = torch.autograd.grad(functional.mish(x).sum(), x)[0]
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    wide = torch.linspace(-6, 6, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mish, (wide,))


def test_mish_gradient_far_out():
    # Towards minus infinity it is x exp(x), whose slope is (1 + x) exp(x).
    x = torch.tensor([-300.0, -60.0, 30.0, 300.0], requires_grad=True)
    slopes = torch.autograd.grad(mish(x).sum(), x)[0].tolist()
    assert slopes == pytest.approx([0.0, -59.0 * 8.756511e-27, 1.0, 1.0], rel=1e-5)


def plain(settings):
    if settings.kind == "ln_resnet":
        return PolicyResNet(D, A, settings.hidden[0], len(settings.hidden), settings.dropout)
    return PolicyMLP(D, A, settings.hidden, settings.time_features, settings.time_hidden)


@pytest.mark.parametrize(
    "settings",
    [NetworkSettings(hidden=SMALL), NetworkSettings(hidden=(8, 6), time_features=6), LN],
)
def test_denoiser_is_torchs(settings):
    net = Denoiser(A, D, settings)
    weights = drawn(net.shapes)
    x, label, condition = normal(2, ROWS, A), 10 * normal(2, ROWS, 1), normal(2, ROWS, D)
    ours = net(weights.arrays, x, label, condition)
    for run in range(2):
        module = plain(settings)
        module.load_state_dict(tensors(weights.to_arrays(run)))
        theirs = module(x[run], label[run, :, 0], condition[run])
        torch.testing.assert_close(ours[run], theirs, rtol=1e-4, atol=1e-5)
        gradients = torch.autograd.grad(theirs.square().sum(), list(module.parameters()))
        own = torch.autograd.grad(
            ours[run].square().sum(), list(weights.arrays.values()), retain_graph=True
        )
        named = dict(zip(weights.arrays, own, strict=True))
        for (name, _), gradient in zip(module.named_parameters(), gradients, strict=True):
            torch.testing.assert_close(named[name][run], gradient, rtol=1e-3, atol=1e-4)
            assert not named[name][1 - run].any()


def test_one_label_for_all_rows_is_that_label_for_each():
    net = Denoiser(A, D, NetworkSettings(hidden=SMALL))
    weights = drawn(net.shapes)
    x, condition = normal(2, ROWS, A), normal(2, ROWS, D, seed=1)
    one = net(weights.fixed, x, torch.full((1, 1, 1), 2.0), condition)
    each = net(weights.fixed, x, torch.full((2, ROWS, 1), 2.0), condition)
    torch.testing.assert_close(one, each)


def test_time_frequencies_fall_from_one():
    assert NetworkSettings(time_features=4).frequencies == (1.0, 1e-4)
    assert NetworkSettings().frequencies == pytest.approx([10 ** (-4 * i / 7) for i in range(8)])


@pytest.mark.parametrize("settings", [NetworkSettings(hidden=(64,), dropout=0.5), LN])
def test_dropout_acts_in_training_only(settings):
    settings = NetworkSettings(kind=settings.kind, hidden=settings.hidden, dropout=0.5)
    net = Denoiser(A, D, settings)
    weights = drawn(net.shapes).fixed
    inputs = normal(2, ROWS, A), normal(2, ROWS, 1), normal(2, ROWS, D)
    assert torch.equal(net(weights, *inputs), net(weights, *inputs))
    net.training = True
    assert not torch.equal(net(weights, *inputs), net(weights, *inputs))


def test_dropout_keeps_the_mean():
    # With one linear hidden layer: the mean over masks is the output without any.
    settings = NetworkSettings(hidden=(64,), activation="relu", dropout=0.25)
    net = Denoiser(A, D, settings)
    weights = drawn(net.shapes, (0,)).fixed
    inputs = (each[:, :1].expand(-1, 50_000, -1) for each in (normal(1, 1, A), normal(1, 1, 1)))
    x, label = inputs
    condition = normal(1, 1, D).expand(-1, 50_000, -1)
    sure = net(weights, x, label, condition)[0, 0]
    net.training = True
    mean = net(weights, x, label, condition)[0].mean(0)
    torch.testing.assert_close(mean, sure, atol=0.01, rtol=0.0)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_critics_are_torchs_one_by_one(count, layer_norm):
    nets = Critics(A, D, CriticSettings(count=count, hidden=SMALL, layer_norm=layer_norm))
    weights = drawn(nets.shapes)
    condition, action = normal(2, ROWS, D), normal(2, ROWS, A)
    together = nets(weights.fixed, condition, action)
    assert together.shape == (2, count, ROWS)
    for run in range(2):
        for k in range(count):
            module = QNetwork(D, A, SMALL, layer_norm)
            module.load_state_dict(tensors(weights.to_arrays(run), k))
            theirs = module(condition[run], action[run])[:, 0]
            torch.testing.assert_close(together[run, k], theirs, rtol=1e-4, atol=1e-5)
            alone = nets(weights.fixed, condition, action, only=k)
            torch.testing.assert_close(alone[run, 0], together[run, k])


@pytest.mark.parametrize("spread", ["none", "state", "free"])
def test_heads_are_a_relu_mlp(spread):
    nets = Heads(D, A, SMALL, spread)
    weights, condition = drawn(nets.shapes), normal(2, ROWS, D)
    mean, log_std = nets(weights.fixed, condition)
    for run in range(2):
        arrays = tensors(weights.to_arrays(run))
        h = condition[run]
        for name in ("fc0", "fc1"):
            h = functional.linear(h, arrays[f"{name}.weight"], arrays[f"{name}.bias"]).relu()
        head = functional.linear(h, arrays["last_fc.weight"], arrays["last_fc.bias"])
        torch.testing.assert_close(mean[run], head)
        if spread == "none":
            assert log_std is None
        elif spread == "free":
            assert log_std.shape == (2, 1, A)
            torch.testing.assert_close(log_std[run, 0], arrays["last_fc_log_std.bias"])
        else:
            name = "last_fc_log_std"
            wanted = functional.linear(h, arrays[f"{name}.weight"], arrays[f"{name}.bias"])
            torch.testing.assert_close(log_std[run], wanted)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
def test_linear_and_layer_norm_of_each_run(runs, rows, width):
    x = normal(runs, rows, width)
    views = {
        "l.weight": normal(runs, 4, width, seed=1),
        "l.bias": normal(runs, 4, seed=2),
        "n.weight": normal(runs, width, seed=3),
        "n.bias": normal(runs, width, seed=4),
    }
    for run in range(runs):
        weight, bias = views["l.weight"][run], views["l.bias"][run]
        torch.testing.assert_close(linear(views, "l", x)[run], x[run] @ weight.T + bias)
        norm = nn.LayerNorm(width)
        norm.load_state_dict({"weight": views["n.weight"][run], "bias": views["n.bias"][run]})
        torch.testing.assert_close(layer_norm(views, "n", x)[run], norm(x[run]).detach())
