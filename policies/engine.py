"""A bundle as a policy that answers in this process.

The noise of a request derives from (seed, tick) alone, so any logged action can be computed
again. With the numpy engine, and with the torch engine on a CPU with one thread, the same
request gives the same bits in every process of a machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.acting import AS_BUNDLED, ActSettings
from controller.clock import MonotonicClock
from controller.interfaces import Clock
from controller.ranges import Device, Engine
from controller.spec import Spec
from controller.types import ActionChunk, Array, Observation, Request
from policies.bundle import Arrays, Bundle, Draft, load_bundle
from policies.choice import Sampler
from policies.codec import Codec
from policies.errors import BundleError
from policies.make_sampler import make_sampler

Float32 = NDArray[np.float32]

GOLDEN_TOLERANCE = 1e-4
"""Largest difference from the golden actions in encoded units: engines and processors round
differently by about 1e-6."""
GOLDEN_ROWS = 8
"""Observations that a bundle keeps with their actions."""
GOLDEN_TRIES = 100
"""Ticks to try for one whose choice among candidates is no matter of rounding."""


class NoiseSource:
    """Standard normal noise determined by (seed, tick), by numpy's Philox generator.

    Args:
        shape: shape of one draw.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._philox = np.random.Philox(key=[0, 0])
        self._generator = np.random.Generator(self._philox)
        self._start: Any = self._philox.state

    def draw(self, seed: int, tick: int) -> Float32:
        """Return what a fresh ``Generator(Philox(key=[seed, tick]))`` gives first.

        Setting the state takes 3 us, building a generator 17 us.
        """
        self._start["state"]["key"][:] = (seed, tick)
        self._philox.state = self._start
        return self._generator.standard_normal(self._shape, dtype=np.float32)

    def uniform(self) -> NDArray[np.float64]:
        """Return one number even in [0, 1), what the generator gives after a draw."""
        return self._generator.random(1)


class LocalPolicy:
    """A :class:`controller.interfaces.Policy` in this process. Not for two threads at once.

    Args:
        spec: the robot it was made for.
        version: of the policy.
        codec: normalisation and limits.
        sampler: draws actions.
        clock: measures ``infer_ns``.
    """

    def __init__(
        self,
        spec: Spec,
        version: str,
        codec: Codec,
        sampler: Sampler,
        clock: Clock,
    ) -> None:
        self._spec, self._version = spec, version
        self._codec, self._sampler, self._clock = codec, sampler, clock
        self._noise = NoiseSource((sampler.steps, sampler.candidates, codec.action_size))

    @property
    def spec(self) -> Spec:
        """The robot it was made for."""
        return self._spec

    @property
    def version(self) -> str:
        """Version of the policy."""
        return self._version

    def act(self, observation: Array | tuple[Array, ...], seed: int, tick: int) -> Array:
        """Return (1, *action shape) in plant units for one observation, flat or in arrays."""
        condition = self._codec.encode_observation(observation)
        return self._codec.decode_action(self._sampler(condition, *self._random(seed, tick)))

    def is_clear(self, observation: Array, seed: int, tick: int) -> bool:
        """Return whether another engine is sure to take the same candidate."""
        condition = self._codec.encode_observation(observation)
        return self._sampler.is_clear(condition, *self._random(seed, tick))

    def _random(self, seed: int, tick: int) -> tuple[Float32, NDArray[np.float64] | None]:
        drawn = self._noise.draw(seed, tick)
        return drawn, self._noise.uniform() if self._sampler.uniform else None

    def infer(self, request: Request) -> ActionChunk:
        """Answer ``request`` with one action. Not finite where the observation is not."""
        start_ns = self._clock.now_ns()
        actions = self.act(request.observation.arrays, request.seed, request.tick)
        return ActionChunk(
            tick=request.tick,
            actions=actions,
            version=self._version,
            evaluations=self._sampler.steps,
            infer_ns=self._clock.now_ns() - start_ns,
        )

    def warm_up(self, calls: int = 20) -> None:
        """Answer ``calls`` made-up requests, so that the first real one is not slow."""
        arrays = tuple(np.zeros(a.shape, a.dtype) for a in self._spec.observation)
        for tick in range(calls):
            self.infer(Request(tick, 0, Observation(arrays, 0), 0, 0))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def load_policy(
    path: Path | str,
    engine: Engine = "numpy",
    device: Device = "cpu",
    clock: Clock | None = None,
    act: ActSettings = AS_BUNDLED,
) -> LocalPolicy:
    """Load a bundle, or the current one of a store, as a policy, checked and warmed up.

    Args:
        path: a bundle or a store.
        engine: numpy, torch or onnx.
        device: cpu, or cuda with engine torch.
        clock: measures ``infer_ns``; the machine's by default.
        act: how an action is chosen, where that is not left to the bundle.

    Raises:
        BundleError: the bundle is damaged, does not give its golden actions, or cannot act as
            asked.
    """
    bundle, clock = load_bundle(path), clock or MonotonicClock()
    about, critics = bundle.manifest, bundle.critics()

    def acting(act: ActSettings) -> LocalPolicy:
        sampler = make_sampler(about, bundle.weights, critics, engine, device, act)
        return LocalPolicy(about.spec, about.version, bundle.codec, sampler, clock)

    policy = acting(AS_BUNDLED)
    check_golden(bundle, policy)
    if act != AS_BUNDLED:
        policy = acting(act)
    policy.warm_up()
    return policy


def golden(
    draft: Draft, weights: Arrays, observations: Array, critics: Arrays | None = None
) -> Arrays:
    """Return what a bundle keeps to be checked by: observations, seeds, ticks and actions.

    Args:
        draft: the policy.
        weights: its network.
        observations: (n, D) flat observations to choose from.
        critics: its target critics.
    """
    rows = np.linspace(0, len(observations) - 1, GOLDEN_ROWS).astype(np.int64)
    policy = LocalPolicy(
        spec=draft.spec,
        version="",
        codec=draft.codec,
        sampler=make_sampler(draft, weights, critics),
        clock=MonotonicClock(),
    )
    seeds = np.arange(GOLDEN_ROWS)
    ticks = [_clear_tick(policy, observations[row], seed) for seed, row in enumerate(rows)]
    return {
        "observations": observations[rows],
        "seeds": seeds,
        "ticks": np.array(ticks),
        "actions": _act_all(policy, observations[rows], seeds, np.array(ticks)),
    }


def _clear_tick(policy: LocalPolicy, observation: Array, seed: int) -> int:
    """Return a tick at which the choice among candidates is no matter of rounding."""
    ticks = range(7 * seed, 7 * seed + GOLDEN_TRIES)
    clear = (tick for tick in ticks if policy.is_clear(observation[None], seed, tick))
    return next(clear, ticks[0])


def check_golden(bundle: Bundle, policy: LocalPolicy) -> None:
    """Raise unless ``policy`` gives the actions the bundle was saved with.

    Raises:
        BundleError: an action differs, or is not finite.
    """
    kept = bundle.golden
    try:
        got = _act_all(policy, kept["observations"], kept["seeds"], kept["ticks"])
        expected = bundle.codec.encode_action(kept["actions"])
    except (KeyError, ValueError, IndexError) as error:
        raise BundleError(f"{bundle.path}: golden observations do not fit: {error}") from error
    if not np.isfinite(got).all():
        raise BundleError(f"{bundle.path}: the policy's actions are not finite")
    difference = float(np.abs(bundle.codec.encode_action(got) - expected).max())
    if difference > GOLDEN_TOLERANCE:
        raise BundleError(
            f"{bundle.path}: golden actions differ by {difference:.2g} of the action range, "
            f"expected at most {GOLDEN_TOLERANCE:g}: the arrays are not those it was saved with"
        )


def _act_all(policy: LocalPolicy, observations: Array, seeds: Array, ticks: Array) -> Array:
    keys = zip(observations, seeds.tolist(), ticks.tolist(), strict=True)
    return np.concatenate([policy.act(row[None], seed, tick) for row, seed, tick in keys])
