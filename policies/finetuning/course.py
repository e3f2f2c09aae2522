"""A live fine-tuning as its learner sees it: draw, update, save, leave candidates, and heed.

While a draw is computed on the next one is on its way, so that neither side waits for the other.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from controller.feed.client import Batches
from controller.feed.rows import Float32, RowLayout
from controller.interfaces import Clock
from controller.replay_messages import Drawn
from controller.types import Array
from policies.bundle import load_bundle
from policies.errors import BundleError
from policies.finetuning.agent import Agent
from policies.finetuning.batches import Lesson, Mixer
from policies.finetuning.improving import Improvement
from policies.finetuning.rules import Rules
from policies.finetuning.settings import FinetuneConfig
from policies.finetuning.workplace import Place, leave
from policies.manifest import DataEntry
from policies.metrics import Metrics
from policies.train_state import Saved, restore, write_state

log = logging.getLogger(__name__)

AHEAD = 4
"""Batches of a draw: its answer costs some 0.2 ms, one update some 10."""
PAUSE_S = 0.003
"""Before the next draw where there is nothing to draw yet."""
SEEK_S = 0.05
"""Before the next look for a service that is gone."""
LISTEN_NS = 100_000_000
"""Longest wait for an answer between two looks at whether to stop."""
LEARN_ON_S = 15.0
"""Time after the last row in which the updates that it allows are still done."""
GOLDEN = 64
"""Newest drawn observations of which a candidate keeps some with their actions."""


class Source(Protocol):
    """What the course needs of :class:`controller.feed.client.ReplayClient`."""

    layout: RowLayout
    asked: bool

    def ask_draw(self, batches: int, size: int, updates: int, version: str) -> bool:
        """Ask for batches; False when there is no session."""
        ...

    def take_drawn(self, timeout_ns: int) -> Batches | None:
        """Return the answer, None when none came in time."""
        ...


@dataclass
class Times:
    """Where the time since the last line of metrics went, in nanoseconds."""

    since: int = 0
    waiting: int = 0
    computing: int = 0
    writing: int = 0
    updates: int = 0


@dataclass
class Standing:
    """How far the learner is, beside networks and optimisers: JSON values.

    Attributes:
        alone: updates of the critics on offline data, before any row came.
        candidate: version of the newest candidate; that of the bundle at first.
        improved: updates of the policy behind the newest candidate.
        inserted: rows that were ever inserted, by the newest draw.
        rollbacks: how often a version had been taken back when that was heeded last.
        digest: of every row that was drawn, one draw after the other.
    """

    alone: int = 0
    candidate: str = ""
    improved: int = 0
    inserted: int = 0
    rollbacks: int = 0
    digest: str = ""


@dataclass
class _Heard:
    """What the newest draw said, and what was drawn with it.

    Attributes:
        version: in force.
        finished_ns: when it was said first that no more rows will come.
        over: no more updates are allowed either.
        seen: (n, D) newest observations that were drawn.
        lags: of the draws since the last line of metrics, median number of versions by which
            their rows are behind the newest.
        newest: number of that.
        idle: a draw was of rows that teach nobody.
    """

    version: str = ""
    finished_ns: int | None = None
    over: bool = False
    seen: Array | None = None
    lags: list[float] = field(default_factory=list)
    newest: float = 0.0
    idle: bool = False


class Course:
    """A learner from where it stands to the end.

    Args:
        config: what to do.
        agent: what is improved.
        mixer: makes lessons of what is drawn.
        rules: of the mixer; their counts go into every candidate.
        source: where rows are drawn.
        clock: measures, and waits.
        offline: what the offline data are; None without.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        agent: Agent,
        mixer: Mixer,
        rules: Rules,
        source: Source,
        clock: Clock,
        offline: DataEntry | None = None,
    ) -> None:
        self.config, self.agent, self.place = config, agent, Place(Path(config.out))
        self.improvement = Improvement(agent, self.place.out)
        began = agent.parent.version if agent.parent else ""
        self.standing = Standing(candidate=began)
        self._mixer, self._rules, self._source, self._clock = mixer, rules, source, clock
        self._offline = offline
        self._heard = _Heard(version=began)
        self._times = Times(since=clock.now_ns())
        self._metrics: Metrics | None = None

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Learn until no more rows come, or until told to stop; the state is saved in the end.

        Raises:
            TrainingDiverged: a number is not finite. What was saved before is left as it was.
            Refused: the service is of another robot.
            BundleError: nothing can be written.
        """
        with Metrics(
            self.place.learner, tensorboard=False, until=self.improvement.updates
        ) as self._metrics:
            while not should_stop() and not self._over():
                if self._alone():
                    self.standing.alone += 1
                    self._learn(self._mixer.offline_lesson(), policy=False)
                    continue
                rows = self._draw()
                if rows is None:
                    continue
                self._learn_from(rows, should_stop)
            if self._heard.finished_ns is not None:
                self._write_candidate()
            self.save()

    def save(self) -> None:
        """Write the state that a killed learner goes on from.

        Raises:
            TrainingDiverged: a weight is not finite.
        """
        self.improvement.require_finite()
        about = {
            **self._identity(),
            "updates": self.improvement.updates,
            "actor_updates": self.improvement.actor_updates,
            "standing": vars(self.standing),
            "counts": self._rules.counts.tolist(),
        }
        write_state(self.place.learner, self.agent.learner, about)

    def restore(self, saved: Saved) -> None:
        """Go on where the learner that left ``saved`` stood.

        Raises:
            BundleError: it was of another fine-tuning.
        """
        for name, now in self._identity().items():
            if saved.about.get(name) != now:
                raise BundleError(
                    f"{self.place.learner}: cannot go on from it: its {name} is "
                    f"{saved.about.get(name)}, expected {now}; choose another out"
                )
        restore(saved, self.agent.learner)
        self.improvement.updates = saved.about["updates"]
        self.improvement.actor_updates = saved.about["actor_updates"]
        self.standing = Standing(**saved.about["standing"])
        self._rules.counts[:] = saved.about["counts"]

    def _identity(self) -> dict[str, Any]:
        parent = self.agent.parent
        return {
            "robot": self.agent.spec.digest(),
            "algorithm": self.agent.algorithm,
            "parent": parent.version if parent else None,
        }

    def _alone(self) -> bool:
        """Whether the critics learn on offline data alone, as no policy moves yet."""
        done = self.improvement.updates
        return self._offline is not None and done < self.agent.settings.critic_updates

    def _over(self) -> bool:
        """Whether there is nothing more to wait for."""
        ended = self._heard.finished_ns
        late = ended is not None and self._clock.now_ns() - ended > LEARN_ON_S * 1e9
        return late or self._heard.over

    def _draw(self) -> Float32 | None:
        """Return the rows of the next updates, None where there are none yet; ask for more."""
        start_ns = self._clock.now_ns()
        rows = self._answer()
        self._times.waiting += self._clock.now_ns() - start_ns
        return rows

    def _answer(self) -> Float32 | None:
        source = self._source
        if not source.asked and not self._ask(0):
            self._pause(SEEK_S)
            return None
        answer = source.take_drawn(LISTEN_NS)
        if answer is None:
            return None
        drawn, rows = answer
        self._heed(drawn)
        if rows is None or not drawn.batches:
            self._heard.over = drawn.finished
            self._pause(PAUSE_S)
            return None
        self._take_note(rows)
        self._ask(drawn.batches)
        return rows

    def _ask(self, in_hand: int) -> bool:
        """Ask for the next batches; those in hand count as done, for the limit of updates."""
        done = self.improvement.updates - self.standing.alone + in_hand
        return self._source.ask_draw(AHEAD, self._mixer.own, done, self.standing.candidate)

    def _heed(self, drawn: Drawn) -> None:
        self._heard.version = drawn.version or self._heard.version
        self.standing.inserted = drawn.inserted
        if drawn.rollbacks > self.standing.rollbacks and self._take_back(drawn.version):
            self.standing.rollbacks = drawn.rollbacks
        if drawn.finished and self._heard.finished_ns is None:
            self._heard.finished_ns = self._clock.now_ns()

    def _take_back(self, version: str) -> bool:
        """Go on from the policy of the version in force; False where it cannot be read yet."""
        try:
            self.agent.restore_policy(load_bundle(self.place.bundles / version))
        except BundleError as error:
            log.warning("cannot go back to %s yet: %s", version, error)
            return False
        self.standing.candidate = version
        self.standing.improved = self.improvement.actor_updates
        log.warning("went back to %s", version)
        return True

    def _take_note(self, rows: Float32) -> None:
        """Keep what candidates and metrics tell of the rows."""
        views = self._source.layout.split(rows)
        self._heard.seen = views["observation"][-GOLDEN:].copy()
        self.standing.digest = hashlib.blake2b(
            self.standing.digest.encode() + rows.tobytes(), digest_size=8
        ).hexdigest()
        versions = views["version"]
        self._heard.newest = max(self._heard.newest, float(versions.max()))
        self._heard.lags.append(float(np.median(self._heard.newest - versions)))

    def _learn_from(self, rows: Float32, should_stop: Callable[[], bool]) -> None:
        """Do the updates of one draw."""
        before = self.improvement.updates
        for lesson in self._mixer.lessons(rows):
            self._learn(lesson)
            if should_stop():
                return
        if self.improvement.updates > before:
            return
        if not self._heard.idle:
            log.warning("every row of a draw is dropped by rule: %s", self._rules.words())
        self._heard.idle = True
        self._pause(SEEK_S)

    def _learn(self, lesson: Lesson, *, policy: bool | None = None) -> None:
        """Do one update and what is due after it."""
        start_ns = self._clock.now_ns()
        self.improvement.update(lesson, policy=policy)
        self._times.updates += 1
        now_ns = self._clock.now_ns()
        self._times.computing += now_ns - start_ns
        done, config = self.improvement.updates, self.config
        if done % config.log_every == 0:
            self._log(now_ns)
        writes, saves = done % config.gate.every == 0, done % config.save_every == 0
        if writes or saves:
            self.improvement.require_finite(lesson)
        if writes:
            self._write_candidate()
        if saves:
            self.save()
        self._times.writing += self._clock.now_ns() - now_ns

    def _write_candidate(self) -> None:
        """Leave the policy to be judged, if it moved since the newest candidate.

        Raises:
            TrainingDiverged: a weight is not finite.
        """
        moved = self.improvement.actor_updates
        if moved == self.standing.improved:
            return
        path = leave(
            self.config,
            self.improvement,
            self._rules,
            self._observations(),
            self._data(),
            self.standing.inserted,
            self.place.manifest(self._heard.version, self.agent),
        )
        self.standing.candidate, self.standing.improved = path.name, moved

    def _observations(self) -> Array:
        if self._heard.seen is not None:
            return self._heard.seen
        if self.agent.parent is not None:
            return self.agent.parent.golden["observations"]
        return np.zeros((1, self._source.layout.observation), np.float32)

    def _data(self) -> tuple[DataEntry, ...]:
        """Return the data behind the policy; the digest is that of the rows drawn so far."""
        name, rows = self.agent.spec.task, self.standing.inserted
        live = DataEntry("log", name, rows, self.standing.digest or "0" * 16)
        return (live,) if self._offline is None else (live, self._offline)

    def _log(self, now_ns: int) -> None:
        """Write a line of metrics; shares are of the time since the last one."""
        times, heard = self._times, self._heard
        passed = max(1, now_ns - times.since)
        if self._metrics is not None:
            figures = {
                **self.improvement.figures(),
                "actor_updates": self.improvement.actor_updates,
                "updates_per_s": 1e9 * times.updates / passed,
                "waiting": times.waiting / passed,
                "computing": times.computing / passed,
                "writing": times.writing / passed,
                "inserted": self.standing.inserted,
                "versions_behind": float(np.mean(heard.lags)) if heard.lags else 0.0,
                "version": heard.version,
                "candidate": self.standing.candidate,
                "rollbacks": self.standing.rollbacks,
            }
            self._metrics.write(self.improvement.updates, figures)
        self._times, heard.lags = Times(since=now_ns), []

    def _pause(self, pause_s: float) -> None:
        self._clock.sleep_until(self._clock.now_ns() + round(pause_s * 1e9))
