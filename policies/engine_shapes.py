"""Names and shapes of the arrays that a bundle must hold for its model. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from policies.errors import BundleError
from policies.manifest import Arrays
from policies.model import (
    CriticSettings,
    DeterministicModel,
    GaussianModel,
    Model,
    NetworkSettings,
)

Shapes = dict[str, tuple[int, ...]]


def policy_shapes(model: Model, condition_size: int, action_size: int) -> Shapes:
    """Return the shapes in ``weights.safetensors``."""
    if isinstance(model, GaussianModel | DeterministicModel):
        shapes = _layers("fc{}", (condition_size, *model.hidden))
        heads = ["last_fc"] + ["last_fc_log_std"] * isinstance(model, GaussianModel)
        for head in heads:
            shapes |= _layer(head, model.hidden[-1], action_size)
        return shapes
    net = model.network
    inputs = action_size + net.time_features + condition_size
    shapes = _layer("time.expand", net.time_features, net.time_hidden)
    shapes |= _layer("time.contract", net.time_hidden, net.time_features)
    if net.kind == "mlp":
        shapes |= _layers("layers.{}", (inputs, *net.hidden))
    else:
        shapes |= _blocks(net, inputs)
    return shapes | _layer("head", net.hidden[-1], action_size)


def critic_shapes(critic: CriticSettings, condition_size: int, action_size: int) -> Shapes:
    """Return the shapes in ``critics.safetensors``."""
    count = critic.count
    shapes: Shapes = {}
    for index, (a, b) in enumerate(pairwise((condition_size + action_size, *critic.hidden))):
        shapes |= _layer(f"layers.{index}", a, b, count)
        if critic.layer_norm:
            shapes |= {f"norms.{index}.{part}": (count, b) for part in ("weight", "bias")}
    return shapes | _layer("head", critic.hidden[-1], 1, count)


def require(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise unless ``arrays`` are these, and no others.

    Args:
        arrays: by name.
        shapes: by name.
        what: the arrays, in words.

    Raises:
        BundleError: an array is missing, of another shape, or one too many.
    """
    for name in [*shapes, *arrays]:
        shape = list(arrays[name].shape) if name in arrays else "missing"
        expected = list(shapes[name]) if name in shapes else "none of that name"
        if shape != expected:
            raise BundleError(
                f"{what} do not fit the network of the manifest: {name}: {shape}, "
                f"expected {expected}"
            )


def _layer(name: str, inputs: int, outputs: int, *stack: int) -> Shapes:
    return {f"{name}.weight": (*stack, outputs, inputs), f"{name}.bias": (*stack, outputs)}


def _layers(name: str, widths: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for index, (a, b) in enumerate(pairwise(widths)):
        shapes |= _layer(name.format(index), a, b)
    return shapes


def _blocks(net: NetworkSettings, inputs: int) -> Shapes:
    width = net.hidden[0]
    shapes = _layer("enter", inputs, width)
    for index in range(len(net.hidden)):
        block = f"blocks.{index}"
        shapes |= {f"{block}.norm.{part}": (width,) for part in ("weight", "bias")}
        shapes |= _layer(f"{block}.expand", width, 4 * width)
        shapes |= _layer(f"{block}.contract", 4 * width, width)
    return shapes
