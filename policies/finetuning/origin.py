"""What an agent begins from: a bundle, or nothing but the robot."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from controller.errors import ConfigError
from controller.spec import Spec
from policies import codec
from policies.bundle import Bundle
from policies.codec import Codec
from policies.errors import BundleError
from policies.finetuning.settings import FinetuneConfig, LearnSettings, OnlineAlgorithm
from policies.learning import NEWEST, ConsistencySettings, RewardSettings
from policies.model import (
    ConsistencyModel,
    CriticSettings,
    DiffusionModel,
    GaussianModel,
    Model,
    SamplerSettings,
)

ONLINE: dict[str, OnlineAlgorithm] = {
    "consistency_bc": "consistency_ac",
    "consistency_ac": "consistency_ac",
    "diffusion_bc": "diffusion_ql",
    "diffusion_ql": "diffusion_ql",
    "bc": "sac",
    "sac": "sac",
}
"""What goes on where another algorithm, or the same one, left off."""
FRESH: dict[OnlineAlgorithm, SamplerSettings] = {
    "consistency_ac": SamplerSettings(steps=2),
    "diffusion_ql": SamplerSettings(),
    "sac": SamplerSettings(temperature=0.0),
}
"""How a policy without a bundle draws: two levels of the grid of training, the whole chain, the
middle of the Gaussian."""


@dataclass(frozen=True)
class Origin:
    """What an agent begins from.

    Attributes:
        algorithm: how it goes on.
        spec: the robot.
        codec: translates between robot and networks.
        model: what the policy is made of.
        sampler: how its actions are drawn.
        loss: the consistency loss, at the finest grid and with the newest weights as its target.
        parent: the bundle; None from scratch.
    """

    algorithm: OnlineAlgorithm
    spec: Spec
    codec: Codec
    model: Model
    sampler: SamplerSettings
    loss: ConsistencySettings
    parent: Bundle | None

    def critic_of(self, learn: LearnSettings) -> CriticSettings:
        """Return the shape of the critics that learn."""
        return learn.critic or self.critic or CriticSettings()

    @property
    def critic(self) -> CriticSettings | None:
        """Shape of the bundle's critics; None where it has none, or they know other rewards."""
        if self.parent is None:
            return None
        reward = msgspec.convert(_trained(self.parent).get("reward") or {}, RewardSettings)
        return self.parent.manifest.critic if reward.tune == "none" else None


def of_bundle(config: FinetuneConfig, parent: Bundle) -> Origin:
    """Return where ``parent`` leaves off.

    Raises:
        BundleError: a policy of an algorithm that has no online form, or of chunks.
    """
    about = parent.manifest
    wanted, made = config.learn.algorithm, _goes_on(parent)
    if wanted not in (None, made):
        able = ", ".join(name for name, online in ONLINE.items() if online == wanted)
        raise BundleError(
            f"{parent.path}: learned by {about.algorithm}, which goes on as {made}; "
            f"learn.algorithm={wanted} expected a policy learned by {able}"
        )
    return Origin(
        algorithm=made,
        spec=parent.spec,
        codec=parent.codec,
        model=about.model,
        sampler=drawn(about.sampler, config),
        loss=_at_its_end(parent),
        parent=parent,
    )


def of_robot(
    config: FinetuneConfig, spec: Spec, observation: tuple[str, ...] | None = None
) -> Origin:
    """Return a beginning without a bundle.

    Raises:
        ConfigError: no algorithm, or actions without limits.
        DataError: an observation that the robot does not have.
    """
    learn = config.learn
    if learn.algorithm is None:
        raise ConfigError(
            "learn.algorithm: nothing to begin with but the robot, expected one of "
            "consistency_ac, diffusion_ql, sac; or parent, a bundle"
        )
    model = _model(learn.algorithm, learn)
    return Origin(
        algorithm=learn.algorithm,
        spec=spec,
        codec=codec.of_limits(spec, observation),
        model=model,
        sampler=drawn(FRESH[learn.algorithm], config),
        loss=finest(ConsistencySettings()),
        parent=None,
    )


def drawn(sampler: SamplerSettings, config: FinetuneConfig) -> SamplerSettings:
    """Return how the published versions draw: as they are scored."""
    return sampler.changed(config.scored)


def finest(loss: ConsistencySettings) -> ConsistencySettings:
    """Return the loss at the grid that its training ends with, from the first update on."""
    end = loss.levels_end
    return msgspec.structs.replace(
        loss, levels_start=end, growth="doubling", restart=0, target=NEWEST
    )


def _goes_on(parent: Bundle) -> OnlineAlgorithm:
    about = parent.manifest
    if about.horizon > 1:
        raise BundleError(
            f"{parent.path}: answers with {about.horizon} actions; expected a policy of one, as "
            "the critics value single actions"
        )
    made = ONLINE.get(about.algorithm)
    squashed = isinstance(about.model, GaussianModel) and about.model.squash == "action"
    if made is None or (made == "sac" and not squashed):
        raise BundleError(
            f"{parent.path}: learned by {about.algorithm}, which has no online form here; "
            f"expected a policy learned by {', '.join(ONLINE)}"
        )
    return made


def _model(algorithm: OnlineAlgorithm, learn: LearnSettings) -> Model:
    match algorithm:
        case "consistency_ac":
            return ConsistencyModel(learn.network)
        case "diffusion_ql":
            return DiffusionModel(learn.network)
    return GaussianModel(hidden=learn.network.hidden)


def _at_its_end(parent: Bundle) -> ConsistencySettings:
    settings = _trained(parent).get("loss") or {}
    return finest(msgspec.convert(settings, ConsistencySettings))


def _trained(parent: Bundle) -> dict[str, object]:
    config: dict[str, object] = parent.manifest.training.get("config") or {}
    return config
