"""Which ticks of a run are experience: pairs of an observation and its own successor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.feed.kinds import Kinds, kinds
from controller.types import Array

ACTING_TICKS = 16
"""A command that acts may be this many ticks old; an older one is taken for unknown."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Numbers(NamedTuple):
    """(N,) each of :data:`controller.feed.rows.NUMBERS` but the version."""

    reward: Floats
    terminal: Flags
    timeout: Flags
    over: Flags
    kind: Kinds
    episode_return: Floats
    success: Flags


@dataclass(frozen=True)
class Experience:
    """T ticks of a run in order, in columns: what learning needs of them.

    Attributes:
        tick: (T,) tick numbers; those of skipped periods are missing.
        running: (T,) the loop was in RUN.
        rung: (T,) values of ``Rung``.
        reasons: (T,) bit sets of ``Reason``.
        episode: (T,) episode of the observation.
        step: (T,) steps of the plant since the reset.
        applied_tick: (T,) tick of the command that the last step of the plant applied.
        reward: (T,) of the step that led to the observation.
        episode_return: (T,) sum of rewards since the reset.
        terminated: (T,) the task ended in this observation.
        truncated: (T,) the episode was cut by time in this observation.
        success: (T,) the task's success flag.
        observation: (T, D) the arrays of each observation end to end.
        requested: (T, A) actions before the safety filter.
        executed: (T, A) commands sent.
    """

    tick: Ints
    running: Flags
    rung: Ints
    reasons: Ints
    episode: Ints
    step: Ints
    applied_tick: Ints
    reward: Floats
    episode_return: Floats
    terminated: Flags
    truncated: Flags
    success: Flags
    observation: NDArray[np.floating]
    requested: NDArray[np.floating]
    executed: NDArray[np.floating]

    def links(self) -> tuple[Flags, Flags]:
        """Return what :func:`links` makes of these ticks."""
        done = self.terminated | self.truncated
        finite = in_range(self.reward) & in_range(self.episode_return)
        finite &= in_range(self.observation).all(axis=1)
        return links(self.tick, self.running, self.episode, self.step, done, finite)

    def pairs(self) -> tuple[Ints, Flags]:
        """Return (N,) rows, each leading to the row after it, and (N,) where the chain is cut."""
        leads, broken = self.links()
        rows = np.flatnonzero(leads)
        return rows, cuts(rows, broken)

    def steps(self, rows: Ints) -> Ints:
        """Return (N,) how many steps of the plant lead from each of the rows to the next."""
        return self.step[rows + 1] - self.step[rows]

    def applied(self, rows: Ints) -> Flags:
        """Return (N,) whether the command was the newest when the plant made the step.

        For the first part of the step it may have been the one before.
        """
        flags: Flags = self.applied_tick[rows + 1] == self.tick[rows]
        return flags

    def acting(self, rows: Ints) -> tuple[Ints, Flags]:
        """Return whose commands the plant made its steps with.

        The one that answers an observation is often on its way while the step begins, so that the
        one before acts, or an older one. The next observation names the newest that did.

        Args:
            rows: (N,) rows that lead to the next one.

        Returns:
            (N,) the row of the tick whose command acted, its own where that is not known, and (N,)
            whether it is: not of another episode, nor older than ``ACTING_TICKS``.
        """
        applied = self.applied_tick[rows + 1]
        found = np.searchsorted(self.tick[:-1], applied)
        known = (self.tick[found] == applied) & (self.episode[found] == self.episode[rows])
        known &= self.tick[rows] - applied <= ACTING_TICKS
        known &= found <= rows
        return np.where(known, found, rows), known

    def numbers(self, rows: Ints, cut: Flags, known: Flags) -> Numbers:
        """Return the numbers of rows.

        Args:
            rows: (N,) rows that lead to the next one.
            cut: (N,) whether the chain is cut after it.
            known: (N,) as from :meth:`acting`.
        """
        after = rows + 1
        terminal, truncated = self.terminated[after], self.truncated[after]
        gained = self.episode_return[after] - self.episode_return[rows]
        asked: Flags = np.isfinite(self.requested[rows]).all(axis=1)
        return Numbers(
            reward=np.where(self.steps(rows) == 1, self.reward[after], gained),
            terminal=terminal,
            timeout=(cut | truncated) & ~terminal,
            over=terminal | truncated,
            kind=kinds(self.rung[rows], self.reasons[rows], asked, known),
            episode_return=self.episode_return[after],
            success=self.success[after],
        )


def in_range(numbers: Array) -> Flags:
    """Return which numbers are finite in single precision, in which they are learned from."""
    with np.errstate(over="ignore"):
        flags: Flags = np.isfinite(numbers.astype(np.float32, copy=False))
    return flags


def links(
    tick: Ints, running: Flags, episode: Ints, step: Ints, done: Flags, finite: Flags
) -> tuple[Flags, Flags]:
    """Return which ticks lead to the tick after them, and behind which the chain is broken.

    A tick leads to the next one when the loop was in RUN, both belong to one episode that was
    not over, no period was skipped between them, both observations are finite, and the plant
    made at least one step. Where the plant made none, both ticks saw the same observation: the
    earlier one gives no row, as the later command replaced its own, and the chain goes on.
    Everything else breaks the chain.

    Args:
        tick: (T,) tick numbers in order.
        running: (T,) the loop was in RUN.
        episode: (T,) episode of the observation.
        step: (T,) steps of the plant since the reset.
        done: (T,) the observation ends its episode.
        finite: (T,) the observation, and the rewards that came with it, are finite.

    Returns:
        (T - 1,) and (T - 1,), of each tick and the one after it; none where T is 0.
    """
    linked = (
        running[:-1]
        & ~done[:-1]
        & finite[:-1]
        & finite[1:]
        & (np.diff(tick) == 1)
        & (np.diff(episode) == 0)
    )
    advance = np.diff(step)
    return linked & (advance > 0), ~(linked & (advance >= 0))


def cuts(rows: Ints, broken: Flags) -> Flags:
    """Return (N,) whether the chain is cut between each of the rows and the next of them.

    After the last one it always is.

    Args:
        rows: (N,) rows that lead to the next one.
        broken: (T - 1,) as from :func:`links`.
    """
    chain = np.concatenate([[0], np.cumsum(broken)])[rows]
    cut = np.ones(len(rows), np.bool_)
    cut[:-1] = np.diff(chain) != 0
    return cut
