"""Which algorithm stands behind a name."""

from __future__ import annotations

from collections.abc import Callable

from controller.errors import ConfigError
from policies.algos.bc import GaussianBC
from policies.algos.consistency_bc import ConsistencyBC
from policies.algos.diffusion_bc import DiffusionBC
from policies.algos.iql import Iql
from policies.algos.learner import Learner, Sizes
from policies.algos.q_guided import QGuided
from policies.algos.rebrac import Rebrac
from policies.algos.td3_bc import Td3Bc
from policies.algos.value import Valuation
from policies.learning import NEWEST, Averaging, IqlSettings, Td3Settings
from policies.model import (
    ConsistencyModel,
    DeterministicModel,
    DiffusionModel,
    GaussianModel,
    Hidden,
    SamplerSettings,
)
from policies.settings import TrainConfig

LOG_STD_MIN = -5.0
"""Of the Gaussians learned from data: where two rows agree, their likelihood has no bound."""


def make_learner(config: TrainConfig, sizes: Sizes) -> Learner:
    """Return the learner that ``config`` names, freshly initialised.

    Raises:
        ConfigError: settings that this algorithm cannot follow.
    """
    return LEARNERS[config.algorithm](config, sizes)


def _consistency_bc(config: TrainConfig, sizes: Sizes, slow: Averaging = NEWEST) -> ConsistencyBC:
    model = ConsistencyModel(config.network, config.noise)
    drawn = SamplerSettings(steps=config.improve.steps, grid=config.improve.grid)
    return ConsistencyBC(sizes, model, config.loss, config.optimiser, drawn, slow)


def _diffusion_bc(config: TrainConfig, sizes: Sizes, slow: Averaging = NEWEST) -> DiffusionBC:
    model = DiffusionModel(config.network, config.chain)
    return DiffusionBC(sizes, model, config.optimiser, slow)


def _consistency_ac(config: TrainConfig, sizes: Sizes) -> QGuided:
    actor = _consistency_bc(config, sizes, config.improve.slow)
    return QGuided(actor, _values(config, sizes), config.improve)


def _diffusion_ql(config: TrainConfig, sizes: Sizes) -> QGuided:
    actor = _diffusion_bc(config, sizes, config.improve.slow)
    return QGuided(actor, _values(config, sizes), config.improve)


def _values(config: TrainConfig, sizes: Sizes) -> Valuation:
    return Valuation(sizes, config.critic, config.value, config.optimiser.grad_clip)


def _bc(config: TrainConfig, sizes: Sizes) -> GaussianBC:
    model = GaussianModel(_widths(config), "action", log_std_min=LOG_STD_MIN)
    return GaussianBC(sizes, model, config.optimiser)


def _iql(config: TrainConfig, sizes: Sizes) -> Iql:
    model = GaussianModel(_widths(config), "mean", log_std_min=LOG_STD_MIN)
    values, settings = _plain_values(config, sizes), config.iql or IqlSettings()
    return Iql(model, values, settings, config.optimiser)


def _delayed(kind: type[Td3Bc] | type[Rebrac]) -> Callable[[TrainConfig, Sizes], Learner]:
    def make(config: TrainConfig, sizes: Sizes) -> Learner:
        model, settings = DeterministicModel(_widths(config)), config.td3 or Td3Settings()
        return kind(model, _plain_values(config, sizes), settings, config.optimiser)

    return make


def _widths(config: TrainConfig) -> Hidden:
    network = config.network
    if network.kind != "mlp" or network.dropout:
        raise ConfigError(
            f"network: {config.algorithm} has an MLP without dropout, got {network.kind} with "
            f"dropout {network.dropout:g}"
        )
    return network.hidden


def _plain_values(config: TrainConfig, sizes: Sizes) -> Valuation:
    if config.value.max_q > 1:
        raise ConfigError(
            f"value.max_q: {config.algorithm} has one action for each successor, got "
            f"{config.value.max_q}; expected 1"
        )
    return _values(config, sizes)


LEARNERS: dict[str, Callable[[TrainConfig, Sizes], Learner]] = {
    "consistency_bc": _consistency_bc,
    "consistency_ac": _consistency_ac,
    "diffusion_bc": _diffusion_bc,
    "diffusion_ql": _diffusion_ql,
    "bc": _bc,
    "td3_bc": _delayed(Td3Bc),
    "iql": _iql,
    "rebrac": _delayed(Rebrac),
}
