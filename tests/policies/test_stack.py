"""Networks side by side: the same as torch's own layers, gradients included."""

import pytest
import torch
from torch import nn

from policies.stack import Stack


def made(widths=(3, 5, 4, 2), count=2):
    stack = Stack(widths, count)
    stack.initialise(torch.Generator().manual_seed(1))
    return stack


def reference(stack, k, inputs):
    """Evaluate network k with torch's functions, gradients recorded."""
    h = inputs
    for index, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
        h = nn.functional.linear(h, weight[k].T, bias[k, 0])
        if index < len(stack.weights) - 1:
            h = h.relu()
    return h


@pytest.mark.parametrize("count", [1, 2])
def test_forward_is_that_of_separate_networks(count):
    stack, x = made(count=count), torch.randn(7, 3)
    out = stack.forward(x)[-1]
    assert out.shape == (count, 7, 2)
    for k in range(count):
        torch.testing.assert_close(out[k], reference(stack, k, x))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (3, 5, 4, 2)])
def test_gradients_are_those_of_automatic_differentiation(widths, count):
    stack, x = made(widths, count), torch.randn(7, 3, requires_grad=True)
    out_grad = torch.randn(count, 7, 2)
    flat = stack.flat.detach().clone().requires_grad_()
    twin = made(widths, count)
    twin.weights, twin.biases = twin.views(flat)
    loss = sum((reference(twin, k, x) * out_grad[k]).sum() for k in range(count))
    by_weights, by_inputs = torch.autograd.grad(loss, [flat, x])
    passed = stack.forward(x.detach())
    stack.backward(passed, out_grad.clone())
    torch.testing.assert_close(stack.flat.grad, by_weights)
    got = stack.input_gradient(passed, out_grad.clone(), 1)
    torch.testing.assert_close(got, by_inputs[:, 1:])


def test_backward_leaves_its_arguments_as_they_were():
    stack, x, grad = made(), torch.randn(7, 3), torch.randn(2, 7, 2)
    passed = stack.forward(x)
    before = [tensor.clone() for tensor in (*passed, grad)]
    stack.backward(passed, grad)
    stack.input_gradient(passed, grad, 0)
    for now, then in zip((*passed, grad), before, strict=True):
        assert torch.equal(now, then)


def test_initial_weights_keep_within_one_over_the_root_of_the_inputs():
    stack = made((16, 64, 1), 1)
    for array in (stack.weights[0], stack.biases[0]):
        assert array.abs().max() <= 0.25
    assert stack.weights[0].abs().max() > 0.24
    assert stack.weights[1].abs().max() <= 0.125
    assert torch.equal(stack.flat, made((16, 64, 1), 1).flat)
