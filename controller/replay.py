"""Recompute every command of a log and name the first that differs.

The policy draws its noise from (seed, tick of the request) and the safety filter is a pure
function, so observation, seed and policy version determine the command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from controller.interfaces import Policy
from controller.run_log import RunLog
from controller.safety import Limits, filter_action
from controller.types import ActionChunk, Array, Request, Rung, TickRecord

PolicyFor = Callable[[str], Policy | None]
"""Gives the policy of a version, or None where it cannot be had."""
Refilter = Callable[[Array, Array | None, TickRecord], Array]
"""Gives the executed command from the requested action, the command before (None at the first
tick) and the record, whose rung says whether the safe command is due."""

_FAR_NS = 2**62
_NOTHING = np.zeros(0)


@dataclass(frozen=True)
class Mismatch:
    """The first difference.

    Attributes:
        tick: tick number.
        field: requested or executed.
        expected: the logged value.
        got: the recomputed value.
        version: policy version of the tick.
    """

    tick: int
    field: str
    expected: Array
    got: Array
    version: str

    def __str__(self) -> str:
        what = f"{self.field} action is {_numbers(self.expected)} in the log"
        by = f" by {self.version}" if self.version else ""
        return f"tick {self.tick}: {what}, recomputed{by} {_numbers(self.got)}"


@dataclass(frozen=True)
class ReplayResult:
    """What a replay found.

    Attributes:
        ticks_checked: ticks whose command was recomputed in full.
        policy_actions: requested actions that were recomputed by a policy.
        first_mismatch: the first difference, None when there is none.
        skipped: number of ticks that could not be recomputed in full, by reason.
    """

    ticks_checked: int
    policy_actions: int
    first_mismatch: Mismatch | None
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def matched(self) -> bool:
        """Whether no recomputed value differs."""
        return self.first_mismatch is None

    def facts(self, log: RunLog) -> dict[str, object]:
        """Return what ``onebeat replay --json`` shows."""
        return {
            "log": str(log.path),
            "ticks": len(log),
            "ticks_checked": self.ticks_checked,
            "policy_actions": self.policy_actions,
            "skipped": self.skipped,
            "matched": self.matched,
            "first_mismatch": str(self.first_mismatch) if self.first_mismatch else None,
        }


def replay(
    log: RunLog, policy_for: PolicyFor, refilter: Refilter, *, tolerance: float = 0.0
) -> ReplayResult:
    """Recompute the commands of a log in order, up to the first that differs.

    Args:
        log: the run.
        policy_for: gives the policy of a version; asked once per version.
        refilter: the safety filter.
        tolerance: largest accepted absolute difference; 0 compares bit for bit, which a run
            on a GPU cannot keep.
    """
    recomputed = _Recomputed(log, policy_for)
    skipped: Counter[str] = Counter()
    checked = policy_actions = 0
    gaps = log.dropped_after()
    for row, record in enumerate(log.records()):
        requested, obstacle = recomputed.requested(row)
        if requested is not None:
            policy_actions += 1
            if not _same(record.requested, requested, tolerance):
                wrong = _mismatch(record, "requested", requested)
                return ReplayResult(checked, policy_actions, wrong, dict(skipped))
        if row and gaps[row - 1]:
            obstacle = obstacle or "the command before it is not in the log"
        else:
            previous = log.executed[row - 1] if row else None
            executed = refilter(record.requested, previous, record)
            if not _same(record.executed, executed, tolerance):
                wrong = _mismatch(record, "executed", executed)
                return ReplayResult(checked, policy_actions, wrong, dict(skipped))
        if obstacle:
            skipped[obstacle] += 1
        else:
            checked += 1
    return ReplayResult(checked, policy_actions, None, dict(skipped))


class _Recomputed:
    """Requested actions of a log, by the policies that made them."""

    def __init__(self, log: RunLog, policy_for: PolicyFor) -> None:
        self._log = log
        self._policy_for = policy_for
        self._policies: dict[str, Policy | None] = {}
        self._chunk: tuple[tuple[int, str], ActionChunk | None] | None = None

    def requested(self, row: int) -> tuple[Array | None, str]:
        """Return the action of a row, or None and why it has none to be recomputed."""
        if self._log.rung[row] > Rung.LOCAL:
            return None, ""
        version = self._log.versions[row]
        policy = self._policy(version)
        if policy is None:
            return None, f"policy version {version or 'unknown'} cannot be had"
        tick, asked = int(self._log.tick[row]), int(self._log.answer_tick[row])
        source = row if asked == tick else self._row_of(asked)
        if source is None:
            return None, "the observation behind the action is not in the log"
        chunk = self._infer(policy, source, asked, version)
        action = None if chunk is None else chunk.at(tick)
        return (_NOTHING if action is None else action), ""

    def _policy(self, version: str) -> Policy | None:
        if version not in self._policies:
            self._policies[version] = self._policy_for(version)
        return self._policies[version]

    def _row_of(self, tick: int) -> int | None:
        row = int(np.searchsorted(self._log.tick, tick))
        return row if row < len(self._log) and self._log.tick[row] == tick else None

    def _infer(self, policy: Policy, row: int, asked: int, version: str) -> ActionChunk | None:
        """Return the chunk of a request; ticks that share one follow each other."""
        if self._chunk is None or self._chunk[0] != (asked, version):
            request = Request(
                tick=asked,
                seed=self._log.header.seed,
                observation=self._log.observation(row),
                age_ns=0,
                deadline_ns=_FAR_NS,
            )
            self._chunk = (asked, version), policy.infer(request)
        return self._chunk[1]


def _same(logged: Array, got: Array, tolerance: float) -> bool:
    if logged.shape != got.shape or logged.dtype != got.dtype:
        return False
    if tolerance:
        return np.allclose(logged, got, rtol=0.0, atol=tolerance, equal_nan=True)
    return logged.tobytes() == got.tobytes()


def _mismatch(record: TickRecord, name: str, got: Array) -> Mismatch:
    return Mismatch(record.tick, name, getattr(record, name), got, record.version)


def _numbers(array: Array) -> str:
    text = ", ".join(f"{value:.9g}" for value in array.reshape(-1)[:8].tolist())
    return f"[{text}{', ...' if array.size > 8 else ''}]"


def refilter_of(log: RunLog) -> Refilter:
    """Return the safety filter of a log's run, as a function of what the log holds."""
    header = log.header
    limits = Limits.of(
        header.spec, header.slew_per_s, header.safe_action, period_ns=header.period_ns
    )

    def refilter(requested: Array, previous: Array | None, record: TickRecord) -> Array:
        if record.rung >= Rung.HOLD:
            return limits.safe
        before = limits.safe if previous is None else previous
        return filter_action(requested, before, limits)[0]

    return refilter
