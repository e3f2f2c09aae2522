"""A small made-up robot, data of it, and a policy trained on it in a moment."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from controller.spec import ArraySpec, Spec
from controller.transitions import Transitions, layout_of
from policies.learning import OptimiserSettings
from policies.model import NetworkSettings
from policies.settings import TrainConfig

SPEC = Spec(
    task="toy",
    observation=(
        ArraySpec("position", (2,)),
        ArraySpec("shadow", (2,)),
        ArraySpec("target", (2,)),
    ),
    action=ArraySpec("force", (2,), "float32", "N", (-2.0, -2.0), (2.0, 2.0)),
    rate_hz=100.0,
)


def toy_data(rows: int = 600, seed: int = 0, spec: Spec = SPEC) -> Transitions:
    """Return rows in which the force points from position to target; episodes of 50 rows."""
    rng = np.random.default_rng(seed)
    observations = rng.standard_normal((rows, 6))
    observations[:, 2:4] = observations[:, :2]
    actions = np.clip(observations[:, 4:6] - observations[:, :2], -2, 2).astype(np.float32)
    ends = np.arange(1, rows + 1) % 50 == 0
    return Transitions(
        observations=observations,
        actions=actions,
        rewards=rng.random(rows),
        next_observations=np.roll(observations, -1, axis=0),
        terminals=ends & (np.arange(rows) % 100 < 50),
        timeouts=ends & (np.arange(rows) % 100 >= 50),
        layout=layout_of(spec),
        task=spec.task,
    )


def toy_config(steps: int = 4, **changes: object) -> TrainConfig:
    """Return a training of a small network."""
    config = TrainConfig(
        task="toy",
        tensorboard=False,
        observation=("position", "target"),
        network=NetworkSettings(hidden=(16, 16)),
        optimiser=OptimiserSettings(steps=steps, batch=32, warmup=0, threads=1),
    )
    return msgspec.structs.replace(config, **changes)


def toy_bundle(out: Path, steps: int = 4, **changes: object) -> Path:
    """Train the toy policy for a few updates and return its bundle."""
    from policies.train import train

    return train(toy_config(steps, **changes), toy_data(), SPEC, out)[0]
