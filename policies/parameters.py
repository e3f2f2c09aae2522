"""The weights of one network, of several runs side by side, in one vector.

Every array has the runs as its first dimension, so that R runs with R seeds are trained by the
same operations as one: a product becomes a batched product. Adam, averaging and clipping pass
once over the vector instead of once over each array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from policies.errors import BundleError
from policies.manifest import Arrays

Shape = tuple[int, ...]


class Parameters:
    """Named arrays of R runs.

    Args:
        shapes: shape of each array in one run, by name.
        runs: R.
        device: where they live.

    Attributes:
        flat: (n,) all arrays, one after the other.
        arrays: name to a view (R, *shape) that automatic differentiation follows.
        fixed: the same views, which it does not follow.
        grad: (n,) like ``flat``.
        grads: name to a view of ``grad``.
    """

    def __init__(
        self, shapes: Mapping[str, Shape], runs: int, device: torch.device | str = "cpu"
    ) -> None:
        self.shapes, self.runs = dict(shapes), runs
        size = runs * sum(math.prod(shape) for shape in self.shapes.values())
        self.flat = torch.zeros(size, device=device)
        self.grad = torch.zeros(size, device=device)
        self.fixed = self._views(self.flat)
        self.grads = self._views(self.grad)
        self.arrays = {name: view.detach().requires_grad_() for name, view in self.fixed.items()}

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        views, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + self.runs * math.prod(shape)
            views[name] = flat[start:end].view(self.runs, *shape)
            start = end
        return views

    def initialise(self, seeds: Sequence[int], stream: int = 0) -> None:
        """Draw weights and biases of each linear layer evenly from +-1/sqrt(inputs).

        Norms begin as the identity, biases on their own as 0. A run's arrays depend on its own
        seed and on the stream alone.

        Args:
            seeds: one of each run.
            stream: tells networks of the same run apart.
        """
        for run, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed((seed << 8) + stream)
            for name, view in self.fixed.items():
                layer, _, kind = name.rpartition(".")
                if "norm" in layer or f"{layer}.weight" not in self.shapes:
                    view[run].fill_(1.0 if kind == "weight" else 0.0)
                    continue
                inputs = self.shapes[f"{layer}.weight"][-1]
                drawn = torch.empty(self.shapes[name]).uniform_(-1.0, 1.0, generator=generator)
                view[run].copy_(drawn / math.sqrt(inputs))

    def descend(self, loss: Tensor) -> None:
        """Put the gradient of ``loss`` into ``grad``."""
        found = torch.autograd.grad(loss, list(self.arrays.values()))
        torch._foreach_copy_(list(self.grads.values()), list(found))

    def clip(self, limit: float | None) -> Tensor:
        """Scale each run's gradient to a norm of at most ``limit``; return the norms (R,)."""
        if self.runs == 1:
            norm: Tensor = self.grad.norm()[None]
        else:
            parts = [g.flatten(1).square().sum(1) for g in self.grads.values()]
            norm = torch.stack(parts).sum(0).sqrt()
        if limit is None:
            return norm
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        if self.runs == 1:
            self.grad.mul_(scale)
        else:
            for view in self.grads.values():
                view.mul_(scale.view(-1, *[1] * (view.dim() - 1)))
        return norm

    @torch.no_grad()
    def follow(self, other: Parameters, share: Tensor | float) -> None:
        """Move towards ``other``: self <- (1 - share) self + share other."""
        if isinstance(share, float):
            self.flat.lerp_(other.flat, share)
        else:
            self.flat.add_((other.flat - self.flat) * share)

    def copy(self) -> Parameters:
        """Return parameters of the same values that go their own way."""
        made = Parameters(self.shapes, self.runs, self.flat.device)
        made.flat.copy_(self.flat)
        return made

    def to_arrays(self, run: int = 0) -> Arrays:
        """Return the arrays of one run."""
        return {name: view[run].cpu().numpy().copy() for name, view in self.fixed.items()}

    def load_arrays(self, arrays: Arrays, run: int = 0) -> None:
        """Put the arrays of one run back.

        Raises:
            BundleError: a name or a shape is another.
        """
        for name, view in self.fixed.items():
            found = arrays.get(name)
            if found is None or found.shape != self.shapes[name]:
                got = "nothing" if found is None else list(found.shape)
                raise BundleError(f"array {name}: {got}, expected {list(self.shapes[name])}")
            view[run].copy_(torch.from_numpy(np.array(found)))
        unknown = arrays.keys() - self.fixed.keys()
        if unknown:
            raise BundleError(f"array {min(unknown)}: this network has none of that name")
