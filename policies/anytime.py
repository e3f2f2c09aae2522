"""How much to compute for an answer, by the time that is left for it.

A consistency policy gives an action after any number of steps, and a choice among candidates
may be one among fewer. When time is short, quality falls and punctuality stays. Whatever
was chosen, the answer says so, and asked for that it can be computed again.

Times are those of a calm machine, measured beforehand, times one load factor for all options:
an exponentially weighted high quantile of what answers took in comparison. It rises ten times
as fast as it falls, so that about one answer in ten takes longer. Being one for all, it is known
from cheap answers when the dear ones are within reach again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RISE, FALL = 1.25, 0.975
"""The estimate follows an answer that took longer by this factor at most, and one that took
less by this one: five answers to follow a machine three times as slow, 44 to come back."""
CALM = 0.85
"""The estimate counts as fallen below this share of the one that is acted on ..."""
PATIENCE = 50
"""... when that has held for so many answers on end."""
LOWEST, HIGHEST = 0.25, 1000.0
"""Limits of the estimate."""
EVERY_STEP = 8
"""Up to so many steps any number is an option, beyond it about each fourth fewer."""


class Option(NamedTuple):
    """How an answer is drawn.

    Attributes:
        steps: network evaluations.
        candidates: actions drawn, of which one is taken.
    """

    steps: int
    candidates: int


CHEAPEST = Option(1, 1)


def options_of(best: Option, least: Option = CHEAPEST) -> tuple[Option, ...]:
    """Return what there is between two options, best first, each cheaper than the last.

    Candidates are halved first; steps fall when the fewest candidates are reached.
    """
    candidates = [best.candidates]
    while candidates[-1] > least.candidates:
        candidates.append(max(least.candidates, candidates[-1] // 2))
    steps = [best.steps]
    while steps[-1] > least.steps:
        fewer = steps[-1] - max(1, steps[-1] // 4 if steps[-1] > EVERY_STEP else 1)
        steps.append(max(least.steps, fewer))
    return (
        *(Option(best.steps, count) for count in candidates),
        *(Option(count, candidates[-1]) for count in steps[1:]),
    )


def between(sizes: Sequence[int], times_ns: Sequence[float]) -> list[float]:
    """Return the time for 1, 2, ... up to the last of ``sizes``, straight between two of them.

    Args:
        sizes: rising, from 1.
        times_ns: for each; never falling, or else the longer time before holds.
    """
    spans, held = [max(1.0, times_ns[0])], max(1.0, times_ns[0])
    for index in range(1, len(sizes)):
        low, high = sizes[index - 1], sizes[index]
        after = max(held, times_ns[index])
        slope = (after - held) / (high - low)
        spans += [held + slope * (size - low) for size in range(low + 1, high + 1)]
        held = after
    return spans


class CostModel:
    """What the options cost now.

    Args:
        spans_ns: for each option the time for a batch of 1, 2, ... on a calm machine.
    """

    def __init__(self, spans_ns: Sequence[Sequence[float]]) -> None:
        self._spans_ns = spans_ns
        self._estimate = self._held = 1.0
        self._calm = 0

    @property
    def factor(self) -> float:
        """How many times as long as on a calm machine it is taken to take."""
        return self._held

    def expected_ns(self, option: int, batch: int) -> float:
        """Return how long ``batch`` answers by an option are expected to take.

        Args:
            option: its place.
            batch: 1 or more; beyond what was measured the last span grows in proportion.
        """
        return self._held * self._calm_ns(option, batch)

    def observe(self, option: int, batch: int, took_ns: float) -> None:
        """Follow what ``batch`` answers by an option took.

        The estimate moves by a bounded share (after Yazidi & Hammer 2017): an answer that was
        interrupted for long counts as one long answer and no more.
        """
        factor, estimate = took_ns / self._calm_ns(option, batch), self._estimate
        if factor > estimate:
            estimate = min(factor, RISE * estimate, HIGHEST)
        else:
            estimate = max(factor, FALL * estimate, LOWEST)
        self._estimate = estimate
        if estimate >= CALM * self._held:
            self._calm = 0
            if estimate > self._held:
                self._held = estimate
            return
        self._calm += 1
        if self._calm >= PATIENCE:
            self._held, self._calm = estimate, 0

    def best(self, left_ns: float, batch: int, among: range | None = None) -> int:
        """Return the first option that is expected to fit, else the last.

        Args:
            left_ns: time that is left.
            batch: answers to give in it.
            among: the options, best first; None for all.
        """
        options = range(len(self._spans_ns)) if among is None else among
        for option in options[:-1]:
            if self.expected_ns(option, batch) <= left_ns:
                return option
        return options[-1]

    def _calm_ns(self, option: int, batch: int) -> float:
        spans = self._spans_ns[option]
        if batch <= len(spans):
            return spans[batch - 1]
        return spans[-1] * batch / len(spans)
