"""Acting as the policy servers in common use do: eager torch modules, float32, one at a time.

The yardstick of the latency measurement. The same network, steps and normalisation as the
engines have; nothing is compiled, captured, folded or batched.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from controller.acting import AS_BUNDLED, ActSettings
from controller.latency.baseline import Act
from controller.ranges import Device
from controller.types import Array
from policies.bundle import Bundle, load_bundle
from policies.diffusion.precond import Precondition
from policies.diffusion.sampler import ancestral, multi_step
from policies.errors import BundleError
from policies.model import (
    ConsistencyModel,
    DeterministicModel,
    DiffusionModel,
    GaussianModel,
    NetworkSettings,
    SamplerSettings,
    evaluations,
)
from policies.plan import chain_of


def eager(path: str, device: Device = "cpu", act: ActSettings = AS_BUNDLED) -> Act:
    """Return what acts for a bundle, warmed up.

    Raises:
        BundleError: the bundle is damaged, chooses among candidates, or ``device`` is absent.
    """
    policy = EagerPolicy(load_bundle(path), device, act)
    spec = policy.bundle.spec
    resting = {array.name: array.resting() for array in spec.observation}
    for _ in range(20):
        policy(resting)
    return policy


class EagerPolicy:
    """A bundle as modules of torch.

    Args:
        bundle: the policy.
        device: cpu or cuda.
        act: how actions are chosen, where that is not left to the bundle.

    Raises:
        BundleError: see :func:`eager`.
    """

    def __init__(self, bundle: Bundle, device: Device, act: ActSettings = AS_BUNDLED) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise BundleError("device is cuda, but torch finds no GPU here; valid now: cpu")
        self.bundle, self._device = bundle, device
        about = bundle.manifest
        sampler = about.sampler.changed(act)
        if sampler.candidates > 1:
            raise BundleError(
                f"{bundle.path}: the baseline draws one candidate, not {sampler.candidates}; "
                "set act.candidates=1, or baseline=false"
            )
        self._size = about.horizon * bundle.codec.action_size
        self._evaluations = evaluations(about.model, sampler)
        self.module = _module(bundle, sampler, self._size).to(device).eval()
        arrays = {name: torch.from_numpy(array.copy()) for name, array in bundle.weights.items()}
        self.module.load_state_dict(arrays)

    def __call__(self, observation: Mapping[str, Array]) -> tuple[Array, int]:
        """Return actions (H, *action shape) in plant units, and the evaluations they took."""
        arrays = tuple(observation[array.name] for array in self.bundle.spec.observation)
        condition = torch.from_numpy(self.bundle.codec.encode_observation(arrays))
        noise = torch.randn(self._evaluations, 1, self._size, device=self._device)
        drawn = self.draw(condition.to(self._device), noise)
        return self.bundle.codec.decode_chunk(drawn.cpu().numpy())[0], self._evaluations

    @torch.inference_mode()
    def draw(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Return encoded actions (1, A) of conditions (1, d) and noise (K, 1, A)."""
        drawn: Tensor = self.module(condition, noise)
        return drawn


def _module(bundle: Bundle, sampler: SamplerSettings, size: int) -> nn.Module:
    model, seen = bundle.manifest.model, bundle.codec.condition_size
    match model:
        case ConsistencyModel():
            return Consistency(model, sampler, seen, size)
        case DiffusionModel():
            return Diffusion(model, sampler, seen, size)
    return Gaussian(model, sampler.temperature, seen, size)


class Denoiser(nn.Module):
    """F(x, label, s): an MLP or residual blocks on [x, embedded label, s]."""

    def __init__(self, settings: NetworkSettings, seen: int, size: int) -> None:
        super().__init__()
        features, widths = settings.time_features, settings.hidden
        self.register_buffer("frequencies", torch.tensor(settings.frequencies), persistent=False)
        self.time = nn.ModuleDict(
            {
                "expand": nn.Linear(features, settings.time_hidden),
                "contract": nn.Linear(settings.time_hidden, features),
            }
        )
        inputs = size + features + seen
        self._activation = functional.mish if settings.activation == "mish" else functional.relu
        self.head = nn.Linear(widths[-1], size)
        if settings.kind == "mlp":
            steps = zip((inputs, *widths[:-1]), widths, strict=True)
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in steps)
        else:
            self.enter = nn.Linear(inputs, widths[0])
            self.blocks = nn.ModuleList(Block(width) for width in widths)

    def forward(self, x: Tensor, label: Tensor, condition: Tensor) -> Tensor:
        """Return (B, A) of (B, A), (1 or B, 1) and (B, d)."""
        angle = label * self.get_buffer("frequencies")
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        time = self.time["contract"](functional.mish(self.time["expand"](waves)))
        h = torch.cat([x, time.expand(len(x), -1), condition], dim=-1)
        if hasattr(self, "layers"):
            for layer in self.layers:
                h = self._activation(layer(h))
        else:
            h = self.enter(h).relu()
            for block in self.blocks:
                h = block(h)
            h = h.relu()
        out: Tensor = self.head(h)
        return out


class Block(nn.Module):
    """Layer norm and two linear layers, the first 4 times as wide, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Return (B, width)."""
        added: Tensor = self.contract(self.expand(self.norm(h)).relu())
        return h + added


class Consistency(Denoiser):
    """Draws by denoising from falling levels."""

    def __init__(
        self, model: ConsistencyModel, sampler: SamplerSettings, seen: int, size: int
    ) -> None:
        super().__init__(model.network, seen, size)
        self._pre, self._levels = Precondition.of(model.noise), model.levels(sampler)
        self._lowest, self._temperature = model.noise.sigma_min, sampler.temperature

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        """Return (1, A) of conditions (1, d) and noise (K, 1, A)."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self._pre.denoise(super(Consistency, self).forward, x, sigma, condition)

        noises = [self._temperature * noise[0], *noise[1:]]
        x: Tensor = multi_step(denoise, noises, self._levels, self._lowest)
        return x.clamp(-1.0, 1.0)


class Diffusion(Denoiser):
    """Draws by walking the chain."""

    def __init__(
        self, model: DiffusionModel, sampler: SamplerSettings, seen: int, size: int
    ) -> None:
        super().__init__(model.network, seen, size)
        self._chain, self._told = chain_of(model, sampler)
        self._temperature = sampler.temperature

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        """Return (1, A) of conditions (1, d) and noise (K, 1, A)."""

        def predict(x: Tensor, step: int) -> Tensor:
            label = x.new_full((1, 1), float(self._told[step - 1]))
            return super(Diffusion, self).forward(x, label, condition)

        noises = [self._temperature * noise[0], *noise[1:]]
        x: Tensor = ancestral(predict, noises, self._chain, lambda x: x.clamp(-1.0, 1.0))
        return x


class Gaussian(nn.Module):
    """Draws from a mean and a spread, or gives the mean."""

    def __init__(
        self, model: GaussianModel | DeterministicModel, temperature: float, seen: int, size: int
    ) -> None:
        super().__init__()
        self._model, self._temperature = model, temperature
        for index, (a, b) in enumerate(zip((seen, *model.hidden[:-1]), model.hidden, strict=True)):
            self.add_module(f"fc{index}", nn.Linear(a, b))
        self.last_fc = nn.Linear(model.hidden[-1], size)
        if isinstance(model, GaussianModel):
            self.last_fc_log_std = nn.Linear(model.hidden[-1], size)

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Return (1, A) of conditions (1, d) and noise (1, 1, A)."""
        h, model = condition, self._model
        for index in range(len(model.hidden)):
            h = self.get_submodule(f"fc{index}")(h).relu()
        mean: Tensor = self.last_fc(h)
        if isinstance(model, DeterministicModel):
            return mean.tanh()
        log_std = self.last_fc_log_std(h).clamp(model.log_std_min, model.log_std_max)
        spread: Tensor = self._temperature * log_std.exp() * noise[0]
        drawn: Tensor = (mean.tanh() + spread).clamp(-1.0, 1.0)
        return drawn if model.squash == "mean" else (mean + spread).tanh()
