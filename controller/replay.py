"""Recompute every command of a log and name the first that differs.

The policy draws its noise from (seed, tick of the request) and the safety filter is a pure
function of what the log holds, so observation, seed and policy version determine the command.
A person's commands come from nowhere but the log; what the filter made of them is recomputed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from controller.replay_requests import PolicyFor, Recomputed
from controller.run_log import RunLog
from controller.safety_filter import SafetyFilter
from controller.types import Array, TickRecord

__all__ = ["Mismatch", "PolicyFor", "Refilter", "ReplayResult", "refilter_of", "replay"]

Refilter = Callable[[Array, Array | None, TickRecord], Array | None]
"""Gives the executed command from the requested action, the command before (None at the first
tick, and where it is not in the log) and the record, whose rung says whether the safe command is
due. Called on every tick in order. None where what it depends on is not in the log."""


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
            on a GPU cannot keep, and what was answered together with other requests to
            ``BATCH_ROUNDING``.
    """
    recomputed = Recomputed(log, policy_for)
    skipped: Counter[str] = Counter()
    checked = policy_actions = 0
    gaps = log.dropped_after()
    for row, record in enumerate(log.records()):
        requested, obstacle = recomputed.requested(row)
        if requested is not None:
            policy_actions += 1
            accepted = tolerance or recomputed.rounding(row)
            if not _same(record.requested, requested, accepted):
                wrong = _mismatch(record, "requested", requested)
                return ReplayResult(checked, policy_actions, wrong, dict(skipped))
        lost = row > 0 and bool(gaps[row - 1])
        previous = log.executed[row - 1] if row and not lost else None
        executed = refilter(record.requested, previous, record)
        if lost or executed is None:
            obstacle = obstacle or "the command before it is not in the log"
        elif not _same(record.executed, executed, tolerance):
            wrong = _mismatch(record, "executed", executed)
            return ReplayResult(checked, policy_actions, wrong, dict(skipped))
        if obstacle:
            skipped[obstacle] += 1
        else:
            checked += 1
    return ReplayResult(checked, policy_actions, None, dict(skipped))


def _same(logged: Array, got: Array, tolerance: float | Array) -> bool:
    if logged.shape != got.shape or logged.dtype != got.dtype:
        return False
    if np.any(tolerance):
        return bool(np.isclose(logged, got, rtol=0.0, atol=tolerance, equal_nan=True).all())
    return logged.tobytes() == got.tobytes()


def _mismatch(record: TickRecord, name: str, got: Array) -> Mismatch:
    return Mismatch(record.tick, name, getattr(record, name), got, record.version)


def _numbers(array: Array) -> str:
    text = ", ".join(f"{value:.9g}" for value in array.reshape(-1)[:8].tolist())
    return f"[{text}{', ...' if array.size > 8 else ''}]"


def refilter_of(log: RunLog) -> Refilter:
    """Return the safety filter of a log's run, as a function of what the log holds."""
    header = log.header
    safety = SafetyFilter(header.spec, header.allowed, period_ns=header.period_ns)
    begun = header.part > 0  # The files before were removed, and the commands in them are unknown.

    def refilter(requested: Array, previous: Array | None, record: TickRecord) -> Array | None:
        nonlocal begun
        if previous is None and begun:
            safety.lose()
        begun = True
        return safety.recompute(record)

    return refilter
