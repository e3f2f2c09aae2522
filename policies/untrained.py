"""Bundles of networks that nobody trained: they cost what trained ones cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controller.spec import ArraySpec, Spec
from policies.bundle import save_bundle
from policies.codec import of_limits
from policies.engine_shapes import policy_shapes
from policies.golden import golden
from policies.manifest import Arrays, Draft
from policies.model import ChainSettings, ConsistencyModel, DiffusionModel, SamplerSettings

OBSERVATION, ACTION = 17, 6
"""Sizes of HalfCheetah, Hopper's and Walker's elder sibling in the benchmarks."""
GOLDEN = 16


def untrained_robot(rate_hz: float = 200.0) -> Spec:
    """Return a robot that observes 17 numbers and moves 6 joints."""
    return Spec(
        task="untrained",
        observation=(ArraySpec("state", (OBSERVATION,)),),
        action=ArraySpec("torque", (ACTION,), "float32", "", (-1.0,) * ACTION, (1.0,) * ACTION),
        rate_hz=rate_hz,
    )


def untrained_bundle(out: Path, kind: str, steps: int, seed: int = 0) -> Path:
    """Write a bundle of random weights and return its directory.

    Args:
        out: directory that receives it.
        kind: consistency or diffusion; 3 hidden layers of 256 units.
        steps: network evaluations of an action.
        seed: of the weights.
    """
    spec = untrained_robot()
    consistency = kind == "consistency"
    draft = Draft(
        algorithm="untrained",
        spec=spec,
        model=ConsistencyModel() if consistency else DiffusionModel(chain=ChainSettings(steps)),
        sampler=SamplerSettings(steps=steps if consistency else None),
        codec=of_limits(spec),
        data=(),
        training={},
    )
    weights = _drawn(policy_shapes(draft.model, OBSERVATION, ACTION), seed)
    seen = np.random.default_rng(seed + 1).standard_normal((GOLDEN, OBSERVATION))
    return save_bundle(out, draft, weights, golden(draft, weights, seen), {})


def _drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Arrays:
    """Return arrays as layers begin: even within 1 / sqrt(inputs)."""
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    for name, shape in shapes.items():
        inputs = shape[-1] if len(shape) > 1 else shapes[name.replace(".bias", ".weight")][-1]
        limit = 1.0 / np.sqrt(inputs)
        made[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
    return made
