"""The policy's network by hand in numpy: what one observation needs and nothing more.

Everything that does not depend on the observation or the noise is folded into weights and
biases when a bundle is loaded: the time embedding, c_in, c_out. Matrices are stored (out, in),
so that a product is one dot product per output and its bits do not depend on how many BLAS
threads share the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from controller.types import Array
from policies.diffusion.precond import Precondition
from policies.settings import NetworkSettings, PreconditionSettings

Float32 = NDArray[np.float32]

SATURATION = np.float32(20.0)
TWO = np.float32(2.0)


@dataclass(frozen=True)
class _Level:
    """One network evaluation: sigma and the arrays that depend on it."""

    renoise: np.float32
    skip: np.float32
    first: Float32
    bias: Float32
    head: Float32
    head_bias: Float32


class NumpySampler:
    """Draws encoded actions for one encoded observation. Not for two threads at once.

    Args:
        weights: arrays of a ``policies.nets.Denoiser``.
        network: its shape.
        noise: noise levels and preconditioning.
        levels: falling noise levels of the sampler.
        temperature: factor on the noise that sampling starts from.
    """

    def __init__(
        self,
        weights: dict[str, Array],
        network: NetworkSettings,
        noise: PreconditionSettings,
        levels: Sequence[float],
        temperature: float = 1.0,
    ) -> None:
        arrays = {name: cast("Float32", array) for name, array in weights.items()}
        depth = len(network.hidden)
        self._levels = [
            _fold(arrays, network, noise, sigma, temperature if index == 0 else None)
            for index, sigma in enumerate(levels)
        ]
        self._hidden = [
            (arrays[f"layers.{i}.weight"], arrays[f"layers.{i}.bias"]) for i in range(1, depth)
        ]
        self._action_size = arrays["head.bias"].size
        self._buffers = [np.empty(width, np.float32) for width in network.hidden]
        self._input = np.empty(self._levels[0].first.shape[1], np.float32)

    def __call__(self, condition: Float32, noises: Float32) -> Float32:
        """Return (1, A) from the (1, d) condition and (K, A) noise of K levels."""
        size = self._action_size
        self._input[size:] = condition[0]
        x: Float32 = np.zeros(size, np.float32)
        for level, noise in zip(self._levels, noises, strict=True):
            x = x + level.renoise * noise
            self._input[:size] = x
            x = level.skip * x + self._network(level)
        return x[None]

    def _network(self, level: _Level) -> Float32:
        h = self._buffers[0]
        np.dot(level.first, self._input, out=h)
        h += level.bias
        _mish(h)
        for (weight, bias), out in zip(self._hidden, self._buffers[1:], strict=True):
            h = np.dot(weight, h, out=out)
            h += bias
            _mish(h)
        out = np.dot(level.head, h)
        return cast("Float32", out + level.head_bias)


def _fold(
    arrays: dict[str, Float32],
    network: NetworkSettings,
    noise: PreconditionSettings,
    sigma: float,
    start_temperature: float | None,
) -> _Level:
    """Fold level ``sigma``; with ``start_temperature`` it is the one sampling starts at."""
    precondition = Precondition.of(noise)
    size = arrays["head.bias"].size
    first, features = arrays["layers.0.weight"], network.time_features
    into_x, into_time, into_s = np.split(first, [size, size + features], axis=1)
    time = _time_embedding(arrays, network, precondition.c_noise(sigma))
    if start_temperature is None:
        renoise = (sigma**2 - noise.sigma_min**2) ** 0.5
    else:
        renoise = sigma * start_temperature
    out = np.float32(precondition.c_out(sigma))
    scaled = np.float32(precondition.c_in(sigma)) * into_x
    return _Level(
        renoise=np.float32(renoise),
        skip=np.float32(precondition.c_skip(sigma)),
        first=np.ascontiguousarray(np.concatenate([scaled, into_s], axis=1)),
        bias=arrays["layers.0.bias"] + into_time @ time,
        head=out * arrays["head.weight"],
        head_bias=out * arrays["head.bias"],
    )


def _time_embedding(arrays: dict[str, Float32], network: NetworkSettings, label: float) -> Float32:
    angle = np.float32(label) * np.array(network.frequencies, np.float32)
    waves = np.concatenate([np.sin(angle), np.cos(angle)])
    h = arrays["time.expand.weight"] @ waves + arrays["time.expand.bias"]
    _mish(h)
    return cast("Float32", arrays["time.contract.weight"] @ h + arrays["time.contract.bias"])


def _mish(h: Float32) -> None:
    """Apply Mish in place: h n / (n + 2) with e = exp(h), n = e (e + 2)."""
    e = np.exp(np.minimum(h, SATURATION))
    n = e * (e + TWO)
    h *= n
    n += TWO
    h /= n
