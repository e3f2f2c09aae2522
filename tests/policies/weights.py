"""Random arrays of every network a bundle can hold, and bundles made of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from controller.spec import ArraySpec, Spec
from policies.bundle import save_bundle
from policies.codec import of_limits
from policies.golden import golden
from policies.manifest import CRITICS, Arrays, Draft
from policies.model import (
    ChainSettings,
    ConsistencyModel,
    CriticSettings,
    DeterministicModel,
    DiffusionModel,
    GaussianModel,
    Model,
    NetworkSettings,
    SamplerSettings,
)

OBSERVATION, ACTION = 5, 3
PLAIN = SamplerSettings()

NETWORKS = {
    "mish": NetworkSettings(hidden=(24, 20)),
    "relu": NetworkSettings(hidden=(24, 20), activation="relu"),
    "blocks": NetworkSettings(kind="ln_resnet", hidden=(16, 16)),
}
MODELS: dict[str, Model] = {
    **{f"consistency-{name}": ConsistencyModel(net) for name, net in NETWORKS.items()},
    **{f"diffusion-{name}": DiffusionModel(net) for name, net in NETWORKS.items()},
    "gaussian-action": GaussianModel(hidden=(24, 20), log_std_min=-3.0, log_std_max=0.5),
    "gaussian-mean": GaussianModel(
        hidden=(24, 20), squash="mean", log_std_min=-3.0, log_std_max=0.5
    ),
    "deterministic": DeterministicModel(hidden=(24, 20)),
}
CRITICS_OF = {
    "mish": CriticSettings(hidden=(20, 16)),
    "normed": CriticSettings(count=4, hidden=(20, 16), activation="relu", layer_norm=True),
}


def robot(observation: int = OBSERVATION, action: int = ACTION) -> Spec:
    """Return a robot of these sizes, its actions limited to different ranges."""
    high = tuple(1.0 + 0.5 * index for index in range(action))
    low = tuple(-limit + 0.25 for limit in high)
    return Spec(
        task="sizes",
        observation=(ArraySpec("state", (observation,)),),
        action=ArraySpec("torque", (action,), "float32", "", low, high),
        rate_hz=200.0,
    )


def weights_of(
    model: Model, observation: int = OBSERVATION, action: int = ACTION, seed: int = 0
) -> Arrays:
    """Return the arrays of a policy, drawn as layers begin; norms are not the identity."""
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    if isinstance(model, GaussianModel | DeterministicModel):
        for index, (inputs, outputs) in enumerate(pairwise((observation, *model.hidden))):
            made |= _layer(rng, f"fc{index}", inputs, outputs)
        made |= _layer(rng, "last_fc", model.hidden[-1], action)
        if isinstance(model, GaussianModel):
            made |= _layer(rng, "last_fc_log_std", model.hidden[-1], action)
        return made
    net = model.network
    inputs, width = action + net.time_features + observation, net.hidden[0]
    made |= _layer(rng, "time.expand", net.time_features, net.time_hidden)
    made |= _layer(rng, "time.contract", net.time_hidden, net.time_features)
    if net.kind == "mlp":
        for index, (a, b) in enumerate(pairwise((inputs, *net.hidden))):
            made |= _layer(rng, f"layers.{index}", a, b)
    else:
        made |= _layer(rng, "enter", inputs, width)
        for index in range(len(net.hidden)):
            made |= _norm(rng, f"blocks.{index}.norm", (width,))
            made |= _layer(rng, f"blocks.{index}.expand", width, 4 * width)
            made |= _layer(rng, f"blocks.{index}.contract", 4 * width, width)
    return made | _layer(rng, "head", net.hidden[-1], action)


def critics_of(
    settings: CriticSettings, observation: int = OBSERVATION, action: int = ACTION, seed: int = 1
) -> Arrays:
    """Return the arrays of an ensemble of value networks."""
    rng, count = np.random.default_rng(seed), settings.count
    made: Arrays = {}
    for index, (a, b) in enumerate(pairwise((observation + action, *settings.hidden))):
        made |= _layer(rng, f"layers.{index}", a, b, count)
        if settings.layer_norm:
            made |= _norm(rng, f"norms.{index}", (count, b))
    return made | _layer(rng, "head", settings.hidden[-1], 1, count)


def draft_of(
    model: Model,
    sampler: SamplerSettings = PLAIN,
    critic: CriticSettings | None = None,
    spec: Spec | None = None,
    horizon: int = 1,
) -> Draft:
    """Return what a bundle says of such a policy."""
    spec = spec or robot()
    return Draft(
        algorithm="made-up",
        spec=spec,
        model=model,
        sampler=sampler,
        codec=of_limits(spec),
        data=(),
        training={},
        critic=critic,
        horizon=horizon,
    )


def bundle_of(
    out: Path,
    model: Model,
    sampler: SamplerSettings = PLAIN,
    critic: CriticSettings | None = None,
    spec: Spec | None = None,
    horizon: int = 1,
) -> Path:
    """Write a bundle of random arrays and return its directory."""
    draft = draft_of(model, sampler, critic, spec, horizon)
    sizes = draft.codec.condition_size, horizon * draft.codec.action_size
    weights = weights_of(model, *sizes)
    critics = critics_of(critic, *sizes) if critic else None
    seen = np.random.default_rng(2).standard_normal((16, sizes[0]))
    kept = golden(draft, weights, seen, critics)
    return save_bundle(out, draft, weights, kept, {CRITICS: critics} if critics else {})


def chain_of_length(model: DiffusionModel, steps: int) -> DiffusionModel:
    """Return the same policy with a chain of ``steps``."""
    return msgspec.structs.replace(model, chain=ChainSettings(steps=steps))


def _layer(rng: np.random.Generator, name: str, inputs: int, outputs: int, *stack: int) -> Arrays:
    limit = 1.0 / np.sqrt(inputs)
    drawn = {"weight": (*stack, outputs, inputs), "bias": (*stack, outputs)}
    return {
        f"{name}.{part}": rng.uniform(-limit, limit, shape).astype(np.float32)
        for part, shape in drawn.items()
    }


def _norm(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Arrays:
    return {
        f"{name}.{part}": (middle + 0.2 * rng.standard_normal(shape)).astype(np.float32)
        for part, middle in (("weight", 1.0), ("bias", 0.0))
    }
