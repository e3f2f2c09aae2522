"""Exploring: at some ticks an evenly drawn action takes the place of the policy's.

At which ticks, and what is drawn, are functions of the settings, the seed and the tick alone, so
that a log that names them can be recomputed. They come from a stream of their own: the counter of
Philox (Salmon et al. 2011), keyed by (seed, tick) as the policy's noise is, begins at 2^192.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.answers import fault_of
from controller.errors import ConfigError
from controller.explore_settings import ExploreSettings
from controller.interfaces import AheadPolicy, Policy
from controller.limits import bounds_in_dtype
from controller.spec import ArraySpec, Spec
from controller.types import ActionChunk, Array, Rejected, Request
from controller.wrapped import WrappedPolicy

STREAM: Final = (0, 0, 0, 1)
"""Where the counter begins, least word first; the policy's noise begins at 0."""


class Explorer:
    """What is explored at which tick of a run.

    Args:
        spec: the robot.
        settings: with what chance.
        seed: seed of the run.

    Raises:
        ConfigError: an element of the action has no limits to draw within.
    """

    def __init__(self, spec: Spec, settings: ExploreSettings, seed: int) -> None:
        self._settings, self._seed, self._action = settings, seed, spec.action
        low, high = bounds_in_dtype(spec.action)
        _require_limits(spec.action, low, high)
        self._low, self._high = low, high
        self._base = low.astype(np.float64)
        # A whole number has the room of one, so that the last is as likely as the others.
        self._span = high.astype(np.float64) - self._base + (low.dtype.kind != "f")
        self._philox = np.random.Philox(key=[0, 0], counter=list(STREAM))
        self._generator = np.random.Generator(self._philox)
        self._start: Any = self._philox.state

    def drawn(self, tick: int) -> Array | None:
        """Return the action (*shape) that is drawn at a tick; None where the policy acts."""
        chance = self._settings.chance(tick)
        if chance <= 0.0:
            return None
        even = self._even(tick)
        return self._within(even[1:]) if even[0] < chance else None

    def action(self, tick: int) -> Array:
        """Return the action (*shape) that would be drawn at a tick, whatever the chance."""
        return self._within(self._even(tick)[1:])

    def laid_over(self, chunk: ActionChunk) -> ActionChunk:
        """Return a chunk with what is drawn at the ticks of its rows laid over it.

        A chunk that cannot be used stays as it is, for it is no better where it explores.
        """
        found = {
            row: drawn
            for row in range(len(chunk.actions))
            if (drawn := self.drawn(chunk.tick + row)) is not None
        }
        if not found or fault_of(chunk, chunk.tick, self._action)[1]:
            return chunk
        actions = chunk.actions.copy()
        for row, drawn in found.items():
            actions[row] = drawn
        ticks = tuple(chunk.tick + row for row in found)
        return replace(chunk, actions=actions, explored=ticks)

    def _even(self, tick: int) -> NDArray[np.float64]:
        """Return 1 + size numbers even in [0, 1): the coin's, and one for each element."""
        self._start["state"]["key"][:] = (self._seed, tick)
        self._philox.state = self._start
        return self._generator.random(1 + self._action.size)

    def _within(self, even: NDArray[np.float64]) -> Array:
        values = self._base + even.reshape(self._base.shape) * self._span
        if self._low.dtype.kind != "f":
            values = np.floor(values)
        return np.clip(values.astype(self._low.dtype), self._low, self._high)


def explores(settings: ExploreSettings, seed: int, tick: int) -> bool:
    """Return whether a run explores at a tick."""
    chance = settings.chance(tick)
    random = np.random.Generator(np.random.Philox(key=[seed, tick], counter=list(STREAM)))
    return bool(random.random() < chance)


def explored_action(spec: Spec, seed: int, tick: int) -> Array:
    """Return the action that is drawn at a tick where a run explores.

    Raises:
        ConfigError: an element of the action has no limits to draw within.
    """
    return Explorer(spec, ExploreSettings(), seed).action(tick)


class ExploringPolicy(WrappedPolicy):
    """Another policy's answers, with an evenly drawn action in the place of some of their rows.

    Args:
        policy: whom to ask.
        settings: with what chance.
        seed: seed of the run.
        ask: ask the policy also for what an exploring tick does not use, and explore only where
            it answers: a robot whose policy is gone must not go on by chance. False saves the
            time where it cannot be gone.

    Raises:
        ConfigError: an element of the action has no limits to draw within.
    """

    def __init__(
        self, policy: Policy, settings: ExploreSettings, seed: int, *, ask: bool = True
    ) -> None:
        super().__init__(policy)
        self._asks = ask
        self._explorer = Explorer(policy.spec, settings, seed)
        self._newest: tuple[ActionChunk, ActionChunk] | None = None

    @property
    def newest_chunk(self) -> ActionChunk | None:
        """The newest answer that arrived, late ones included; the same until there is another."""
        newest: ActionChunk | None = getattr(self._policy, "newest_chunk", None)
        if newest is None:
            return None
        if self._newest is None or self._newest[0] is not newest:
            self._newest = newest, self._explorer.laid_over(newest)
        return self._newest[1]

    def infer(self, request: Request) -> ActionChunk | None:
        """Ask, and explore.

        Raises:
            Exception: whatever the policy raises.
        """
        tick = request.tick
        if not self._asks and (drawn := self._explorer.drawn(tick)) is not None:
            version = self._policy.version
            return ActionChunk(tick, drawn[None], version, 0, candidates=0, explored=(tick,))
        chunk = self._policy.infer(request)
        return None if chunk is None else self._explorer.laid_over(chunk)


class ExploringAheadPolicy(ExploringPolicy):
    """The same for a policy that can be asked without waiting.

    Args:
        policy: whom to ask.
        settings: with what chance.
        seed: seed of the run.

    Raises:
        ConfigError: an element of the action has no limits to draw within.
    """

    def __init__(self, policy: AheadPolicy, settings: ExploreSettings, seed: int) -> None:
        super().__init__(policy, settings, seed)
        self._ahead = policy

    def submit(self, request: Request) -> bool:
        """Send ``request`` off; False when it could not be sent."""
        return self._ahead.submit(request)

    def poll(self) -> ActionChunk | Rejected | None:
        """Return the next answer that has arrived, or None when there is none."""
        answer = self._ahead.poll()
        return self._explorer.laid_over(answer) if isinstance(answer, ActionChunk) else answer


def exploring(policy: Policy, settings: ExploreSettings, seed: int, *, ask: bool = True) -> Policy:
    """Return a policy that explores as the settings say; the policy itself where they do not.

    Args:
        policy: whom to ask. One that can be asked ahead still can.
        settings: with what chance.
        seed: seed of the run.
        ask: see :class:`ExploringPolicy`; what is asked ahead always is.

    Raises:
        ConfigError: an element of the action has no limits to draw within.
    """
    if not settings.active:
        return policy
    if ask and isinstance(policy, AheadPolicy):
        return ExploringAheadPolicy(policy, settings, seed)
    return ExploringPolicy(policy, settings, seed, ask=ask)


def _require_limits(action: ArraySpec, low: Array, high: Array) -> None:
    limited = np.isfinite(low) & np.isfinite(high)
    if limited.all():
        return
    index = int(np.argmin(limited.reshape(-1)))
    name = action.elements[index] if action.elements else str(index)
    raise ConfigError(
        f"explore: element {name} of the action {action.name} has no limits to draw within; "
        "expected explore.start=0 explore.end=0, or a robot whose actions all have low and high"
    )
