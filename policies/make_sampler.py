"""From a bundle's description and arrays to what draws its actions, on any engine."""

from __future__ import annotations

from controller.acting import AS_BUNDLED, ActSettings
from controller.ranges import Device, Engine
from policies.choice import Sampler
from policies.engine_shapes import critic_shapes, policy_shapes, require
from policies.errors import BundleError
from policies.manifest import Arrays, Draft, Manifest
from policies.model import ConsistencyModel, DeterministicModel, SamplerSettings, evaluations
from policies.sampling import Draw, NumpyCritics, Values, numpy_draw

DEVICES: dict[Engine, tuple[Device, ...]] = {
    "numpy": ("cpu",),
    "torch": ("cpu", "cuda"),
    "onnx": ("cpu",),
}


def make_sampler(
    about: Manifest | Draft,
    weights: Arrays,
    critics: Arrays | None = None,
    engine: Engine = "numpy",
    device: Device = "cpu",
    act: ActSettings = AS_BUNDLED,
) -> Sampler:
    """Return what draws the actions of a policy.

    Args:
        about: what the policy is.
        weights: its arrays.
        critics: arrays of its target critics, None without them.
        engine: what computes.
        device: where.
        act: how an action is chosen, where that is not left to the bundle.

    Raises:
        BundleError: the arrays do not fit the network, the policy cannot act as asked, or
            ``device`` is not there.
    """
    if device not in DEVICES[engine]:
        raise BundleError(f"engine {engine} runs on cpu, not on {device}: use engine=torch")
    sampler = about.sampler.changed(act)
    try:
        steps = evaluations(about.model, sampler)
    except ValueError as error:
        raise BundleError(f"act.steps={act.steps}: {error}") from None
    _require_levels(about, sampler)
    _require_choice(about, sampler, critics)
    require(weights, policy_shapes(about.model, *_sizes(about)), "weights")
    draw = _draw(about, weights, sampler, engine, device)
    values = _values(about, critics, engine, device) if sampler.candidates > 1 else None
    return Sampler(draw, steps, sampler.candidates, values, sampler.select)


def _sizes(about: Manifest | Draft) -> tuple[int, int]:
    """Return the elements of an encoded observation and of an action."""
    seen = about.observation if isinstance(about, Manifest) else about.codec.arrays
    condition = sum(array.size for array in about.spec.observation if array.name in seen)
    return condition, about.spec.action.size


def _require_levels(about: Manifest | Draft, sampler: SamplerSettings) -> None:
    if not isinstance(about.model, ConsistencyModel):
        return
    lowest, levels = about.model.noise.sigma_min, about.model.levels(sampler)
    if levels[-1] < lowest:
        raise BundleError(
            f"sampler.levels: a level of {levels[-1]:g}, expected {lowest:g} or more, where "
            "samples of this policy are clean"
        )


def _require_choice(
    about: Manifest | Draft, sampler: SamplerSettings, critics: Arrays | None
) -> None:
    if sampler.candidates == 1:
        return
    asked = f"candidates={sampler.candidates}"
    if critics is None or about.critic is None:
        raise BundleError(
            f"{asked}: this {about.algorithm} policy has no critics to choose by; valid: 1"
        )
    if isinstance(about.model, DeterministicModel):
        raise BundleError(f"{asked}: this policy knows one action per observation; valid: 1")


def _draw(
    about: Manifest | Draft,
    weights: Arrays,
    sampler: SamplerSettings,
    engine: Engine,
    device: Device,
) -> Draw:
    if engine == "numpy":
        return numpy_draw(about.model, weights, sampler)
    if engine == "onnx":
        from policies.engine_onnx import onnx_draw

        return onnx_draw(about.model, weights, sampler)
    from policies.engine_torch import torch_draw

    return torch_draw(about.model, weights, sampler, device)


def _values(
    about: Manifest | Draft, critics: Arrays | None, engine: Engine, device: Device
) -> Values:
    assert critics is not None
    assert about.critic is not None
    require(critics, critic_shapes(about.critic, *_sizes(about)), "critics")
    if engine != "torch":
        return NumpyCritics(critics, about.critic)
    from policies.engine_torch import torch_values

    return torch_values(critics, about.critic, device)
