"""The policy's network in torch: the reference, and the way to a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from controller.ranges import Device
from controller.types import Array
from policies.diffusion.precond import Precondition
from policies.diffusion.sampler import multi_step
from policies.errors import BundleError
from policies.nets import Denoiser
from policies.settings import NetworkSettings, PreconditionSettings

Float32 = NDArray[np.float32]


class TorchSampler:
    """Draws encoded actions for a batch of encoded observations.

    Args:
        weights: arrays of a ``policies.nets.Denoiser``.
        network: its shape.
        noise: noise levels and preconditioning.
        levels: falling noise levels of the sampler.
        temperature: factor on the noise that sampling starts from.
        device: cpu or cuda.

    Raises:
        BundleError: ``device`` is not there.
    """

    def __init__(
        self,
        weights: dict[str, Array],
        network: NetworkSettings,
        noise: PreconditionSettings,
        levels: Sequence[float],
        temperature: float = 1.0,
        device: Device = "cpu",
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise BundleError("device is cuda, but torch finds no GPU here; valid now: cpu")
        self._device = torch.device(device)
        self._precondition = Precondition.of(noise)
        self._levels, self._temperature = levels, temperature
        actions = weights["head.bias"].size
        conditions = weights["layers.0.weight"].shape[1] - actions - network.time_features
        self._net = Denoiser(actions, conditions, network)
        self._net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        self._net.eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, condition: Float32, noises: Float32) -> Float32:
        """Return (B, A) from (B, d) conditions and (K, A) or (K, B, A) noise of K levels."""
        s = torch.from_numpy(condition).to(self._device)
        z = torch.from_numpy(noises).to(self._device)

        def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
            pre = self._precondition
            label = torch.full((len(s), 1), pre.c_noise(sigma), device=self._device)
            inner = self._net((pre.c_in(sigma) * x).expand(len(s), -1), label, s)
            clean: torch.Tensor = pre.c_skip(sigma) * x + pre.c_out(sigma) * inner
            return clean

        first = self._temperature * z[0]
        x = multi_step(denoise, [first, *z[1:]], self._levels, self._precondition.sigma_min)
        out: Float32 = x.cpu().numpy()
        return out
