"""Small networks side by side, forward and backward by hand, for learning on one core.

At 256 x 256 units and 256 rows the bookkeeping of automatic differentiation and of an optimiser
over many small tensors costs as much as a third of the arithmetic. Here the weights of all
networks are one vector, so that Adam and averaging are one pass each, and a gradient is computed
only where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

Layers = tuple[list[Tensor], list[Tensor]]


class Stack:
    """K multilayer perceptrons with ReLU units that look at the same input.

    Args:
        widths: of the input, each hidden layer and the output.
        count: K.
        device: where the arrays live.

    Attributes:
        flat: every weight and bias in one vector; ``flat.grad`` is where gradients go.
        weights: views of it, (K, in, out) per layer.
        biases: views of it, (K, 1, out) per layer.
    """

    def __init__(
        self, widths: Sequence[int], count: int, device: torch.device | str = "cpu"
    ) -> None:
        self.widths, self.count = tuple(widths), count
        size = sum(count * (a + 1) * b for a, b in pairwise(self.widths))
        self.flat = torch.zeros(size, device=device)
        self.flat.grad = torch.zeros(size, device=device)
        self.weights, self.biases = self.views(self.flat)
        self._weight_grads, self._bias_grads = self.views(self.flat.grad)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights and biases evenly from ±1/√inputs."""
        for pair in zip(self.weights, self.biases, strict=True):
            bound = 1.0 / math.sqrt(pair[0].shape[1])
            for array in pair:
                array.uniform_(-bound, bound, generator=generator)

    def views(self, flat: Tensor) -> Layers:
        """Return weights and biases as views of a vector like ``flat``."""
        weights, biases, start = [], [], 0
        for a, b in pairwise(self.widths):
            middle, end = start + self.count * a * b, start + self.count * (a + 1) * b
            weights.append(flat[start:middle].view(self.count, a, b))
            biases.append(flat[middle:end].view(self.count, 1, b))
            start = end
        return weights, biases

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Return what every layer takes, (K, B, width) each, and last the output (K, B, out).

        Args:
            inputs: (B, in).
        """
        h = inputs.expand(self.count, -1, -1)
        passed = [h]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = torch.bmm(h, weight).add_(bias)
            if len(passed) < len(self.weights):
                h.clamp_min_(0.0)
            passed.append(h)
        return passed

    def backward(self, passed: list[Tensor], grad: Tensor) -> None:
        """Write the gradient of the weights to ``flat.grad``.

        Args:
            passed: from :meth:`forward`.
            grad: (K, B, out) gradient of the output.
        """
        for index in reversed(range(len(self.weights))):
            torch.bmm(passed[index].mT, grad, out=self._weight_grads[index])
            torch.sum(grad, 1, keepdim=True, out=self._bias_grads[index])
            if index:
                grad = self._below(passed, grad, index)

    def input_gradient(self, passed: list[Tensor], grad: Tensor, first: int) -> Tensor:
        """Return (B, in - first), the gradient of the inputs from number ``first`` on."""
        for index in reversed(range(1, len(self.weights))):
            grad = self._below(passed, grad, index)
        return torch.bmm(grad, self.weights[0][:, first:].mT).sum(0)

    def _below(self, passed: list[Tensor], grad: Tensor, index: int) -> Tensor:
        """Return the gradient before the ReLU that feeds layer ``index``."""
        grad = torch.bmm(grad, self.weights[index].mT)
        relu: Tensor = torch.ops.aten.threshold_backward.grad_input(
            grad, passed[index], 0.0, grad_input=grad
        )
        return relu
