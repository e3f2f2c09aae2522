"""The actions of a log, computed again by the policies that made them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.chunks import Plan, faded_elements
from controller.errors import ConfigError
from controller.explore_settings import ExploreSettings
from controller.exploring import Explorer
from controller.interfaces import Policy
from controller.run_log import RunLog
from controller.types import ActionChunk, Array, Reason, Request, Rung

PolicyFor = Callable[[str], Policy | None]
"""Gives the policy of a version, or None where it cannot be had."""

BATCH_ROUNDING = 1e-5
"""Largest difference, in half ranges of the action, that a batch may make to one answer."""
NO_OBSERVATION = "the observation behind the action is not in the log"
NO_PREFIX = "the rows that its request began with are not in the log"
UNSURE = "it is a blend with rows that the log does not show"
_FAR_NS = 2**62
_NOTHING = np.zeros(0)
_PLANNED = (Rung.FRESH, Rung.TAIL)


class Recomputed:
    """Requested actions of a log, computed again.

    The request of a chunk is made of the row of its own tick: its observation, and as the rows
    that it began with what was requested at the ticks after it, where the plan acted. It asks for
    as many evaluations and candidates as the log says were spent. Where chunks were blended, the
    plan is followed as the loop kept it. What a run explored is drawn again.

    Args:
        log: the run.
        policy_for: gives the policy of a version; asked once per version.
    """

    def __init__(self, log: RunLog, policy_for: PolicyFor) -> None:
        self._log = log
        self._policy_for = policy_for
        self._policies: dict[str, Policy | None] = {}
        self._chunk: tuple[tuple[int, str], ActionChunk | None] | None = None
        self._blends = _Blends(log)
        self._explorer = _explorer_of(log)
        low, high = log.header.spec.action.bounds()
        half = (high - low) / 2
        self._scale = np.where(np.isfinite(half), half, 1.0)

    def requested(self, row: int) -> tuple[Array | None, str]:
        """Return the action of a row, or None and why it has none to be recomputed.

        Call it on every row in order.
        """
        log, rung = self._log, Rung(self._log.rung[row])
        if rung is Rung.HUMAN:
            self._blends.forget(int(log.tick[row]))
        if rung is Rung.HUMAN or not rung.acts:
            return None, ""
        if self._explorer and rung in _PLANNED and not self._blends.may_be:
            drawn = self._explorer.drawn(int(log.tick[row]))
            if drawn is not None:
                return drawn, ""
        version = log.versions[row]
        policy = self._policy(version)
        if policy is None:
            return None, f"policy version {version or 'unknown'} cannot be had"
        tick, asked = int(log.tick[row]), int(log.answer_tick[row])
        source = self._row_of(asked, row)
        if source is None:
            return None, NO_OBSERVATION
        chunk, obstacle = self._answer(policy, row, source, version)
        if obstacle:
            return None, obstacle
        action = None if chunk is None else chunk.at(tick)
        if chunk is not None and rung in _PLANNED and self._blends.may_be:
            return self._planned(row, chunk)
        return (_NOTHING if action is None else action), ""

    def rounding(self, row: int) -> Array | float:
        """Return how far the action of a row may be off, as it was computed in a batch."""
        if self._log.batch[row] <= 1:
            return 0.0
        return BATCH_ROUNDING * self._scale

    def _planned(self, row: int, chunk: ActionChunk) -> tuple[Array | None, str]:
        """Return the action of a row that may be a blend."""
        if self._explorer:
            chunk = self._explorer.laid_over(chunk)
        planned = self._blends.follow(row, chunk)
        if not self._log.reasons[row] & Reason.BLENDED:
            action = chunk.at(int(self._log.tick[row]))
            return (_NOTHING if action is None else action), ""
        if planned is None or planned.tobytes() != self._log.requested[row].tobytes():
            return None, UNSURE
        return planned, ""

    def _policy(self, version: str) -> Policy | None:
        if version not in self._policies:
            self._policies[version] = self._policy_for(version)
        return self._policies[version]

    def _row_of(self, tick: int, near: int) -> int | None:
        if self._log.tick[near] == tick:
            return near
        row = int(np.searchsorted(self._log.tick, tick))
        return row if row < len(self._log) and self._log.tick[row] == tick else None

    def _answer(
        self, policy: Policy, row: int, source: int, version: str
    ) -> tuple[ActionChunk | None, str]:
        """Return the chunk of a request; ticks that share one mostly follow each other."""
        asked = int(self._log.tick[source])
        if self._chunk is None or self._chunk[0] != (asked, version):
            prefix = self._prefix(source, int(self._log.prefix[row]))
            if prefix is not None and len(prefix) < self._log.prefix[row]:
                return None, NO_PREFIX
            self._chunk = (asked, version), policy.infer(self._request(row, source, prefix))
        return self._chunk[1], ""

    def _request(self, row: int, source: int, prefix: Array | None) -> Request:
        log = self._log
        told = int(log.candidates[row])  # 0 in logs from before there was a choice.
        return Request(
            tick=int(log.tick[source]),
            seed=log.header.seed,
            observation=log.observation(source),
            age_ns=0,
            deadline_ns=_FAR_NS,
            prefix=prefix,
            steps=int(log.evaluations[row]) if told else 0,
            candidates=told,
        )

    def _prefix(self, source: int, count: int) -> Array | None:
        """Return as many of the rows that a request began with as the log shows."""
        if not count:
            return None
        log, rows = self._log, slice(source, source + count)
        planned = np.isin(log.rung[rows], _PLANNED)
        planned &= log.tick[rows] == log.tick[source] + np.arange(len(planned))
        shown = len(planned) if planned.all() else int(planned.argmin())
        return log.requested[source : source + shown]


def _explorer_of(log: RunLog) -> Explorer | None:
    """Return what the run explored, None where it did not."""
    told = log.header.config.get("policy", {}).get("explore", {})
    try:
        settings = msgspec.convert(told, ExploreSettings)
        return Explorer(log.header.spec, settings, log.header.seed) if settings.active else None
    except (msgspec.ValidationError, ConfigError):
        return None


class _Blends:
    """The loop's plan, followed through the log as far as blends need it.

    Attributes:
        may_be: whether there can be blends in the log at all.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        settings = log.header.config.get("loop", {})
        try:
            chunks = msgspec.convert(settings.get("chunks", {}), ChunkSettings)
            fallback = msgspec.convert(settings.get("fallback", {}), FallbackSettings)
            faded = faded_elements(log.header.spec.action, chunks.blend_exclude)
        except (msgspec.ValidationError, ConfigError):
            chunks, fallback, faded = ChunkSettings(), FallbackSettings(), None
        # How many rows a chunk was asked for, which limits its tail, is not in the log.
        self._followed = fallback.tail_ticks is None
        self.may_be = chunks.ask == "ahead" and chunks.blend > 0
        self._plan = Plan(chunks.blend, faded if chunks.blend_exclude else None)
        self._newest = -1
        self._commits = self._commitments() if self.may_be else {}
        self._episode = -1

    def forget(self, tick: int) -> None:
        """Take note that a person commanded a tick, which voids the plan."""
        self._plan.clear(tick + 1)
        self._newest = tick

    def follow(self, row: int, chunk: ActionChunk) -> Array | None:
        """Return what the plan says for a row whose command came from ``chunk``."""
        log, tick = self._log, int(self._log.tick[row])
        if log.episode[row] != self._episode:
            self._episode, self._newest = int(log.episode[row]), -1
            self._plan.clear(chunk.tick)
        if chunk.tick > self._newest:
            self._plan.join(chunk, tick, len(chunk.actions))
            self._newest = chunk.tick
        for count in self._commits.pop(tick, ()):
            self._plan.commit(tick, count)
        planned = self._plan.row(tick) if self._followed else None
        return None if planned is None else planned.action

    def _commitments(self) -> dict[int, list[int]]:
        """Return by tick how many rows its request committed to."""
        found: dict[int, list[int]] = {}
        pairs = {
            (int(a), int(p)) for a, p in zip(self._log.answer_tick, self._log.prefix, strict=True)
        }
        for tick, count in pairs:
            if count:
                found.setdefault(tick, []).append(count)
        return found
