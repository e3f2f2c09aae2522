"""Improve a policy from the logs of its runs, and publish it where it stands the test.

The answer, also in ``OUT/result.json``: ``before`` and ``after``, ``score_mean`` and further
figures of the version in force, null where nothing was played; ``version_before``,
``version_after``, ``bundle`` (of the latter), ``versions`` (in force, the parent first),
``rejected_versions`` (how many), ``rejected`` (which), ``reasons`` (why), ``judged`` (figures of
the judging); ``updates`` (of the critics), ``actor_updates``, and the figures of the last of them;
``env_steps`` (rows of the logs), ``rows`` (how many of each kind, and what they taught),
``held_out`` (rows), ``logs`` (files), ``notes`` (on damaged ones); ``finished`` (not stopped
early), ``seconds``; ``ticks``, ``missed`` and ``publish_to_action_ms_p50``, null as nothing ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from controller.clock import MonotonicClock
from controller.interfaces import Clock
from controller.transitions import Transitions
from policies.algos.learner import Batch
from policies.bundle import Bundle
from policies.disk import replace_file
from policies.finetuning.agent import Agent, make_agent
from policies.finetuning.batches import Lesson, Offline, joined, own_rows
from policies.finetuning.improving import Improvement, require_changed
from policies.finetuning.judging import judge as judge_offline
from policies.finetuning.logged import Logs, read_logs, require_enough, split
from policies.finetuning.rules import Rules
from policies.finetuning.settings import FinetuneConfig
from policies.finetuning.trial import Judge, Score, Trial
from policies.finetuning.workplace import Place, leave, offline_entry
from policies.learning import RewardSettings
from policies.manifest import DataEntry
from policies.metrics import Metrics
from policies.stopwatch import torch_settings
from policies.table import Table, require_robot
from policies.train_state import exclusive

RESULT = "result.json"
AFTER_CRITICS = 5_000
"""Updates beyond ``critic_updates`` where neither updates nor seconds are set."""

Progress = Callable[[int, int, Mapping[str, float]], None]


def finetune(
    config: FinetuneConfig,
    parent: Bundle,
    offline: Transitions | None = None,
    *,
    logs: Logs | None = None,
    score: Score | None = None,
    judge: Judge = judge_offline,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Improve a policy from logs; publish it to ``OUT/bundles`` if it is judged good enough.

    The critics learn first, alone: for ``learn.critic_updates``, at most half of the budget. Then
    the policy moves too. What each row teaches goes by ``config.rows``. The candidate is judged
    on episodes that were held out, and in simulation where there is ``score``; one that fails
    stays in ``OUT/candidates``, and the parent stays in force. The answer is described above.

    Args:
        config: what to do.
        parent: the policy to improve.
        offline: data that are mixed in; None for the logs alone.
        logs: what the logs hold; None reads ``config.log_paths``.
        score: plays the parent and the candidate over the same episodes; None for no simulation.
        judge: judges off-line.
        on_progress: called after each update with (done, in all, figures); milliseconds where
            time is the only limit.
        should_stop: asked after each update; True ends early, with what there is by then, which
            is judged, but not played.
        clock: measures the budget.

    Raises:
        SpecMismatch: a log is of another robot.
        LogError: no log can be read.
        DataError: offline data of another robot, or too little to learn from.
        BundleError: the parent cannot be improved.
        ConfigError: it diverged before, with these very settings.
        TrainingDiverged: a number is not finite; nothing is published.
    """
    if offline is not None:
        require_robot(offline, parent.spec)
    logs = logs or read_logs(config.log_paths, parent.spec)
    out, clock = Path(config.out), clock or MonotonicClock()
    require_changed(out, config.learn)
    start_ns = clock.now_ns()
    course = _Course(config, make_agent(config, parent.spec, parent), logs, offline, clock)
    with exclusive(Place(out).learner), torch_settings(config.seed, config.threads):
        finished = course.finish(on_progress, should_stop)
        made = course.write()
    trial = Trial(config, parent, judge, score if finished else None)
    result = {
        **trial.decide(made, course.parts, len(logs.rows), course.improvement.updates),
        **course.facts(),
        "finished": finished,
        "seconds": (clock.now_ns() - start_ns) / 1e9,
    }
    replace_file(out / RESULT, msgspec.json.format(msgspec.json.encode(result), indent=1))
    return result


class _Budget:
    """Updates, seconds or both, whichever ends first. At least one update is done."""

    def __init__(self, config: FinetuneConfig, clock: Clock) -> None:
        self._updates, self._seconds = config.updates, config.seconds
        if self._updates is None and self._seconds is None:
            self._updates = config.learn.critic_updates + AFTER_CRITICS
        self._clock, self._start_ns = clock, clock.now_ns()

    def share(self, updates: int) -> float:
        """Return how much of it is used, 0 to 1."""
        by_count = updates / self._updates if self._updates else 0.0
        by_time = self._elapsed_s() / self._seconds if self._seconds else 0.0
        return max(by_count, by_time)

    def progress(self, updates: int) -> tuple[int, int]:
        """Return (done, in all) for people."""
        if self._updates:
            return updates, self._updates
        total_ms = round(1e3 * (self._seconds or 0.0))
        return min(round(1e3 * self._elapsed_s()), total_ms), total_ms

    def _elapsed_s(self) -> float:
        return (self._clock.now_ns() - self._start_ns) / 1e9


class _Course:
    """The updates of one fine-tuning, from the first to the last.

    Attributes:
        parts: what the rows of the logs are for.
        improvement: how far it is.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        agent: Agent,
        logs: Logs,
        offline: Transitions | None,
        clock: Clock,
    ) -> None:
        learn, data = config.learn, offline
        self._config, self._read, self._data, self._clock = config, logs, data, clock
        self._own = own_rows(learn.batch, learn.offline_share, data is not None)
        self.parts = parts = split(logs, Rules(config.rows), config.held_out, config.seed)
        require_enough(parts, self._own, imitates=learn.imitation > 0, offline=data is not None)
        self.improvement = Improvement(agent, Path(config.out))

        def draws(rows: Transitions) -> Offline:
            table = Table(rows, agent.codec, RewardSettings(), config.device)
            return Offline(table, agent.learner.generator)

        self._logs = draws(parts.teaching)
        self._alike = parts.alike
        some = len(parts.imitated) and not self._alike
        self._answers = draws(parts.imitated) if some else None
        self._offline = None if data is None else draws(data)

    def finish(self, on_progress: Progress | None, should_stop: Callable[[], bool] | None) -> bool:
        """Do the updates; return whether none was left out."""
        config, improvement = self._config, self.improvement
        budget, shown = _Budget(config, self._clock), dict[str, float]()
        share, critics = 0.0, config.learn.critic_updates
        with Metrics(Place(Path(config.out)).learner, tensorboard=False, until=0) as metrics:
            while share < 1.0:
                moves = improvement.updates >= critics or share >= 0.5
                lesson = self._lesson()
                improvement.update(lesson, policy=moves)
                done = improvement.updates
                if done == 1 or done % config.log_every == 0:
                    shown = improvement.figures()
                    metrics.write(done, shown)
                share = budget.share(done)
                if on_progress is not None:
                    on_progress(*budget.progress(done), shown)
                if share < 1.0 and should_stop is not None and should_stop():
                    return False
        return True

    def _lesson(self) -> Lesson:
        batch = self._mixed(self._logs)
        if self._alike:
            return Lesson(batch, batch)
        if not self._config.learn.imitation:
            return Lesson(batch, None)
        if self._answers is not None:
            return Lesson(batch, self._mixed(self._answers))
        assert self._offline is not None
        return Lesson(batch, self._offline.draw(self._config.learn.batch))

    def _mixed(self, logs: Offline) -> Batch:
        """Return a batch with its share of rows from the logs, the rest offline."""
        rest = self._config.learn.batch - self._own
        own = logs.draw(self._own)
        return joined(own, self._offline.draw(rest)) if self._offline and rest else own

    def write(self) -> Path:
        """Leave the policy in ``OUT/candidates``; return its directory."""
        rows = self._read.rows
        data = [DataEntry("log", rows.task, len(rows), rows.digest())]
        data += [] if self._data is None else [offline_entry(self._data)]
        parent = self.improvement.agent.parent
        return leave(
            self._config,
            self.improvement,
            self.parts.rules,
            rows.observations,
            tuple(data),
            len(rows),
            parent.manifest if parent else None,
        )

    def facts(self) -> dict[str, Any]:
        """Return what was learned, and from what."""
        return {
            **self.improvement.figures(),
            "updates": self.improvement.updates,
            "actor_updates": self.improvement.actor_updates,
            "env_steps": len(self._read.rows),
            "rows": self.parts.rules.table(),
            "held_out": len(self.parts.held_out),
            "logs": list(self._read.files),
            "notes": list(self._read.notes),
            **dict.fromkeys(("ticks", "missed", "publish_to_action_ms_p50")),
        }
