"""Policies whose actions and values are known on paper.

The policy gives the same encoded action whatever it sees. Of K critics the k-th gives
``slope * e + k`` for the first element e of an encoded action, so that the least is
``slope * e``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from controller.spec import ArraySpec, Spec
from policies.bundle import load_bundle, save_bundle
from policies.codec import of_limits
from policies.golden import golden
from policies.manifest import CRITICS, Arrays, Draft
from policies.model import CriticSettings, DeterministicModel, SamplerSettings

SPEC = Spec(
    task="arm",
    observation=(ArraySpec("state", (3,)),),
    action=ArraySpec("force", (2,), "float32", "N", (-2.0, -2.0), (2.0, 2.0)),
    rate_hz=100.0,
)
CRITIC = CriticSettings(count=2, hidden=(2,), activation="relu")
SEEN = np.random.default_rng(0).standard_normal((300, 3))


def weights_of(*encoded: float) -> Arrays:
    """Return the arrays of a policy that gives this encoded action."""
    bias = np.arctanh(np.clip(encoded, -1 + 1e-12, 1 - 1e-12)).astype(np.float32)
    return {
        "fc0.weight": np.zeros((2, 3), np.float32),
        "fc0.bias": np.zeros(2, np.float32),
        "last_fc.weight": np.zeros((2, 2), np.float32),
        "last_fc.bias": bias,
    }


def critics_of(slope: float) -> Arrays:
    """Return the arrays of the critics."""
    weight = np.zeros((2, 2, 5), np.float32)
    weight[:, 0, 3], weight[:, 1, 3] = 1.0, -1.0
    head = np.tile(np.array([slope, -slope], np.float32), (2, 1, 1))
    bias = np.array([[0.0], [1.0]], np.float32)
    return {
        "layers.0.weight": weight,
        "layers.0.bias": np.zeros((2, 2), np.float32),
        "head.weight": head,
        "head.bias": bias,
    }


def constant(
    out: Path,
    *encoded: float,
    slope: float | None = None,
    parent: Path | None = None,
    updates: int = 0,
    weights: Arrays | None = None,
    spec: Spec = SPEC,
    seen: np.ndarray = SEEN,
) -> Path:
    """Write the bundle of a policy that gives an encoded action; ``slope`` gives it critics."""
    critic = None if slope is None else CRITIC
    draft = Draft(
        algorithm="made-up",
        spec=spec,
        model=DeterministicModel(hidden=(2,)),
        sampler=SamplerSettings(),
        codec=of_limits(spec),
        data=(),
        training={"steps": updates},
        critic=critic,
        parent=load_bundle(parent).manifest if parent else None,
    )
    arrays = weights_of(*encoded) if weights is None else weights
    extra = {} if slope is None else {CRITICS: critics_of(slope)}
    return save_bundle(out, draft, arrays, golden(draft, arrays, seen), extra)


def other_robot() -> Spec:
    """Return the same robot at another rate."""
    return msgspec.structs.replace(SPEC, rate_hz=50.0)
