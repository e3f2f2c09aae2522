"""A bundle as a policy for several observations at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.acting import AS_BUNDLED, ActSettings
from controller.ranges import Device, Engine
from controller.spec import Spec
from controller.types import Array
from policies.bundle import load_bundle
from policies.choice import Sampler
from policies.codec import Codec
from policies.make_sampler import make_sampler


class BatchPolicy:
    """Answers N observations in one go.

    Args:
        spec: the robot it was made for.
        version: of the policy.
        codec: normalisation and limits.
        sampler: draws actions.
        horizon: H, rows of an answer.
    """

    def __init__(
        self, spec: Spec, version: str, codec: Codec, sampler: Sampler, horizon: int = 1
    ) -> None:
        self.spec, self.version, self.codec, self.horizon = spec, version, codec, horizon
        self._sampler = sampler

    @property
    def evaluations(self) -> int:
        """Network evaluations behind an action."""
        return self._sampler.steps

    def act(self, observations: NDArray[np.floating[Any]], noise: np.random.Generator) -> Array:
        """Return chunks (N, H, *action shape) in plant units for observations (N, D).

        Args:
            observations: flat, in plant units.
            noise: source of all random numbers.
        """
        sampler, rows = self._sampler, len(observations)
        width = self.horizon * self.codec.action_size
        shape = (sampler.steps, rows * sampler.candidates, width)
        drawn = noise.standard_normal(shape, dtype=np.float32)
        uniform = noise.random(rows) if sampler.uniform else None
        encoded = sampler(self.codec.encode_observation(observations), drawn, uniform)
        return self.codec.decode_chunk(encoded)


def load_batch(
    path: Path | str,
    engine: Engine = "numpy",
    device: Device = "cpu",
    act: ActSettings = AS_BUNDLED,
) -> BatchPolicy:
    """Load a bundle, or the current one of a store.

    Raises:
        BundleError: the bundle is damaged, or cannot act as asked.
    """
    bundle = load_bundle(path)
    sampler = make_sampler(bundle.manifest, bundle.weights, bundle.critics(), engine, device, act)
    return BatchPolicy(bundle.spec, bundle.version, bundle.codec, sampler, bundle.manifest.horizon)
