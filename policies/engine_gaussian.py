"""Tanh-Gaussian policies, as soft actor-critic learns them: a = tanh(μ(s) + T σ(s) n).

Arrays are named as in a behaviour file (``policies.behaviour_file``). T is the temperature of
the sampler: 1 draws from the policy, 0 gives tanh μ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from controller.ranges import Device
from controller.types import Array
from policies.errors import BundleError

Float32 = NDArray[np.float32]

ALGORITHM = "sac"
"""Name of the algorithm in the manifest of such a policy."""
MEAN, LOG_STD = "last_fc", "last_fc_log_std"
LOG_STD_MIN, LOG_STD_MAX = np.float32(-20.0), np.float32(2.0)


class NumpyGaussian:
    """Draws encoded actions for one encoded observation. Not for two threads at once.

    Args:
        weights: arrays of the policy, matrices (out, in).
        depth: hidden layers.
        temperature: T.
    """

    def __init__(self, weights: dict[str, Array], depth: int, temperature: float = 1.0) -> None:
        arrays = {name: cast("Float32", array) for name, array in weights.items()}
        names = [f"fc{index}" for index in range(depth)]
        self._hidden = [(arrays[f"{name}.weight"], arrays[f"{name}.bias"]) for name in names]
        self._buffers = [np.empty(bias.size, np.float32) for _, bias in self._hidden]
        self._head = np.concatenate([arrays[f"{name}.weight"] for name in (MEAN, LOG_STD)])
        self._bias = np.concatenate([arrays[f"{name}.bias"] for name in (MEAN, LOG_STD)])
        self._size = len(self._bias) // 2
        self._temperature = np.float32(temperature)

    def __call__(self, condition: Float32, noises: Float32) -> Float32:
        """Return (1, A) from the (1, d) condition and (1, A) noise."""
        h = condition[0]
        for (weight, bias), out in zip(self._hidden, self._buffers, strict=True):
            h = np.dot(weight, h, out=out)
            h += bias
            np.maximum(h, 0, out=h)
        heads = self._head @ h
        heads += self._bias
        u = heads[: self._size]
        if self._temperature:
            log_std = np.clip(heads[self._size :], LOG_STD_MIN, LOG_STD_MAX)
            u += self._temperature * np.exp(log_std) * noises[0]
        return cast("Float32", np.tanh(u)[None])


def torch_gaussian(
    weights: dict[str, Array], depth: int, temperature: float, device: Device
) -> Callable[[Float32, Float32], Float32]:
    """Return the same in torch, from (B, d) conditions and (1, A) or (1, B, A) noise.

    Raises:
        BundleError: ``device`` is not there.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BundleError("device is cuda, but torch finds no GPU here; valid now: cpu")
    arrays = {name: torch.from_numpy(array.copy()).to(device) for name, array in weights.items()}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"])

    @torch.inference_mode()
    def draw(condition: Float32, noises: Float32) -> Float32:
        h = torch.from_numpy(condition).to(device)
        for index in range(depth):
            h = linear(f"fc{index}", h).relu_()
        std = linear(LOG_STD, h).clamp_(float(LOG_STD_MIN), float(LOG_STD_MAX)).exp_()
        noise = torch.from_numpy(noises[0]).to(device)
        action: Float32 = (linear(MEAN, h) + temperature * std * noise).tanh().cpu().numpy()
        return action

    return draw
