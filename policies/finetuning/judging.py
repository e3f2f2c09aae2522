"""Judging a new version off-line, beside the version in force, on observations of the robot."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.acting import AS_BUNDLED, ActSettings
from controller.clock import MonotonicClock
from controller.errors import ControllerError
from controller.interfaces import Clock
from controller.ranges import Engine
from controller.types import Array
from policies.batch import BatchPolicy
from policies.bundle import load_bundle
from policies.codec import Codec
from policies.engine_shapes import critic_shapes, require
from policies.errors import BundleError
from policies.finetuning.settings import GateSettings
from policies.golden import check_golden
from policies.local_policy import LocalPolicy
from policies.make_sampler import Samplers
from policies.sampling import NumpyCritics

NOISE = 2
"""Stream of a seed that both versions' noise is drawn from."""
AT_LIMIT = 1e-3
"""An element of an action is at its limit when it is as near, as a share of its range."""
CALLS = 50
"""Answers of each version that are timed."""

Figures = dict[str, float | None]


class Verdict(msgspec.Struct, frozen=True):
    """What was found.

    Figures, null where they do not apply: ``rows``; ``distance_mean`` and ``distance_max`` of the
    elements of both versions' actions, as a share of their range; ``at_limit`` and
    ``at_limit_in_force``, shares of elements; ``q`` and ``q_in_force``, mean least Q of both
    versions' actions by the candidate's critics; ``q_then`` and ``q_in_force_then``, by those of
    the version in force; ``action_us`` and ``action_us_in_force``, median time of an answer back
    to back.

    Attributes:
        ok: whether it may go on.
        reasons: why not, a line each.
        figures: see above; the same for the same seed, but for the times.
    """

    ok: bool
    reasons: tuple[str, ...] = ()
    figures: Figures = {}


def judge(
    candidate: Path,
    in_force: Path | None,
    observations: Array,
    settings: GateSettings,
    seed: int = 0,
    *,
    act: ActSettings = AS_BUNDLED,
    engine: Engine = "numpy",
    clock: Clock | None = None,
) -> Verdict:
    """Judge a new version.

    Both versions act on the same observations with the same noise. A bundle that is damaged,
    does not give its golden actions or is of another robot is refused like one that acts badly.

    Args:
        candidate: directory of its bundle.
        in_force: that of the version in force; None for none: then only what needs no other
            version is looked at.
        observations: (n, D) flat, in plant units; rows that are not finite are left out.
        settings: what is still good enough.
        seed: of the noise.
        act: how actions are chosen, where that is not left to the bundle.
        engine: what computes them.
        clock: measures the times; the machine's by default.

    Raises:
        BundleError: the version in force cannot act.
    """
    seen = observations[np.isfinite(observations).all(1)]
    clock = clock or MonotonicClock()
    old = None if in_force is None else _Contender(in_force, act, engine, clock)
    try:
        new = _Contender(candidate, act, engine, clock)
        if old is not None:
            old.bundle.spec.require(new.bundle.spec, "the version in force", str(candidate))
        figures, reasons = _compared(new, old, seen, settings, seed)
    except ControllerError as error:
        return Verdict(False, (str(error),))
    figures |= _times(new, old, seen, clock)
    return Verdict(not reasons, tuple(reasons), figures)


class _Contender:
    """A version that can act and value actions.

    Raises:
        BundleError: it cannot, or does not give its golden actions.
    """

    def __init__(self, path: Path, act: ActSettings, engine: Engine, clock: Clock) -> None:
        self.bundle = bundle = load_bundle(path)
        about, critics = bundle.manifest, bundle.critics()
        samplers = Samplers(about, bundle.weights, critics, engine)
        check_golden(bundle, LocalPolicy(about, bundle.codec, samplers, clock))
        self.local = LocalPolicy(about, bundle.codec, samplers, clock, act)
        sampler = samplers.of(about.sampler.changed(act))
        self._batch = BatchPolicy(bundle.spec, bundle.version, bundle.codec, sampler, about.horizon)
        self._critics = None
        if critics is not None and about.critic is not None:
            sizes = bundle.codec.condition_size, about.horizon * bundle.codec.action_size
            require(critics, critic_shapes(about.critic, *sizes), "critics")
            self._critics = NumpyCritics(critics, about.critic)

    def act(self, observations: Array, seed: int) -> Array:
        """Return chunks (n, H, *action shape)."""
        seen = observations.astype(np.float64, copy=False)
        return self._batch.act(seen, np.random.default_rng((seed, NOISE)))

    def value(self, observations: Array, chunks: Array) -> float | None:
        """Return the mean least Q of actions, None without critics."""
        if self._critics is None:
            return None
        codec = self.bundle.codec
        q = self._critics(codec.encode_observation(observations), codec.encode_chunk(chunks))
        return float(q.mean(dtype=np.float64))


def _compared(
    new: _Contender, old: _Contender | None, seen: Array, settings: GateSettings, seed: int
) -> tuple[Figures, list[str]]:
    """Return what was measured, and what speaks against the new version."""
    if not len(seen):
        raise BundleError(f"{new.bundle.path}: no finite observation to judge it on")
    actions = new.act(seen, seed)
    figures: Figures = {"rows": float(len(seen))}
    if not np.isfinite(actions).all():
        share = 1.0 - float(np.isfinite(actions.reshape(len(seen), -1)).all(1).mean())
        return figures, [f"actions on {share:.0%} of the held-out rows are not finite"]
    figures["at_limit"] = at_limit(actions, new.bundle.codec)
    figures["q"] = new.value(seen, actions)
    if figures["q"] is not None and not math.isfinite(figures["q"]):
        return figures, ["its critics give values that are not finite"]
    if old is None:
        return figures, []
    before = old.act(seen, seed)
    rows = min(actions.shape[1], before.shape[1])
    apart = distances(actions[:, :rows], before[:, :rows], old.bundle.codec)
    figures |= {
        "distance_mean": float(apart.mean()),
        "distance_max": float(apart.max()),
        "at_limit_in_force": at_limit(before, old.bundle.codec),
        "q_in_force": new.value(seen, before) if before.shape == actions.shape else None,
        "q_then": old.value(seen, actions) if before.shape == actions.shape else None,
        "q_in_force_then": old.value(seen, before),
    }
    return figures, _objections(figures, settings)


def _objections(figures: Figures, settings: GateSettings) -> list[str]:
    found: list[str] = []
    distance = figures["distance_mean"] or 0.0
    if distance > settings.distance:
        found.append(
            f"actions are {distance:.3g} of the range away from those of the version in force "
            f"in the mean, at most {settings.distance:g}"
        )
    more = (figures["at_limit"] or 0.0) - (figures["at_limit_in_force"] or 0.0)
    if more > settings.at_limit:
        found.append(
            f"{figures['at_limit']:.0%} of its actions are at their limits, "
            f"{figures['at_limit_in_force']:.0%} of those of the version in force, at most "
            f"{settings.at_limit:.0%} more"
        )
    q, usual = figures["q"], figures["q_in_force"]
    if q is not None and usual is not None and q < usual - settings.q_drop * abs(usual):
        found.append(
            f"mean Q of its actions is {q:.4g}, {usual:.4g} of those of the version in force, "
            f"at most {settings.q_drop:g} of it less"
        )
    return found


def distances(actions: Array, others: Array, codec: Codec) -> NDArray[np.float64]:
    """Return the distances of the elements of actions (n, H, ...), as shares of their range.

    Of an element without limits the range is that of the data the codec was fitted to.
    """
    apart = codec.encode_chunk(actions).astype(np.float64) - codec.encode_chunk(others)
    # Encoded actions lie in [-1, 1].
    return np.asarray(np.abs(apart) / 2.0)


def at_limit(actions: Array, codec: Codec) -> float:
    """Return the share of elements of actions (n, H, ...) that are at a limit."""
    flat = actions.reshape(-1, codec.action_size).astype(np.float64)
    near = 2.0 * AT_LIMIT * codec.span
    return float(((flat <= codec.low + near) | (flat >= codec.high - near)).mean())


def _times(new: _Contender, old: _Contender | None, seen: Array, clock: Clock) -> Figures:
    """Return median times of an answer in microseconds; the two take turns."""
    names = {"action_us": new} | ({"action_us_in_force": old} if old else {})
    taken: dict[str, list[int]] = {name: [] for name in names}
    for call in range(CALLS):
        row = seen[call % len(seen)][None]
        for name, one in names.items():
            start_ns = clock.now_ns()
            one.local.act(row, 0, call)
            taken[name].append(clock.now_ns() - start_ns)
    return {name: float(np.median(times)) / 1e3 for name, times in taken.items()}
