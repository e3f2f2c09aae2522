"""From a bundle's description and arrays to what draws its actions, on any engine."""

from __future__ import annotations

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.ranges import Device, Engine
from policies.choice import Sampler
from policies.engine_shapes import critic_shapes, policy_shapes, require
from policies.errors import BundleError
from policies.manifest import Arrays, Draft, Manifest
from policies.model import (
    ConsistencyModel,
    DeterministicModel,
    Model,
    SamplerSettings,
    evaluations,
)
from policies.sampling import Draw, Draws, NumpyCritics, Values, numpy_draws

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
    return Samplers(about, weights, critics, engine, device).of(about.sampler.changed(act))


class Samplers:
    """Whatever draws the actions of a policy on one engine, its networks shared by all.

    Args:
        about: what the policy is.
        weights: its arrays.
        critics: arrays of its target critics, None without them.
        engine: what computes.
        device: where.

    Raises:
        BundleError: the arrays do not fit the network, or ``device`` is not there.
    """

    def __init__(
        self,
        about: Manifest | Draft,
        weights: Arrays,
        critics: Arrays | None = None,
        engine: Engine = "numpy",
        device: Device = "cpu",
    ) -> None:
        if device not in DEVICES[engine]:
            raise BundleError(f"engine {engine} runs on cpu, not on {device}: use engine=torch")
        self._about, self._critics = about, critics
        self._engine, self._device = engine, device
        require(weights, policy_shapes(about.model, *_sizes(about)), "weights")
        self._draws = _draws(about.model, weights, engine, device)
        self._values: Values | None = None
        self._made: dict[SamplerSettings, Sampler] = {}
        self._drawing: dict[SamplerSettings, Draw] = {}

    def of(self, sampler: SamplerSettings) -> Sampler:
        """Return what draws with these settings; made once.

        Raises:
            BundleError: the policy cannot act so.
        """
        if sampler not in self._made:
            self._made[sampler] = self._make(sampler)
        return self._made[sampler]

    def _make(self, sampler: SamplerSettings) -> Sampler:
        about, candidates = self._about, sampler.candidates
        try:
            steps = evaluations(about.model, sampler)
        except ValueError as error:
            raise BundleError(f"act.steps={sampler.steps}: {error}") from None
        _require_levels(about, sampler)
        _require_choice(about, sampler, self._critics)
        if candidates > 1 and self._values is None:
            self._values = self._valuing()
        alone = msgspec.structs.replace(sampler, candidates=1)
        if alone not in self._drawing:
            self._drawing[alone] = self._draws(alone)
        values = self._values if candidates > 1 else None
        return Sampler(self._drawing[alone], steps, candidates, values, sampler.select)

    def _valuing(self) -> Values:
        critics, critic = self._critics, self._about.critic
        assert critics is not None
        assert critic is not None
        require(critics, critic_shapes(critic, *_sizes(self._about)), "critics")
        if self._engine != "torch":
            return NumpyCritics(critics, critic)
        from policies.engine_torch import torch_values

        return torch_values(critics, critic, self._device)


def _sizes(about: Manifest | Draft) -> tuple[int, int]:
    """Return the elements of an encoded observation and of an answer."""
    seen = about.observation if isinstance(about, Manifest) else about.codec.arrays
    condition = sum(array.size for array in about.spec.observation if array.name in seen)
    return condition, about.horizon * about.spec.action.size


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


def _draws(model: Model, weights: Arrays, engine: Engine, device: Device) -> Draws:
    if engine == "numpy":
        return numpy_draws(model, weights)
    if engine == "onnx":
        from policies.engine_onnx import onnx_draws

        return onnx_draws(model, weights)
    from policies.engine_torch import torch_draws

    return torch_draws(model, weights, device)
