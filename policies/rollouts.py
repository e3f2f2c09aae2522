"""Whole episodes of several copies of a robot at once, to score a policy by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.interfaces import VectorPlant
from controller.types import Array

Float64 = NDArray[np.float64]


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
    success: NDArray[np.bool_]


def roll_out(
    plants: VectorPlant,
    act: Callable[[Float64], Array],
    episodes: int,
    seed: int,
    on_episode: Callable[[], None] | None = None,
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
    """
    due = np.full(plants.num, episodes // plants.num)
    due[: episodes % plants.num] += 1
    rows: list[tuple[float, int, bool]] = []
    observations = plants.reset(seed)
    while due.any():
        step = plants.step(act(observations))
        observations = step.observations
        for copy in np.flatnonzero((step.terminated | step.truncated) & (due > 0)):
            due[copy] -= 1
            rows.append((step.episode_returns[copy], step.episode_steps[copy], step.success[copy]))
            if on_episode is not None:
                on_episode()
    returns, lengths, success = zip(*rows, strict=True) if rows else ((), (), ())
    return Episodes(np.array(returns, float), np.array(lengths, int), np.array(success, bool))
