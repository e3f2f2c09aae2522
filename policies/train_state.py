"""The state of a training run as named arrays, to resume from bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from controller.types import Array
from policies.bundle import Arrays
from policies.errors import BundleError


def pack(
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    step: int,
) -> Arrays:
    """Return the state as arrays: modules, optimiser, both generators, updates done."""
    arrays: Arrays = {
        "step": np.array(step),
        "generator": generator.get_state().numpy(),
        "global_generator": torch.get_rng_state().numpy(),
    }
    for name, module in modules.items():
        arrays |= {f"{name}.{key}": value for key, value in to_arrays(module).items()}
    for index, entries in optimiser.state_dict()["state"].items():
        for key, value in entries.items():
            arrays[f"optimiser.{index}.{key}"] = value.cpu().numpy()
    return arrays


def unpack(
    arrays: Arrays,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    """Put the state back and return the number of updates done.

    Raises:
        BundleError: the arrays are not the state of such a run.
    """
    try:
        for name, module in modules.items():
            load_arrays(module, within(arrays, f"{name}."))
        state = optimiser.state_dict()
        state["state"] = {}
        for name, array in within(arrays, "optimiser.").items():
            index, _, key = name.partition(".")
            state["state"].setdefault(int(index), {})[key] = _tensor(array)
        optimiser.load_state_dict(state)
        generator.set_state(_tensor(arrays["generator"]))
        torch.set_rng_state(_tensor(arrays["global_generator"]))
        return int(arrays["step"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise BundleError(f"cannot resume: the state is of another run: {error}") from error


def to_arrays(module: nn.Module) -> Arrays:
    """Return a module's parameters by name."""
    return {name: value.detach().cpu().numpy().copy() for name, value in _named(module)}


def load_arrays(module: nn.Module, arrays: Arrays) -> None:
    """Put parameters back into a module."""
    module.load_state_dict({name: _tensor(array) for name, array in arrays.items()})


def within(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _named(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.state_dict().items())


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
