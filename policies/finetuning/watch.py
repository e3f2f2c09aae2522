"""Whether versions do worse on the robot than the one before them, by the returns of episodes.

The measure is the *good* version: the first, until another has proven better. Versions come
faster than episodes end, so the newest episodes of all versions after the good one are judged
together. Returns are noisy, and of every pair of equals one looks worse: a difference counts
only where it is larger than its own error, see :func:`worse` and :func:`better`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from controller.errors import WireError
from policies.finetuning.versions import Proven, Standing

SURE = 3.0
"""Standard errors that two means must differ by before they count as different. The window is
looked at again with every episode: of equals whose returns spread by a quarter, at 2 errors 18 %
were taken back within 200 episodes, at 3 errors 7 %; of those half as good, all at either."""
KEPT = 4_096
"""Newest episodes that are remembered."""

Simulated = Callable[[str], Sequence[float] | None]
"""Gives the returns of a version in simulation; None where there is none."""


class Episode(msgspec.Struct, frozen=True):
    """An episode as the replay service tells it.

    Attributes:
        total: its undiscounted return.
        version: that acted in most of its rows.
        env_step: rows that were inserted, of all actors, when it ended.
        length: rows.
        commanded: of these, rows whose command was the policy's, or drawn in its stead.
    """

    total: float = msgspec.field(name="return")
    version: str
    env_step: int = 0
    length: int = 0
    commanded: int = 0

    @property
    def telling(self) -> bool:
        """Whether its return says something of its version: it had the word in most rows."""
        return math.isfinite(self.total) and 2 * self.commanded >= self.length


class Fell(msgspec.Struct, frozen=True):
    """The versions after the good one do worse.

    Attributes:
        why: one line.
    """

    why: str


def mean(values: Sequence[float]) -> float:
    """Return the mean of one value or more."""
    return float(np.mean(values))


def error_of(some: Sequence[float], others: Sequence[float]) -> float:
    """Return the standard error of the difference of two means (Welch 1947)."""
    return math.sqrt(sum(np.var(r, ddof=1) / len(r) for r in (some, others) if len(r) > 1))


def worse(after: Sequence[float], before: Sequence[float], margin: float) -> bool:
    """Return whether the mean of ``after`` is worse than that of ``before`` beyond doubt.

    It is when it is lower by more than ``margin`` of the latter's size, and by more than
    ``SURE`` standard errors of the difference.
    """
    usual = mean(before)
    drop = usual - mean(after)
    return drop > max(margin * abs(usual), SURE * error_of(after, before))


def better(after: Sequence[float], before: Sequence[float]) -> bool:
    """Return whether the mean of ``after`` is higher by more than ``SURE`` standard errors.

    Were each higher mean taken for better, luck would raise the measure from window to window
    until equals failed it.
    """
    return mean(after) - mean(before) > SURE * error_of(after, before)


class Watch:
    """Follows the episodes on the robot.

    Args:
        window: newest episodes that are judged together.
        margin: how far below the good version's mean theirs may fall, as a share of its size.

    Attributes:
        following: index of the first episode that was not told yet.
    """

    def __init__(self, window: int, margin: float) -> None:
        self._window, self._margin = window, margin
        self._episodes: deque[Episode] = deque(maxlen=KEPT)
        self.following = 0

    def take(self, report: Mapping[str, Any]) -> None:
        """Take in the report on ``episodes`` since :attr:`following`.

        Raises:
            WireError: it is none.
        """
        try:
            following = msgspec.convert(report.get("next"), int)
            fresh = msgspec.convert(report.get("episodes"), list[Episode])
        except msgspec.ValidationError as error:
            raise WireError(f"the report on episodes: {error}") from None
        if following < self.following:
            # The service was restarted from what it had saved: its numbers are others now.
            self._episodes.clear()
            self.following = 0
            return
        self.following = following
        self._episodes.extend(one for one in fresh if one.telling)

    @property
    def recent_mean(self) -> float | None:
        """Mean return of the newest episodes, None before the first."""
        newest = list(self._episodes)[-self._window :]
        return mean([one.total for one in newest]) if newest else None

    def judge(
        self, standing: Standing, simulated: Simulated = lambda version: None
    ) -> Fell | Proven | None:
        """Return what the episodes say of the versions after the good one, None for nothing.

        The newest ``window`` episodes of theirs are held against those of the good version: the
        ones that proved it and its own since, ``window`` at least, else those in simulation.
        Without either, and with fewer episodes, nothing is said.

        Args:
            standing: which versions there are.
            simulated: asked for the good version's returns where it has too few episodes.
        """
        later = set(standing.since_good)
        after = [one for one in self._episodes if one.version in later][-self._window :]
        if len(after) < self._window:
            return None
        before = self._measure(standing, simulated)
        if before is None:
            return None
        returns = [one.total for one in after]
        if worse(returns, before, self._margin):
            return Fell(
                f"mean return {mean(returns):.5g} over the last {len(returns)} episodes, below "
                f"{mean(before):.5g} of {standing.good} by more than {self._margin:g} of it"
            )
        if better(returns, before):
            return Proven(
                version=_most(after), returns=tuple(returns), env_steps=after[-1].env_step
            )
        return None

    def _measure(self, standing: Standing, simulated: Simulated) -> Sequence[float] | None:
        proof = standing.proof
        since = proof.env_steps if proof else -1
        own = [
            one.total
            for one in self._episodes
            if one.version == standing.good and one.env_step > since
        ]
        known = [*(proof.returns if proof else ()), *own]
        return known if len(known) >= self._window else simulated(standing.good)


def _most(episodes: Sequence[Episode]) -> str:
    """Return the version of most of the episodes, of equals the newest."""
    versions = [one.version for one in episodes]
    return max(reversed(versions), key=versions.count)
