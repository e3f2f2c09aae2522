"""What a run of online learning leaves behind: snapshots with their scores, replay, bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from controller.interfaces import VectorPlant
from controller.spec import Spec
from controller.types import Array
from policies import bundle
from policies.algos.sac import SoftActorCritic
from policies.behaviour_file import write_behaviour
from policies.codec import Codec
from policies.data.d4rl import write_d4rl
from policies.data.dataset import Attribute
from policies.golden import golden
from policies.model import GaussianModel, SamplerSettings
from policies.online_state import Progress, comparable
from policies.replay import Replay
from policies.rollouts import Float64, roll_out
from policies.settings import SacConfig

Reference = tuple[float, float]

REPLAY, SNAPSHOTS, BUNDLES = "replay.hdf5", "snapshots.json", "bundles"
ALGORITHM = "sac"


def act(
    learner: SoftActorCritic, codec: Codec, observations: Float64, noise: torch.Tensor | None
) -> Array:
    """Return actions (N, ...) in plant units; tanh μ where there is no noise."""
    seen = torch.from_numpy(codec.encode_observation(observations)).to(learner.device)
    return codec.decode_action(learner.act(seen, noise).cpu().numpy())


def score(
    config: SacConfig,
    learner: SoftActorCritic,
    codec: Codec,
    plants: VectorPlant,
    reference: Reference | None,
    seed: int,
) -> dict[str, Any]:
    """Return what the policy earns, with its actions drawn and with its mean actions.

    Drawn actions are what a dataset made with the snapshot will hold. The noise of the learner
    is left as it is.

    Args:
        config: how many episodes.
        learner: has the policy.
        codec: translates.
        plants: left in the middle of episodes.
        reference: returns that score 0 and 100.
        seed: of episodes and noise.
    """
    if not config.evaluate_episodes:
        return {}
    noise = torch.Generator(learner.device).manual_seed(seed)
    shape = (plants.num, codec.action_size)

    def drawn(observations: Float64) -> Array:
        normal = torch.randn(shape, generator=noise, device=learner.device)
        return act(learner, codec, observations, normal)

    sampled = roll_out(plants, drawn, config.evaluate_episodes, seed)
    mean = roll_out(
        plants, lambda seen: act(learner, codec, seen, None), config.evaluate_episodes, seed
    )
    return {
        "return_mean": float(sampled.returns.mean()),
        "return_std": float(sampled.returns.std()),
        "length_mean": float(sampled.lengths.mean()),
        "success_rate": float(sampled.success.mean()),
        "score_mean": scored(float(sampled.returns.mean()), reference),
        "mean_action_return": float(mean.returns.mean()),
        "mean_action_score": scored(float(mean.returns.mean()), reference),
    }


def scored(value: float, reference: Reference | None) -> float | None:
    """Return the score of a return, None where there is no reference."""
    if reference is None:
        return None
    low, high = reference
    return 100.0 * (value - low) / (high - low)


def write_snapshot(store: Path, learner: SoftActorCritic, index: int) -> str:
    """Write the policy as ``sac_snapshot_XX.npz`` and return the name of the file."""
    name = f"sac_snapshot_{index:02d}.npz"
    write_behaviour(store / name, learner.policy_arrays())
    return name


def write_scores(store: Path, progress: Progress) -> None:
    """Write what is known of each snapshot as ``snapshots.json``."""
    blob = msgspec.json.format(msgspec.json.encode(progress.snapshots), indent=1)
    (store / SNAPSHOTS).write_bytes(blob + b"\n")


def publish(
    config: SacConfig,
    spec: Spec,
    codec: Codec,
    learner: SoftActorCritic,
    replay: Replay,
    progress: Progress,
    store: Path,
) -> None:
    """Write ``replay.hdf5``, and the bundle of the last policy as the store's current one.

    The bundle gives the mean action; with ``sampler.temperature`` 1 it would draw.
    """
    data = replay.to_transitions(spec, codec)
    facts: dict[str, Attribute] = {
        "algorithm": ALGORITHM,
        "seed": config.seed,
        "steps": progress.step,
    }
    write_d4rl(store / REPLAY, data, spec, attributes=facts)
    last = progress.snapshots[-1] if progress.snapshots else {}
    draft = bundle.Draft(
        algorithm=ALGORITHM,
        spec=spec,
        model=GaussianModel(hidden=config.hidden),
        sampler=SamplerSettings(temperature=0.0),
        codec=codec,
        data=(bundle.DataEntry("offline", data.task, len(data), data.digest()),),
        training={"config": comparable(config), "steps": progress.updates, "result": last},
    )
    weights = learner.policy_arrays()
    kept = golden(draft, weights, data.observations.astype(np.float64))
    made = bundle.save_bundle(store / BUNDLES, draft, weights, kept, {})
    bundle.publish(made, store / BUNDLES)
