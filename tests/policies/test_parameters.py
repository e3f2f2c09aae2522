"""The vector of weights: what it begins with, gradients, clipping, averaging, arrays."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import BundleError
from policies.model import CriticSettings
from policies.nets import Critics
from policies.parameters import Parameters

SHAPES = {
    "enter.weight": (64, 100),
    "enter.bias": (64,),
    "blocks.0.norm.weight": (64,),
    "blocks.0.norm.bias": (64,),
    "head.weight": (3, 64),
    "head.bias": (3,),
    "alone.bias": (5,),
}


def drawn(seeds, stream=0, shapes=SHAPES):
    made = Parameters(shapes, len(seeds))
    made.initialise(seeds, stream)
    return made


def test_views_share_one_vector():
    made = drawn([0, 1])
    assert made.flat.numel() == 2 * sum(math.prod(shape) for shape in SHAPES.values())
    made.flat.fill_(2.0)
    for name, shape in SHAPES.items():
        assert made.arrays[name].shape == (2, *shape)
        assert (made.arrays[name] == 2.0).all()
        assert (made.fixed[name] == 2.0).all()
        assert made.arrays[name].requires_grad
        assert not made.fixed[name].requires_grad


@pytest.mark.parametrize(("layer", "inputs"), [("enter", 100), ("head", 64)])
def test_layers_begin_evenly_within_one_over_root_of_inputs(layer, inputs):
    bound = inputs**-0.5
    arrays = drawn(range(200)).fixed
    for name in (f"{layer}.weight", f"{layer}.bias"):
        assert arrays[name].abs().max() <= bound
        assert arrays[name].abs().max() > 0.98 * bound
        # Even on [-b, b]: mean 0, variance b^2 / 3, fourth moment b^4 / 5; within 4 errors.
        error = 4 / arrays[name].numel() ** 0.5
        assert float(arrays[name].mean()) == pytest.approx(0.0, abs=error * bound / 3**0.5)
        assert float(arrays[name].var()) == pytest.approx(bound**2 / 3, rel=error * 0.8**0.5)


def test_norms_begin_as_the_identity_and_lone_biases_at_zero():
    arrays = drawn([3]).fixed
    assert (arrays["blocks.0.norm.weight"] == 1.0).all()
    assert (arrays["blocks.0.norm.bias"] == 0.0).all()
    assert (arrays["alone.bias"] == 0.0).all()


def test_a_runs_weights_come_from_its_seed_and_stream_alone():
    both = drawn([3, 8])
    for run, seed in enumerate((3, 8)):
        alone = drawn([seed]).to_arrays()
        for name, array in both.to_arrays(run).items():
            assert np.array_equal(array, alone[name])
    name = "enter.weight"
    others = [drawn([3], 1), drawn([4])]
    for other in others:
        assert not np.array_equal(both.to_arrays()[name], other.to_arrays()[name])
    assert not np.array_equal(*(other.to_arrays()[name] for other in others))


def test_critics_of_an_ensemble_begin_differently():
    weight = drawn([0], 1, Critics(2, 3, CriticSettings(hidden=(8,))).shapes).fixed[
        "layers.0.weight"
    ]
    assert weight.shape == (1, 2, 8, 5)
    assert not torch.equal(weight[0, 0], weight[0, 1])
    assert weight.abs().max() <= 5**-0.5


def test_gradient_of_a_known_function():
    # d/dw sum_r c_r (w_r . w_r) / 2 = c_r w_r.
    made, scale = drawn([0, 1]), torch.tensor([1.0, 10.0])
    squares = [array.flatten(1).square().sum(1) for array in made.arrays.values()]
    made.descend((scale * torch.stack(squares).sum(0) / 2).sum())
    for name, view in made.fixed.items():
        expected = scale.view(-1, *[1] * (view.dim() - 1)) * view
        torch.testing.assert_close(made.grads[name], expected)
    made.descend(sum(array.sum() for array in made.arrays.values()))
    assert (made.grad == 1.0).all()


@given(st.integers(1, 3), st.floats(0.01, 100.0), st.integers(0, 10))
def test_clipping_is_torchs_for_each_run(runs, limit, seed):
    made = Parameters({"a": (3, 2), "b": (4,)}, runs)
    made.grad.copy_(torch.randn(10 * runs, generator=torch.Generator().manual_seed(seed)))
    before = [{name: view[r].clone() for name, view in made.grads.items()} for r in range(runs)]
    norms = made.clip(limit)
    for run, gradients in enumerate(before):
        theirs = [torch.nn.Parameter(torch.zeros_like(each)) for each in gradients.values()]
        for parameter, gradient in zip(theirs, gradients.values(), strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(theirs, limit)
        assert float(norms[run]) == pytest.approx(float(norm), rel=1e-5)
        for view, parameter in zip(made.grads.values(), theirs, strict=True):
            torch.testing.assert_close(view[run], parameter.grad)


@pytest.mark.parametrize("runs", [1, 2])
def test_without_a_limit_norms_are_told_and_nothing_scaled(runs):
    made = Parameters({"a": (4,)}, runs)
    made.grad.fill_(100.0)
    assert made.clip(None).tolist() == [200.0] * runs
    assert (made.grad == 100.0).all()


@pytest.mark.parametrize("share", [0.25, torch.tensor(0.25)])
def test_follow_by_hand(share):
    slow, fast = (Parameters({"w": (3,)}, 2) for _ in range(2))
    slow.flat.fill_(1.0)
    fast.flat.fill_(5.0)
    slow.follow(fast, share)
    assert slow.flat.tolist() == [2.0] * 6
    assert fast.flat.tolist() == [5.0] * 6


def test_a_copy_goes_its_own_way():
    made = drawn([0, 1])
    copy = made.copy()
    assert torch.equal(copy.flat, made.flat)
    copy.fixed["head.bias"].add_(1.0)
    assert not torch.equal(copy.flat, made.flat)


def test_arrays_go_out_and_come_back():
    made, other = drawn([0, 1]), drawn([2, 3])
    kept = other.to_arrays(0)
    other.load_arrays(made.to_arrays(1), 1)
    for name, array in made.to_arrays(1).items():
        assert array.dtype == np.float32
        assert np.array_equal(other.to_arrays(1)[name], array)
        assert np.array_equal(other.to_arrays(0)[name], kept[name])
    made.to_arrays(0)["head.bias"][:] = 9.0
    assert not (made.fixed["head.bias"] == 9.0).any()


def test_wrong_arrays_are_named():
    made = drawn([0])
    arrays = made.to_arrays()
    without = {name: array for name, array in arrays.items() if name != "head.bias"}
    with pytest.raises(BundleError, match=r"array head\.bias: nothing, expected \[3\]"):
        made.load_arrays(without)
    with pytest.raises(BundleError, match=r"array head\.bias: \[4\], expected \[3\]"):
        made.load_arrays(arrays | {"head.bias": np.zeros(4, np.float32)})
    with pytest.raises(BundleError, match=r"array spare: this network has none of that name"):
        made.load_arrays(arrays | {"spare": np.zeros(1, np.float32)})
