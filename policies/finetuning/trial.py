"""Whether a version that was learned from logs takes its parent's place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from controller.acting import ActSettings
from controller.clock import MonotonicClock
from controller.scores import Figures as Played
from controller.types import Array
from policies import bundle
from policies.bundle import Bundle
from policies.finetuning.judging import Verdict
from policies.finetuning.logged import Split
from policies.finetuning.settings import FinetuneConfig, GateSettings
from policies.finetuning.versions import VERSIONS, Began, Judged, Ledger, Outcome, Published
from policies.finetuning.workplace import Place

Score = Callable[[Path], Played]
"""Plays episodes of the task with the bundle in a directory."""


class Judge(Protocol):
    """What judges a candidate off-line; see :func:`policies.finetuning.judging.judge`."""

    def __call__(
        self,
        candidate: Path,
        in_force: Path | None,
        observations: Array,
        settings: GateSettings,
        seed: int = 0,
        *,
        act: ActSettings,
    ) -> Verdict:
        """Judge ``candidate`` beside the version in force."""
        ...


class Trial:
    """Judges one candidate beside its parent.

    Args:
        config: of the fine-tuning.
        parent: the bundle it began from.
        judge: judges off-line.
        score: plays episodes; None for no simulation.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        parent: Bundle,
        judge: Judge,
        score: Score | None,
    ) -> None:
        self._config, self._parent = config, parent
        self._place = Place(Path(config.out))
        self._judge, self._score = judge, score

    def decide(self, made: Path, parts: Split, rows: int, updates: int) -> dict[str, Any]:
        """Judge a candidate, publish it if that is good, and return what came of it.

        Args:
            made: its directory.
            parts: rows that it is judged on: those held out, or all where none are.
            rows: of the robot's experience behind it.
            updates: likewise.
        """
        gate, parent = self._config.gate, self._parent
        verdict = self._verdict(made, parts) if gate.on else Verdict(True)
        before = after = None
        if self._score is not None:
            before = after = self._score(parent.path)
            if verdict.ok:
                after, verdict = self._simulated(made, before, verdict)
        path = self._carry_out(made, verdict, rows, updates)
        versions = [parent.version, *([made.name] if verdict.ok else [])]
        return {
            "before": told(parent.version, before),
            "after": told(versions[-1], after),
            "version_before": parent.version,
            "version_after": versions[-1],
            "bundle": str(path),
            "versions": versions,
            "rejected_versions": int(not verdict.ok),
            "rejected": [] if verdict.ok else [made.name],
            "reasons": list(verdict.reasons),
            "judged": verdict.figures,
        }

    def _verdict(self, made: Path, parts: Split) -> Verdict:
        """Return what an off-line look says."""
        seen = parts.held_out if len(parts.held_out) else parts.teaching
        config, parent = self._config, self._parent
        return self._judge(
            made, parent.path, seen.observations, config.gate, config.seed, act=config.act
        )

    def _carry_out(self, made: Path, verdict: Verdict, rows: int, updates: int) -> Path:
        """Publish the candidate, or leave it; return the bundle of the version in force."""
        parent = self._parent
        outcome: Outcome = "refused"
        if verdict.ok:
            outcome = "accepted" if self._config.gate.on else "unjudged"
        with Ledger(self._place.out / VERSIONS) as ledger:
            ledger.write(Began(version=parent.version))
            ledger.write(
                Judged(
                    version=made.name,
                    parent=parent.version,
                    against=parent.version,
                    updates=updates,
                    env_steps=rows,
                    outcome=outcome,
                    reasons=verdict.reasons,
                    figures=verdict.figures,
                )
            )
            if not verdict.ok:
                return parent.path
            now_ns = MonotonicClock().now_ns()
            path = bundle.publish(made, self._place.bundles)
            ledger.write(
                Published(version=path.name, published_ns=now_ns, updates=updates, env_steps=rows)
            )
        return path

    def _simulated(self, made: Path, before: Played, verdict: Verdict) -> tuple[Played, Verdict]:
        """Play the candidate; return what is in force then, and the verdict."""
        assert self._score is not None
        gate, played = self._config.gate, self._score(made)
        figures = verdict.figures | {
            "return_mean": played.return_mean,
            "return_mean_in_force": before.return_mean,
        }
        least = before.return_mean - gate.sim_drop * abs(before.return_mean)
        # Also false for a return that is no number.
        if not gate.on or played.return_mean >= least:
            return played, Verdict(True, (), figures)
        why = (
            f"mean return {played.return_mean:.5g} over {played.episodes} episodes in simulation, "
            f"{before.return_mean:.5g} of the parent, at most {gate.sim_drop:g} of it less"
        )
        return before, Verdict(False, (why,), figures)


def told(version: str, played: Played | None) -> dict[str, Any]:
    """Return what is told of a version's episodes; where none were played, a null score."""
    figures: dict[str, Any] = {"score_mean": None}
    return {"version": version, **(figures if played is None else msgspec.to_builtins(played))}
