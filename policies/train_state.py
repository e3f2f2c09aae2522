"""What an interrupted run of training goes on from: one file, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from policies.algos.learner import Learner
from policies.disk import hold, replace_file
from policies.errors import BundleError
from policies.manifest import Arrays

STATE = "state/run.safetensors"
ABOUT = "onebeat"
GLOBAL = "global_generator"


@dataclass(frozen=True)
class Saved:
    """A state as it was read.

    Attributes:
        about: what was written beside the arrays: JSON values.
        arrays: networks, optimisers, generators.
    """

    about: dict[str, Any]
    arrays: Arrays


@contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Keep every other run out of ``store`` inside.

    Raises:
        BundleError: another run is at work there, or nothing can be written.
    """
    file = (store / STATE).with_name("lock")
    try:
        stream = hold(file)
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}: choose another out") from error
    if stream is None:
        raise BundleError(f"{store}: another run is at work there; choose another out")
    with stream:
        yield


def write_state(store: Path, learner: Learner, about: Mapping[str, Any]) -> None:
    """Write the state of a run; a reader finds the one before or this one, whole."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in _tensors(learner).items()}
    arrays["generator"] = learner.generator.get_state().numpy()
    arrays[GLOBAL] = torch.get_rng_state().numpy()
    replace_file(
        store / STATE, safetensors.numpy.save(arrays, metadata={ABOUT: json.dumps(dict(about))})
    )


def read_state(store: Path) -> Saved | None:
    """Return the state a run left in ``store``, None without one.

    Raises:
        BundleError: it cannot be read.
    """
    file = store / STATE
    if not file.is_file():
        return None
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            about = json.loads(content.metadata()[ABOUT])
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file}: cannot go on from it: {error}") from error
    return Saved(about, arrays)


def restore(saved: Saved, learner: Learner) -> None:
    """Put networks, optimisers and generators back.

    Raises:
        BundleError: they are of another run.
    """
    try:
        for name, optimiser in learner.optimisers.items():
            # One that has taken no step yet has no state.
            if f"{name}.step" in saved.arrays:
                optimiser.begin()
        for name, tensor in _tensors(learner).items():
            tensor.copy_(torch.from_numpy(saved.arrays[name]))
        learner.generator.set_state(torch.from_numpy(saved.arrays["generator"]))
        torch.set_rng_state(torch.from_numpy(saved.arrays[GLOBAL]))
    except (KeyError, RuntimeError) as error:
        raise BundleError(f"cannot resume: the state is of another run: {error}") from error


def _tensors(learner: Learner) -> dict[str, Tensor]:
    tensors = {name: network.flat for name, network in learner.networks.items()}
    for name, optimiser in learner.optimisers.items():
        tensors |= {f"{name}.{key}": value for key, value in optimiser.state().items()}
    return tensors
