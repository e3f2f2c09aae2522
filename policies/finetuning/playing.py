"""Versions in simulation: a candidate beside the version in force, and scores for the curve."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from controller.errors import ControllerError
from controller.scores import Figures
from policies.finetuning.judging import Figures as Measured
from policies.finetuning.settings import GateSettings

log = logging.getLogger(__name__)

COMPARED, SCORED = 50_021, 70_001
"""Added to the seed: candidates are compared on other episodes than the curve's or an actor's."""
KEPT = 64
"""Results that are remembered."""

Score = Callable[[Path, int, int], Figures]
"""Plays a bundle in simulation: its directory, episodes, seed."""


class Playing:
    """Plays versions, each on the same episodes once.

    A comparison is one of two noisy means, and a version that came in force by a lucky one would
    refuse its equals for good. So the round of episodes changes with each candidate that fails,
    and the version in force has to play the next one anew.

    Args:
        store: of published versions.
        settings: how many episodes, and what is still good enough.
        seed: of everything.
        score: plays a bundle; None where the task has no simulation.
    """

    def __init__(self, store: Path, settings: GateSettings, seed: int, score: Score | None) -> None:
        self._store, self._settings, self._seed = store, settings, seed
        self._score = score
        self._round = 0
        self._done: dict[tuple[str, int, int], Figures] = {}

    def compare(self, candidate: Path, in_force: str) -> tuple[tuple[str, ...], Measured]:
        """Return what speaks against a candidate, and both mean returns.

        Args:
            candidate: directory of its bundle.
            in_force: version in force; empty for none.
        """
        episodes = self._settings.sim_episodes
        if self._score is None or not episodes or not in_force:
            return (), {}
        seed = self._seed + COMPARED + self._round
        usual = self._play(self._store / in_force, episodes, seed)
        if usual is None:
            return (), {}
        found = self._play(candidate, episodes, seed)
        if found is None:
            self._round += 1
            return ("its simulation broke down",), {}
        figures: Measured = {
            "return_mean": found.return_mean,
            "return_mean_in_force": usual.return_mean,
        }
        least = usual.return_mean - self._settings.sim_drop * abs(usual.return_mean)
        # Also false for a return that is no number.
        if found.return_mean >= least:
            return (), figures
        self._round += 1
        return (
            f"mean return {found.return_mean:.5g} over {episodes} episodes in simulation, "
            f"{usual.return_mean:.5g} of the version in force, at most "
            f"{self._settings.sim_drop:g} of it less",
        ), figures

    def known(self, version: str) -> Sequence[float] | None:
        """Return the returns of a published version in simulation, None where there is none."""
        episodes = self._settings.sim_episodes
        if self._score is None or not episodes:
            return None
        got = self._play(self._store / version, episodes, self._seed + COMPARED)
        return None if got is None else got.episode_returns

    def scored(self, version: str) -> Figures | None:
        """Return the figures of a published version for the learning curve, None without."""
        if self._score is None:
            return None
        episodes = self._settings.score_episodes
        return self._play(self._store / version, episodes, self._seed + SCORED)

    def _play(self, bundle: Path, episodes: int, seed: int) -> Figures | None:
        """Return what came of it, None where it broke down."""
        key = bundle.name, episodes, seed % 2**32
        if key not in self._done:
            assert self._score is not None
            try:
                self._done[key] = self._score(bundle, episodes, key[2])
            except ControllerError as error:
                log.warning("%s in simulation: %s", bundle.name, error)
                return None
            while len(self._done) > KEPT:
                del self._done[next(iter(self._done))]
        return self._done[key]
