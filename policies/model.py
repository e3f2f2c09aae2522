"""What a policy is made of: networks, noise, and how an action is drawn. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from controller.acting import ActSettings, Select
from controller.ranges import Count, Fraction, NonNegative, Positive
from policies.diffusion.schedule import consistency_levels, karras, paper_levels

Hidden = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]
Activation = Literal["mish", "relu"]


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the network behind a consistency or diffusion policy.

    Attributes:
        kind: ``mlp`` on [noisy action, time, observation]; or ``ln_resnet``, residual blocks
            of dropout, layer norm and two linear layers, the first 4 times as wide.
        hidden: width of each hidden layer of the MLP, or of each block (all the same).
        activation: of the MLP; the blocks have ReLU.
        time_features: width of the sinusoidal embedding of the noise level, even.
        time_hidden: width of the layer behind it.
        dropout: probability of dropping a hidden unit in training; 0.1 in the paper's blocks.
    """

    kind: Literal["mlp", "ln_resnet"] = "mlp"
    hidden: Hidden = (256, 256, 256)
    activation: Activation = "mish"
    time_features: Annotated[int, msgspec.Meta(ge=4, multiple_of=2)] = 16
    time_hidden: Count = 32
    dropout: Fraction = 0.0

    def __post_init__(self) -> None:
        if self.kind == "ln_resnet" and len(set(self.hidden)) > 1:
            raise ValueError(f"the blocks of ln_resnet are equally wide, got {list(self.hidden)}")

    @property
    def frequencies(self) -> tuple[float, ...]:
        """Angular frequencies of the time embedding, falling from 1 to 1e-4."""
        half = self.time_features // 2
        return tuple(10_000.0 ** (-i / (half - 1)) for i in range(half))


class CriticSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the value networks Q(s, a).

    Attributes:
        count: networks in the ensemble; 2 for clipped double Q.
        hidden: width of each hidden layer.
        activation: of the hidden layers.
        layer_norm: normalise each hidden layer before its activation.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    hidden: Hidden = (256, 256, 256)
    activation: Activation = "mish"
    layer_norm: bool = False


class PreconditionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Noise levels of a consistency policy and how the network is wrapped in them.

    Attributes:
        kind: ``edm`` scales the input and embeds ln(sigma); ``paper`` feeds both raw.
        sigma_min: smallest noise level, where the consistency function is the identity.
        sigma_max: largest noise level, where sampling starts.
        sigma_data: standard deviation of an encoded action, about.
        rho: curvature of the grid of noise levels.
    """

    kind: Literal["edm", "paper"] = "edm"
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    sigma_data: Positive = 0.5
    rho: Positive = 7.0

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} is not below sigma_max {self.sigma_max}")


class ChainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The variance-preserving chain of a diffusion policy.

    Attributes:
        steps: N, its length; as many network evaluations give one action.
        b_min: smallest rate of the noise.
        b_max: largest.
    """

    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    b_min: Positive = 0.1
    b_max: Positive = 10.0

    def __post_init__(self) -> None:
        if self.b_min >= self.b_max:
            raise ValueError(f"b_min {self.b_min} is not below b_max {self.b_max}")


class SamplerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an action is drawn. All of it can be changed when the policy is used.

    Attributes:
        steps: network evaluations per action; null for one step of a consistency policy and
            for the whole chain of a diffusion policy.
        grid: noise levels of several consistency steps: ``karras``, that of training;
            ``released``, from T down to 2 evenly, as the published code of Ding & Jin does;
            ``paper``, from T down to one step above eps evenly, as their algorithm says.
        levels: the noise levels themselves, falling, in place of steps and grid.
        temperature: factor on the noise sampling starts from; 1 draws from the model.
        candidates: actions drawn at once, of which the critics choose one.
        select: ``softmax`` of the least Q of the candidates, or ``argmax``.
    """

    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    grid: Literal["karras", "released", "paper"] = "karras"
    levels: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] | None = None
    temperature: NonNegative = 1.0
    candidates: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    select: Select = "argmax"

    def __post_init__(self) -> None:
        if self.levels and list(self.levels) != sorted(set(self.levels), reverse=True):
            raise ValueError(f"sampler levels {list(self.levels)} do not fall strictly")
        if self.levels and self.steps not in (None, len(self.levels)):
            raise ValueError(f"sampler has {len(self.levels)} levels, but {self.steps} steps")

    def changed(self, act: ActSettings) -> SamplerSettings:
        """Return these settings with what ``act`` says in their place."""
        every = ((name, getattr(act, name, None)) for name in self.__struct_fields__)
        given = {name: value for name, value in every if value is not None}
        if "steps" in given:
            given["levels"] = None
        return msgspec.structs.replace(self, **given)


class ConsistencyModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="consistency"):
    """Denoises from any noise level in one step.

    Attributes:
        network: F.
        noise: what wraps it.
    """

    network: NetworkSettings = NetworkSettings()
    noise: PreconditionSettings = PreconditionSettings()

    def levels(self, sampler: SamplerSettings) -> tuple[float, ...]:
        """Return the falling noise levels that sampling queries, one evaluation each."""
        if sampler.levels:
            return sampler.levels
        n, noise = sampler.steps or 1, self.noise
        if sampler.grid == "released":
            return consistency_levels(n, noise.sigma_max, min(2.0, noise.sigma_max / 2))
        if sampler.grid == "paper":
            return paper_levels(n + 1, noise.sigma_min, noise.sigma_max)
        rising = karras(n + 1, noise.sigma_min, noise.sigma_max, noise.rho)
        return tuple(rising[:0:-1].tolist())


class DiffusionModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="diffusion"):
    """Predicts the noise of each step of a chain.

    Attributes:
        network: predicts the noise.
        chain: the chain.
    """

    network: NetworkSettings = NetworkSettings()
    chain: ChainSettings = ChainSettings()


class GaussianModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gaussian"):
    """Mean and spread of an action, from an MLP with ReLU units.

    Attributes:
        hidden: width of each hidden layer.
        squash: ``action``: a = tanh(mu + sigma n); ``mean``: a = clip(tanh(mu) + sigma n).
        log_std_min: lower limit of log sigma.
        log_std_max: upper limit.
    """

    hidden: Hidden = (256, 256)
    squash: Literal["action", "mean"] = "action"
    log_std_min: float = -20.0
    log_std_max: float = 2.0


class DeterministicModel(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deterministic"
):
    """One action per observation, a = tanh(mu), from an MLP with ReLU units.

    Attributes:
        hidden: width of each hidden layer.
    """

    hidden: Hidden = (256, 256)


Model: TypeAlias = ConsistencyModel | DiffusionModel | GaussianModel | DeterministicModel


def evaluations(model: Model, sampler: SamplerSettings) -> int:
    """Return the network evaluations behind one action.

    Raises:
        ValueError: more steps than a diffusion policy's chain has, or several of a policy
            that takes one.
    """
    match model:
        case ConsistencyModel():
            return len(model.levels(sampler))
        case DiffusionModel(chain=chain):
            steps = chain.steps if sampler.steps is None else sampler.steps
            if steps > chain.steps:
                raise ValueError(f"{steps} steps: the chain of this policy has {chain.steps}")
            return steps
    if sampler.steps not in (None, 1):
        raise ValueError(f"{sampler.steps} steps: this policy takes one")
    return 1
