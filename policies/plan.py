"""Samplers unrolled: one step per network evaluation, its constants worked out beforehand.

Rows of an answer that are known beforehand (``policies.prefix``) are written into x before the
first step, times :func:`share_at_start`, and into ``clean`` at each. That gives them the noise of
the level at each evaluation: of a chain, the one its own posterior has given the known rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.diffusion.precond import Precondition
from policies.diffusion.schedule import VarianceSchedule, respaced, variance_preserving
from policies.model import ConsistencyModel, DiffusionModel, SamplerSettings, evaluations


@dataclass(frozen=True)
class Step:
    """One evaluation of the network F, from x = 0 at first, with its own noise z.

    x <- x + spread z; clean = skip x + gain F(scale x, label, s), within [-1, 1] if limited;
    x <- keep_clean clean + keep_x x.
    """

    label: float
    scale: float
    gain: float
    spread: float
    skip: float
    limited: bool
    keep_clean: float = 1.0
    keep_x: float = 0.0


def plan(model: ConsistencyModel | DiffusionModel, sampler: SamplerSettings) -> tuple[Step, ...]:
    """Return the steps that ``multi_step`` or ``ancestral`` take for a policy."""
    if isinstance(model, ConsistencyModel):
        return _consistency(model, sampler)
    return _diffusion(model, sampler)


def share_at_start(model: ConsistencyModel | DiffusionModel, sampler: SamplerSettings) -> float:
    """Return what is left of a clean action where sampling starts, beside its noise."""
    if isinstance(model, ConsistencyModel):
        return 1.0
    chain, _ = chain_of(model, sampler)
    return float(chain.alpha_bars[-1] ** 0.5)


def chain_of(model: DiffusionModel, sampler: SamplerSettings) -> tuple[VarianceSchedule, list[int]]:
    """Return the chain that is walked, and what the network is told at each of its steps."""
    chain = model.chain
    whole = variance_preserving(chain.steps, chain.b_min, chain.b_max)
    return respaced(whole, evaluations(model, sampler))


def _consistency(model: ConsistencyModel, sampler: SamplerSettings) -> tuple[Step, ...]:
    """Denoise, renoise, denoise (Song et al. 2023, alg. 1)."""
    pre, levels = Precondition.of(model.noise), model.levels(sampler)
    lower = [(sigma**2 - model.noise.sigma_min**2) ** 0.5 for sigma in levels[1:]]
    spreads = [levels[0] * sampler.temperature, *lower]
    return tuple(
        Step(
            label=pre.c_noise(sigma),
            scale=pre.c_in(sigma),
            gain=pre.c_out(sigma),
            spread=spread,
            skip=pre.c_skip(sigma),
            limited=sigma == levels[-1],
        )
        for sigma, spread in zip(levels, spreads, strict=True)
    )


def _diffusion(model: DiffusionModel, sampler: SamplerSettings) -> tuple[Step, ...]:
    """Walk the chain back (Ho et al. 2020, alg. 2), whole or a part of its steps."""
    chain, labels = chain_of(model, sampler)
    bars = (1.0, *chain.alpha_bars)
    spreads = [*(variance**0.5 for variance in chain.variances[1:]), sampler.temperature]
    steps = [
        Step(
            label=float(labels[t - 1]),
            scale=1.0,
            gain=-(((1.0 - bars[t]) / bars[t]) ** 0.5),
            spread=spreads[t - 1],
            skip=bars[t] ** -0.5,
            limited=True,
            keep_clean=bars[t - 1] ** 0.5 * chain.betas[t - 1] / (1.0 - bars[t]),
            keep_x=(1.0 - chain.betas[t - 1]) ** 0.5 * (1.0 - bars[t - 1]) / (1.0 - bars[t]),
        )
        for t in range(len(chain), 0, -1)
    ]
    return tuple(steps)
