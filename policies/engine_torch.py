"""Drawing actions in torch: the reference the other engines are held to, and the way to a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from controller.ranges import Device
from policies.diffusion.precond import Network, Precondition
from policies.diffusion.sampler import ancestral, multi_step
from policies.engine_numpy import Float32
from policies.errors import BundleError
from policies.manifest import Arrays
from policies.model import (
    ConsistencyModel,
    CriticSettings,
    DeterministicModel,
    DiffusionModel,
    GaussianModel,
    Model,
    NetworkSettings,
    SamplerSettings,
)
from policies.plan import chain_of, share_at_start
from policies.prefix import Known
from policies.sampling import Draw, Draws

log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
TensorDraw = Callable[..., Tensor]
"""Gives actions of conditions and noise, and of values and mask where some are known."""


class Captured(NamedTuple):
    """A draw as a CUDA graph, with where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    given: tuple[Tensor, ...]
    actions: Tensor


ACTIVATIONS = {"mish": functional.mish, "relu": functional.relu}


def torch_draws(model: Model, weights: Arrays, device: Device) -> Draws:
    """Return what makes the draws of a policy in torch; on CUDA as captured graphs.

    Raises:
        BundleError: ``device`` is not there.
    """
    arrays = on_device(weights, device)

    def draw_of(sampler: SamplerSettings) -> Draw:
        draw = _tensor_draw(model, arrays, sampler)
        on = CapturedDraw(draw) if device == "cuda" else draw

        @torch.inference_mode()
        def act(condition: Float32, noise: Float32, known: Known | None = None, /) -> Float32:
            given = map(torch.from_numpy, (condition, noise, *(known or ())))
            actions: Float32 = on(*given).cpu().numpy()
            return actions

        return act

    return draw_of


def torch_values(
    weights: Arrays, shape: CriticSettings, device: Device
) -> Callable[[Float32, Float32], Float32]:
    """Return the least Q (B,) of conditions (B, d) and actions (B, A), in torch."""
    arrays = on_device(weights, device)

    @torch.inference_mode()
    def values(condition: Float32, action: Float32) -> Float32:
        both = (torch.from_numpy(array).to(device) for array in (condition, action))
        h = torch.cat(list(both), -1)
        for index, width in enumerate(shape.hidden):
            weight, bias = arrays[f"layers.{index}.weight"], arrays[f"layers.{index}.bias"]
            h = h @ weight.mT + bias.unsqueeze(1)
            if shape.layer_norm:
                h = functional.layer_norm(h, (width,))
                scale, shift = (arrays[f"norms.{index}.{part}"] for part in ("weight", "bias"))
                h = h * scale.unsqueeze(1) + shift.unsqueeze(1)
            h = ACTIVATIONS[shape.activation](h)
        q = h @ arrays["head.weight"].mT + arrays["head.bias"].unsqueeze(1)
        least: Float32 = q[..., 0].amin(0).cpu().numpy()
        return least

    return values


def on_device(weights: Arrays, device: Device) -> dict[str, Tensor]:
    """Return arrays as tensors.

    Raises:
        BundleError: ``device`` is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BundleError("device is cuda, but torch finds no GPU here; valid now: cpu")
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in weights.items()}


def padded(rows: int) -> int:
    """Return the next number of rows that graphs are made for: 4 to the octave.

    Batches of any size up to 4096 rows are then served by 44 graphs, with at most a quarter
    more rows than there are.
    """
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step


class CapturedDraw:
    """A draw as CUDA graphs, one for each padded number of rows: the host launches one thing.

    What cannot be captured is drawn eagerly, and logged once.

    Args:
        draw: what is captured.
    """

    def __init__(self, draw: TensorDraw) -> None:
        self._draw = draw
        self._captured: dict[tuple[int, int], Captured | None] = {}

    def __call__(self, condition: Tensor, noise: Tensor, *known: Tensor) -> Tensor:
        """Return the actions, which the next call overwrites, of arrays on the host."""
        rows, given = len(condition), (condition, noise, *known)
        key = padded(rows), len(given)
        if key not in self._captured:
            self._captured[key] = self._capture(_room(given, key[0]))
        captured = self._captured[key]
        if captured is None:
            return self._draw(*(part.cuda() for part in given))
        for place, part in zip(captured.given, given, strict=True):
            _of_rows(place, rows).copy_(part)
        captured.graph.replay()
        return captured.actions[:rows]

    def _capture(self, given: tuple[Tensor, ...]) -> Captured | None:
        """Return the graph with its inputs and outputs, None where there can be none."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._draw(*given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                actions = self._draw(*given)
        except RuntimeError as error:
            log.warning("no CUDA graph for %d rows, drawing eagerly: %s", len(given[0]), error)
            return None
        return Captured(graph, given, actions)


def _room(given: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
    """Return zeros on the GPU like ``given``, for ``rows`` rows."""
    shapes = [(*part.shape[:-2], rows, part.shape[-1]) for part in given]
    pairs = zip(given, shapes, strict=True)
    return tuple(torch.zeros(shape, dtype=part.dtype, device="cuda") for part, shape in pairs)


def _of_rows(array: Tensor, rows: int) -> Tensor:
    """Return the first rows of (B, ...), or of noise (K, B, ...)."""
    return array[..., :rows, :]


def _tensor_draw(model: Model, arrays: Tensors, sampler: SamplerSettings) -> TensorDraw:
    match model:
        case ConsistencyModel():
            return _consistency(model, arrays, sampler)
        case DiffusionModel():
            return _diffusion(model, arrays, sampler)
    return _gaussian(model, arrays, sampler.temperature)


def _consistency(model: ConsistencyModel, arrays: Tensors, sampler: SamplerSettings) -> TensorDraw:
    precondition, levels = Precondition.of(model.noise), model.levels(sampler)
    network = _network(model.network, arrays)

    def draw(condition: Tensor, noise: Tensor, *known: Tensor) -> Tensor:
        def denoise(x: Tensor, sigma: float) -> Tensor:
            return _kept(precondition.denoise(network, x, sigma, condition), known)

        first = _begun(sampler.temperature * noise[0], 1.0 / levels[0], known)
        x: Tensor = multi_step(denoise, [first, *noise[1:]], levels, model.noise.sigma_min)
        return _kept(x.clamp(-1.0, 1.0), known)

    return draw


def _diffusion(model: DiffusionModel, arrays: Tensors, sampler: SamplerSettings) -> TensorDraw:
    chain, told = chain_of(model, sampler)
    network, share = _network(model.network, arrays), share_at_start(model, sampler)

    def draw(condition: Tensor, noise: Tensor, *known: Tensor) -> Tensor:
        def predict(x: Tensor, step: int) -> Tensor:
            return network(x, x.new_full((1, 1), float(told[step - 1])), condition)

        def limited(x: Tensor) -> Tensor:
            return _kept(x.clamp(-1.0, 1.0), known)

        first = _begun(sampler.temperature * noise[0], share, known)
        x: Tensor = ancestral(predict, [first, *noise[1:]], chain, limited)
        return _kept(x, known)

    return draw


def _begun(noise: Tensor, share: float, known: tuple[Tensor, ...]) -> Tensor:
    """Return the noise that sampling starts from, with this share of what is known in it."""
    return noise + share * known[0] if known else noise


def _kept(x: Tensor, known: tuple[Tensor, ...]) -> Tensor:
    """Return x with what is known in its place."""
    return torch.where(known[1], known[0], x) if known else x


def _gaussian(
    model: GaussianModel | DeterministicModel, arrays: Tensors, temperature: float
) -> TensorDraw:
    def draw(condition: Tensor, noise: Tensor, *known: Tensor) -> Tensor:
        return _kept(of(condition, noise), known)

    def of(condition: Tensor, noise: Tensor) -> Tensor:
        h = condition
        for index in range(len(model.hidden)):
            h = _linear(arrays, f"fc{index}", h).relu()
        mean = _linear(arrays, "last_fc", h)
        if isinstance(model, DeterministicModel):
            return mean.tanh()
        log_std = _linear(arrays, "last_fc_log_std", h).clamp(model.log_std_min, model.log_std_max)
        spread = temperature * log_std.exp() * noise[0]
        if model.squash == "mean":
            return (mean.tanh() + spread).clamp(-1.0, 1.0)
        return (mean + spread).tanh()

    return draw


def _network(settings: NetworkSettings, arrays: Tensors) -> Network:
    """Return F(x, label, s), giving (B, A) of (B, A), (1 or B, 1) and (B, d)."""
    # Made beforehand: a graph cannot be captured across a copy from the host.
    frequencies = torch.tensor(settings.frequencies, device=arrays["head.bias"].device)
    inner = _mlp if settings.kind == "mlp" else _blocks

    def network(x: Tensor, label: Tensor, condition: Tensor) -> Tensor:
        angle = label * frequencies
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        hidden = functional.mish(_linear(arrays, "time.expand", waves))
        time = _linear(arrays, "time.contract", hidden).expand(len(x), -1)
        h = inner(settings, arrays, torch.cat([x, time, condition], dim=-1))
        return _linear(arrays, "head", h)

    return network


def _mlp(settings: NetworkSettings, arrays: Tensors, h: Tensor) -> Tensor:
    for index in range(len(settings.hidden)):
        h = ACTIVATIONS[settings.activation](_linear(arrays, f"layers.{index}", h))
    return h


def _blocks(settings: NetworkSettings, arrays: Tensors, h: Tensor) -> Tensor:
    h = _linear(arrays, "enter", h).relu()
    for index, width in enumerate(settings.hidden):
        block = f"blocks.{index}"
        affine = arrays[f"{block}.norm.weight"], arrays[f"{block}.norm.bias"]
        inner = functional.layer_norm(h, (width,), *affine)
        inner = _linear(arrays, f"{block}.expand", inner).relu()
        h = h + _linear(arrays, f"{block}.contract", inner)
    return h.relu()


def _linear(arrays: Tensors, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"])
