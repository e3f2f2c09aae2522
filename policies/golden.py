"""Golden actions: observations that a bundle keeps with the answers it must give to them."""

from __future__ import annotations

import numpy as np

from controller.clock import MonotonicClock
from controller.types import Array
from policies.bundle import Bundle
from policies.errors import BundleError
from policies.local_policy import LocalPolicy
from policies.make_sampler import Samplers
from policies.manifest import Arrays, Draft

TOLERANCE = 1e-4
"""Largest difference from the golden actions in encoded units: engines and processors round
differently by about 1e-6."""
ROWS = 8
"""Observations that a bundle keeps with their actions."""
TRIES = 100
"""Ticks to try for one whose choice among candidates is no matter of rounding."""


def golden(
    draft: Draft, weights: Arrays, observations: Array, critics: Arrays | None = None
) -> Arrays:
    """Return what a bundle keeps to be checked by: observations, seeds, ticks and actions.

    Actions are (n, *action shape), or (n, H, *action shape) of a policy of chunks.

    Args:
        draft: the policy.
        weights: its network.
        observations: (n, D) flat observations to choose from.
        critics: its target critics.
    """
    rows = np.linspace(0, len(observations) - 1, ROWS).astype(np.int64)
    samplers = Samplers(draft, weights, critics)
    policy = LocalPolicy(draft, draft.codec, samplers, MonotonicClock())
    seeds = np.arange(ROWS)
    ticks = [_clear_tick(policy, observations[row], seed) for seed, row in enumerate(rows)]
    actions = _answers(policy, observations[rows], seeds, np.array(ticks))
    return {
        "observations": observations[rows],
        "seeds": seeds,
        "ticks": np.array(ticks),
        "actions": actions[:, 0] if draft.horizon == 1 else actions,
    }


def _clear_tick(policy: LocalPolicy, observation: Array, seed: int) -> int:
    """Return a tick at which the choice among candidates is no matter of rounding."""
    ticks = range(7 * seed, 7 * seed + TRIES)
    clear = (tick for tick in ticks if policy.is_clear(observation[None], seed, tick))
    return next(clear, ticks[0])


def check_golden(bundle: Bundle, policy: LocalPolicy) -> None:
    """Raise unless ``policy`` gives the actions the bundle was saved with.

    Raises:
        BundleError: an action differs, or is not finite.
    """
    kept, codec = bundle.golden, bundle.codec
    try:
        got = _answers(policy, kept["observations"], kept["seeds"], kept["ticks"])
        expected = codec.encode_chunk(kept["actions"].reshape(got.shape))
    except (KeyError, ValueError, IndexError) as error:
        raise BundleError(f"{bundle.path}: golden observations do not fit: {error}") from error
    if not np.isfinite(got).all():
        raise BundleError(f"{bundle.path}: the policy's actions are not finite")
    difference = float(np.abs(codec.encode_chunk(got) - expected).max())
    if difference > TOLERANCE:
        raise BundleError(
            f"{bundle.path}: golden actions differ by {difference:.2g} of the action range, "
            f"expected at most {TOLERANCE:g}: the arrays are not those it was saved with"
        )


def _answers(policy: LocalPolicy, observations: Array, seeds: Array, ticks: Array) -> Array:
    """Return (n, H, *action shape)."""
    keys = zip(observations, seeds.tolist(), ticks.tolist(), strict=True)
    return np.stack([policy.act(row[None], seed, tick) for row, seed, tick in keys])
