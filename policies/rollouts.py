"""Whole episodes of several copies of a robot at once, to score a policy by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.interfaces import VectorPlant
from controller.types import Array

Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Episodes:
    """E episodes.

    Attributes:
        returns: (E,) undiscounted.
        lengths: (E,) control steps.
        success: (E,) bool; the task's own flag.
    """

    returns: Float64
    lengths: NDArray[np.int64]
    success: Flags


class Executor:
    """Executes the first rows of an answer before it asks again; each copy for itself.

    Nothing is executed of an answer to an episode that is over.

    Args:
        ask: gives chunks (M, H, ...) for observations (M, D) of the copies that need one.
        copies: N.
        execute: rows of an answer to execute, 1 to H.
    """

    def __init__(self, ask: Callable[[Float64], Array], copies: int, execute: int) -> None:
        self._ask, self._execute = ask, execute
        self._every = np.arange(copies)
        self._next = np.full(copies, execute)
        self._rows: Array | None = None

    def begin(self, copies: Flags) -> None:
        """Drop what is left of the answers of ``copies``, (N,), which begin an episode."""
        self._next[copies] = self._execute

    def __call__(self, observations: Float64) -> Array:
        """Return actions (N, ...) for observations (N, D)."""
        due = self._next == self._execute
        if self._rows is None or due.all():
            self._rows = self._ask(observations)
        elif due.any():
            self._rows[due] = self._ask(observations[due])
        self._next[due] = 0
        actions: Array = self._rows[self._every, self._next]
        self._next += 1
        return actions


def roll_out(
    plants: VectorPlant,
    act: Callable[[Float64], Array],
    episodes: int,
    seed: int,
    on_episode: Callable[[], None] | None = None,
    on_begin: Callable[[Flags], None] | None = None,
) -> Episodes:
    """Run episodes and return what came of them.

    Every copy runs its share to the end: of copies that run on until enough episodes are over,
    the short episodes would be over first.

    Args:
        plants: N copies; left in the middle of episodes.
        act: gives actions (N, ...) in plant units for observations (N, D).
        episodes: E.
        seed: determines the episodes' beginnings.
        on_episode: called at the end of each.
        on_begin: called with which copies (N,) begin an episode with what ``act`` sees next,
            the first ones excepted.
    """
    due = np.full(plants.num, episodes // plants.num)
    due[: episodes % plants.num] += 1
    rows: list[tuple[float, int, bool]] = []
    observations = plants.reset(seed)
    while due.any():
        step = plants.step(act(observations))
        observations = step.observations
        over = step.terminated | step.truncated
        if on_begin is not None:
            on_begin(over)
        for copy in np.flatnonzero(over & (due > 0)):
            due[copy] -= 1
            rows.append((step.episode_returns[copy], step.episode_steps[copy], step.success[copy]))
            if on_episode is not None:
                on_episode()
    returns, lengths, success = zip(*rows, strict=True) if rows else ((), (), ())
    return Episodes(np.array(returns, float), np.array(lengths, int), np.array(success, bool))
