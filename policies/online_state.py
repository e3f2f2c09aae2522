"""What an interrupted run of online learning goes on from: one file, replaced as a whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
import torch

from controller.spec import Spec
from policies.algos.sac import SoftActorCritic
from policies.disk import replace_file
from policies.errors import BundleError
from policies.manifest import Arrays
from policies.settings import SacConfig

FREE = ("out", "processes", "threads", "log_every")
"""Settings that may differ when a run is taken up again. Other threads sum in another order."""
ABOUT = "onebeat"


class Progress(msgspec.Struct):
    """How far a run is.

    Attributes:
        step: control steps done.
        updates: gradient updates done.
        snapshots: facts of each snapshot so far.
    """

    step: int = 0
    updates: int = 0
    snapshots: list[dict[str, Any]] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """A state as it was read."""

    progress: Progress
    generator: dict[str, Any]
    arrays: Arrays


def write_state(
    file: Path,
    config: SacConfig,
    spec: Spec,
    learner: SoftActorCritic,
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    """Write the state; a reader finds the one before or this one, whole."""
    about = {
        "config": comparable(config),
        "spec": spec.digest(),
        "generator": rng.bit_generator.state,
        "progress": msgspec.to_builtins(progress),
    }
    blob = safetensors.numpy.save(_pack(learner), metadata={ABOUT: json.dumps(about)})
    replace_file(file, blob)


def read_state(file: Path, config: SacConfig, spec: Spec) -> Saved | None:
    """Return the state in ``file``, None where there is no such file.

    Raises:
        BundleError: it cannot be read, or belongs to a run with other settings.
    """
    if not file.is_file():
        return None
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            about = json.loads(content.metadata()[ABOUT])
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        progress = msgspec.convert(about["progress"], Progress)
        _require_same(about["config"], comparable(config), file)
        if about["spec"] != spec.digest():
            raise BundleError(f"{file}: the run is of another robot; choose another out")
        return Saved(progress, about["generator"], arrays)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{file}: cannot go on from it: {error}") from error


def restore(saved: Saved, learner: SoftActorCritic, rng: np.random.Generator) -> None:
    """Put networks, optimisers and generators back."""
    arrays = saved.arrays
    for name, tensor in _tensors(learner).items():
        tensor.copy_(torch.from_numpy(arrays[name]))
    for name, adam in _optimisers(learner).items():
        state = adam.state_dict()
        state["state"] = {}
        for key, array in arrays.items():
            owner, _, rest = key.partition(".")
            if owner == name:
                index, _, entry = rest.partition(".")
                state["state"].setdefault(int(index), {})[entry] = torch.from_numpy(array)
        adam.load_state_dict(state)
    learner.generator.set_state(torch.from_numpy(arrays["generator"]))
    rng.bit_generator.state = saved.generator


def comparable(config: SacConfig) -> dict[str, Any]:
    """Return the settings that decide the weights, as JSON values."""
    settings: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return {name: value for name, value in settings.items() if name not in FREE}


def _require_same(had: dict[str, Any], have: dict[str, Any], file: Path) -> None:
    for name, value in have.items():
        if had.get(name) != value:
            raise BundleError(
                f"{file.parent.parent}: holds a run with {name}={had.get(name)}, this one has "
                f"{name}={value}: choose another out, or delete that run"
            )


def _pack(learner: SoftActorCritic) -> Arrays:
    arrays = {name: tensor.cpu().numpy() for name, tensor in _tensors(learner).items()}
    for name, adam in _optimisers(learner).items():
        for index, entries in adam.state_dict()["state"].items():
            for entry, value in entries.items():
                arrays[f"{name}.{index}.{entry}"] = value.cpu().numpy()
    return arrays | {"generator": learner.generator.get_state().numpy()}


def _tensors(learner: SoftActorCritic) -> dict[str, torch.Tensor]:
    return {
        "actor": learner.actor.flat,
        "critic": learner.critic.flat,
        "target": learner.target.flat,
        "log_alpha": learner.log_alpha,
    }


def _optimisers(learner: SoftActorCritic) -> dict[str, torch.optim.Optimizer]:
    return {"actor_adam": learner.actor_adam, "critic_adam": learner.critic_adam}
