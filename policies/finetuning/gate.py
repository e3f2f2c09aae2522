"""The gate: judges what the learner leaves, publishes what is good enough, takes back what fails.

One turn does one thing, the most urgent first: bring everybody to the version in force, take a
failing version back, look at the newest candidate, score for the learning curve. So a score keeps
a publication waiting by its own length at most. Each step is written down in such an order that a
gate that was killed within it does it again, to the same end.

What is asked of a candidate stands in :mod:`policies.finetuning.judging` and
:class:`policies.finetuning.playing.Playing`, when a version is taken back in
:mod:`policies.finetuning.watch`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from controller.clock import MonotonicClock
from controller.errors import Refused
from controller.interfaces import Clock
from controller.types import Array
from policies.bundle import CURRENT, load_bundle, publish
from policies.errors import BundleError
from policies.finetuning.curve import CURVE, Curve, Point
from policies.finetuning.gate_links import Server, Service
from policies.finetuning.judging import Verdict, judge
from policies.finetuning.placing import Placing
from policies.finetuning.playing import Playing, Score
from policies.finetuning.settings import FinetuneConfig
from policies.finetuning.versions import (
    VERSIONS,
    Began,
    Finished,
    Judged,
    Ledger,
    Outcome,
    Placed,
    Proven,
    Published,
    Restarted,
    RolledBack,
)
from policies.finetuning.waiting import Candidate, prune, read_candidate, waiting
from policies.finetuning.watch import Fell, Watch

log = logging.getLogger(__name__)

ROWS = 256
"""Held-out rows that a candidate is judged on; with fewer it is on the golden observations."""
REFUSED = 10
"""Refused candidates that stay on the disk where the settings do not say."""
IDLE_S = 0.2
TROUBLE_S = 1.0
"""Pause after somebody did not answer."""
GONE_NS = 2_000_000_000
"""A learner that was not heard of for as long, once no more rows come, has ended."""


class Gate:
    """The work of the gate.

    Args:
        config: of the fine-tuning.
        service: the replay service.
        servers: the policy servers; none where actors take the versions from the service.
        score: plays a bundle in simulation; None where the task has none.
        clock: stamps publications; the machine's by default.

    Attributes:
        standing: what became of the versions.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        service: Service,
        servers: Sequence[Server] = (),
        score: Score | None = None,
        clock: Clock | None = None,
    ) -> None:
        out = Path(config.out)
        self._config, self._settings = config, config.gate
        self._service = service
        self._clock = clock or MonotonicClock()
        self._store, self._candidates = out / "bundles", out / "candidates"
        self._ledger = Ledger(out / VERSIONS)
        self.standing = self._ledger.standing
        self._placing = Placing(self._store, service, servers, self._clock)
        self._playing = Playing(self._store, config.gate, config.seed, score)
        self._watch = Watch(config.gate.window, config.gate.margin)
        self._curve = Curve(out / CURVE, config.gate.score_every if score else 0)
        self._stats: dict[str, Any] = {}
        self._learned_ns: int | None = None
        self._ledger.write(Began(version=_current(self._store)))

    def run(self, stop: Callable[[], bool]) -> None:
        """Take turns until ``stop``, or until learner and gate have nothing more to do."""
        silent = False
        while not stop():
            try:
                busy, silent = self.turn(), False
            except (TimeoutError, Refused) as error:
                if not silent:
                    log.warning("%s", error)
                busy, silent = False, True
            if busy:
                continue
            if self.over and not silent:
                self.finish()
                return
            time.sleep(TROUBLE_S if silent else IDLE_S)

    def turn(self) -> bool:
        """Do the most urgent thing; return whether there was one.

        Raises:
            PeerTimeout: the replay service does not answer.
            Refused: it does not do what it was asked.
        """
        self._look()
        standing = self.standing
        if standing.in_force and self._placing.due:
            self._catch_up()
        elif standing.accepted:
            self._publish_accepted()
        elif self._settings.on and self._look_back():
            pass
        elif candidates := self._waiting():
            self._consider(candidates)
        elif standing.in_force and self._curve.due(self._env_steps):
            self._add_score()
        else:
            return False
        return True

    @property
    def over(self) -> bool:
        """Whether no more rows and no more candidates come."""
        learned_ns = self._learned_ns
        return learned_ns is not None and self._clock.now_ns() - learned_ns >= GONE_NS

    def finish(self) -> None:
        """Score the version that stays, and write down that this was all."""
        version = self.standing.in_force
        if version and self._curve.lacks(self._env_steps, version):
            self._add_score()
        self._ledger.write(Finished(version=version))

    def close(self) -> None:
        """Close the files; safe to call twice."""
        self._ledger.close()

    @property
    def _env_steps(self) -> int:
        return int(self._stats.get("inserted", 0))

    @property
    def _in_force(self) -> Path | None:
        version = self.standing.in_force
        return self._store / version if version else None

    def _look(self) -> None:
        """Ask the replay service how things are."""
        self._stats = stats = self._service.stats()
        self._watch.take(self._service.episodes(self._watch.following))
        # The learner leaves once its last candidate is on the disk: nothing comes after that.
        if not stats.get("finished") or stats.get("learner"):
            self._learned_ns = None
        elif self._learned_ns is None:
            self._learned_ns = self._clock.now_ns()

    def _catch_up(self) -> None:
        standing = self.standing
        took_ms = self._placing.catch_up(standing.in_force, back=standing.taken_back)
        self._note_placed(took_ms)
        if self._placing.refused and len(standing.line) > 1:
            self._take_back(standing.line[-2], f"it cannot be served: {self._placing.refused}")

    def _note_placed(self, took_ms: float | None) -> None:
        if took_ms is not None and not self.standing.placed:
            self._ledger.write(Placed(version=self.standing.in_force, swap_ms=took_ms))

    def _look_back(self) -> bool:
        """Take the versions back that do worse than the good one; return whether it came to it."""
        found = self._watch.judge(self.standing, self._playing.known)
        if isinstance(found, Proven):
            self._ledger.write(found)
        elif isinstance(found, Fell):
            self._take_back(self.standing.good, found.why)
        return found is not None

    def _take_back(self, to: str, why: str) -> None:
        line = self.standing.line
        log.warning("%s is taken back, %s comes back: %s", line[-1], to, why)
        # Whoever starts again meanwhile takes what is current.
        publish(self._store / to, self._store)
        event = RolledBack(
            version=line[-1],
            to=to,
            why=why,
            dropped=tuple(line[line.index(to) + 1 :]),
            published_ns=self._clock.now_ns(),
            env_steps=self._env_steps,
        )
        self._ledger.write(event)
        self._note_placed(self._placing.swap(to, back=True))

    def _waiting(self) -> list[Candidate]:
        standing = self.standing
        known = {*standing.judged, *standing.line, *standing.dropped}
        return waiting(self._candidates, known)

    def _consider(self, candidates: Sequence[Candidate]) -> None:
        """Judge the newest candidate and publish it where it is good enough."""
        *older, newest = candidates
        for one in older:
            self._write_judged(one, "superseded", Verdict(False))
        if not self._settings.on and not newest.fault:
            self._write_judged(newest, "unjudged", Verdict(True))
        else:
            began_ns = self._clock.now_ns()
            verdict = self._examined(newest)
            seconds = (self._clock.now_ns() - began_ns) / 1e9
            self._write_judged(newest, "accepted" if verdict.ok else "refused", verdict, seconds)
        if self.standing.accepted:
            self._publish_accepted(newest)
        else:
            self._send_back()
            self._prune()

    def _write_judged(
        self, one: Candidate, outcome: Outcome, verdict: Verdict, seconds: float = 0.0
    ) -> None:
        event = Judged(
            version=one.version,
            parent=one.parent,
            against=self.standing.in_force if verdict.figures else "",
            updates=one.updates,
            env_steps=self._env_steps,
            outcome=outcome,
            reasons=verdict.reasons,
            figures=verdict.figures,
            seconds=seconds,
        )
        self._ledger.write(event)
        if outcome == "refused":
            log.warning("%s is refused: %s", one.version, "; ".join(verdict.reasons))

    def _examined(self, candidate: Candidate) -> Verdict:
        """Judge a candidate off-line and, where it passes, in simulation."""
        if candidate.fault:
            return Verdict(False, (candidate.fault,))
        if candidate.parent in self.standing.dropped:
            return Verdict(False, (f"descends from {candidate.parent}, which was taken back",))
        try:
            seen = self._held_out(candidate)
        except BundleError as error:
            return Verdict(False, (str(error),))
        config = self._config
        verdict = judge(
            candidate.path,
            self._in_force,
            seen,
            self._settings,
            config.seed,
            act=config.act,
            engine=config.engine,
        )
        if not verdict.ok:
            return verdict
        reasons, figures = self._playing.compare(candidate.path, self.standing.in_force)
        return Verdict(not reasons, reasons, verdict.figures | figures)

    def _held_out(self, candidate: Candidate) -> Array:
        rows = self._service.observations(ROWS)
        return (
            load_bundle(self._in_force or candidate.path).golden["observations"]
            if rows is None
            else rows
        )

    def _publish_accepted(self, candidate: Candidate | None = None) -> None:
        """Put the accepted candidate in force."""
        version = self.standing.accepted
        source = self._candidates / version
        candidate = candidate or read_candidate(source)
        try:
            publish(source, self._store)
        except BundleError as error:
            self._write_judged(candidate, "refused", Verdict(False, (str(error),)))
            return
        event = Published(
            version=version,
            published_ns=self._clock.now_ns(),
            updates=candidate.updates,
            env_steps=self._env_steps,
        )
        self._ledger.write(event)
        self._note_placed(self._placing.swap(version, back=False))
        self._prune()

    def _send_back(self) -> None:
        """Have the learner begin again at the version in force, after too many refusals."""
        patience, refused = self._settings.patience, self.standing.refused
        if patience and refused >= patience and self._in_force is not None:
            why = f"{refused} candidates were refused in a row"
            log.warning("the learner goes back to %s: %s", self.standing.in_force, why)
            self._service.restart()
            self._ledger.write(Restarted(version=self.standing.in_force, why=why))

    def _prune(self) -> None:
        """Take from the disk what nobody will ask for again.

        Of candidates the newest refused ones stay, for people to look at.
        """
        standing, keep = self.standing, self._settings.keep
        if keep:
            spared = {standing.first, standing.good, *standing.line[-2:]}
            prune(self._store, standing.published, spared, keep)
        refused = [one for one, outcome in standing.judged.items() if outcome == "refused"]
        prune(self._candidates, standing.judged, {*refused, standing.accepted}, 0)
        prune(self._candidates, refused, (), keep or REFUSED)

    def _add_score(self) -> None:
        """Score the version in force and write it down."""
        version, stats = self.standing.in_force, self._stats
        got = self._playing.scored(version)
        if got is None:
            self._curve.skip(self._env_steps)
            return
        point = Point(
            env_steps=self._env_steps,
            wall_s=time.time() - self.standing.began_s,
            updates=int(stats.get("updates", 0)),
            version=version,
            return_mean=got.return_mean,
            return_std=got.return_std,
            score_mean=got.score_mean,
            success=got.success,
            training_return_mean=self._watch.recent_mean,
        )
        self._curve.add(point)


def _current(store: Path) -> str:
    """Return the current version of a store, empty for none."""
    try:
        return Path(os.readlink(store / CURRENT)).name
    except OSError:
        return ""
