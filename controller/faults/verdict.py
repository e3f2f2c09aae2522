"""What a fault did to a run, from the run's log."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.run_log import RunLog
from controller.safety import bounds_in_dtype
from controller.stats import late, skipped_after
from controller.types import Mode, Reason, Rung

CALM_S = 0.25
"""Time of fresh actions alone that counts as recovered."""
MAY_LOSE = 1
"""Records that a fault may cost."""


class FaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        fault: its name.
        rate_hz: rate of the loop.
        ticks: ticks of the run.
        late: ticks whose command left after the next deadline, or that were skipped.
        max_gap_ms: longest time between two commands.
        max_jump: largest change of an action element between two commands, in its unit.
        rungs: ticks by rung.
        recovery_s: from the end of the fault to the first of a quarter of a second of fresh
            actions; 0 when it never stopped them; None when they did not come back.
        records_lost: ticks that ran and are not in the log.
        ok: whether every tick had a valid command, in time; nothing hung or crashed that was
            not meant to; at most one record was lost; and it recovered by itself. None for a
            fault that was left out.
        note: one line on what was seen, or what the fault is allowed.
    """

    fault: str
    rate_hz: float
    ticks: int = 0
    late: int = 0
    max_gap_ms: float = 0.0
    max_jump: float = 0.0
    rungs: dict[str, int] = {}
    recovery_s: float | None = None
    records_lost: int = 0
    ok: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a fault is allowed.

    Attributes:
        recovers: fresh actions come back; else the run has to end on its latched stop.
        records: ticks that may be missing from the log; None for any number that the log, or
            the status board, counts.
    """

    recovers: bool = True
    records: int | None = MAY_LOSE


@dataclass(frozen=True, slots=True)
class Trial:
    """What happened around a log.

    Attributes:
        ended_ns: when the fault was over, on the loop's clock.
        status: the last status board.
        complaints: what went wrong beside the log: something hung, or was not refused.
        notes: what else was seen.
    """

    ended_ns: int
    status: dict[str, int]
    complaints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(name: str, log: RunLog, trial: Trial, expected: Expectation) -> FaultRow:
    """Return the row of a fault."""
    lateness = int(late(log).sum() + skipped_after(log).sum())
    lost = max(0, trial.status["ticks"] - len(log))
    recovery_s = _recovery_s(log, trial.ended_ns)
    complaints = [
        *trial.complaints,
        *_invalid(log),
        *([f"{lateness} ticks late"] if lateness else []),
        *_losses(lost, expected),
        *_ending(log, recovery_s, expected),
    ]
    counts = np.bincount(log.rung, minlength=len(Rung))
    return FaultRow(
        fault=name,
        rate_hz=log.header.rate_hz,
        ticks=trial.status["ticks"],
        late=lateness,
        max_gap_ms=round(float(np.diff(log.sent_ns).max(initial=0)) / 1e6, 3),
        max_jump=round(_max_jump(log), 6),
        rungs={rung.name.lower(): int(counts[rung]) for rung in Rung if counts[rung]},
        recovery_s=recovery_s,
        records_lost=lost,
        ok=not complaints,
        note="; ".join((*complaints, *trial.notes)),
    )


def _invalid(log: RunLog) -> list[str]:
    """Return what is wrong with the commands that were sent."""
    low, high = (bound.astype(np.float64) for bound in bounds_in_dtype(log.header.spec.action))
    real = log.executed.astype(np.float64)
    if not np.isfinite(real).all():
        return ["a command was not finite"]
    if ((real < low) | (real > high)).any():
        return ["a command left its limits"]
    return []


def _losses(lost: int, expected: Expectation) -> list[str]:
    if expected.records is None or lost <= expected.records:
        return []
    return [f"{lost} records lost, {expected.records} allowed"]


def _ending(log: RunLog, recovery_s: float | None, expected: Expectation) -> list[str]:
    if expected.recovers:
        return [] if recovery_s is not None else ["no recovery"]
    stopped = len(log) > 0 and log.rung[-1] == Rung.STOP and log.mode[-1] == Mode.FAULT
    return [] if stopped else ["the stop did not latch"]


def _recovery_s(log: RunLog, ended_ns: int) -> float | None:
    """Return the time from the end of the fault to calm."""
    needed = max(1, round(CALM_S * log.header.rate_hz))
    after = np.flatnonzero(log.deadline_ns >= ended_ns)
    well = _well(log)[after]
    if len(after) < needed:
        return None
    # Calm begins at the first row from which `needed` rows are all well.
    windows = np.lib.stride_tricks.sliding_window_view(well, needed).all(axis=1)
    starts = np.flatnonzero(windows)
    if not len(starts):
        return None
    return round(max(0, int(log.deadline_ns[after[starts[0]]]) - ended_ns) / 1e9, 3)


def _well(log: RunLog) -> NDArray[np.bool_]:
    """Return (T,) whether the tick had a fresh action, or none was due between two episodes."""
    between = (log.rung == Rung.HOLD) & (log.reasons & Reason.EPISODE != 0)
    well: NDArray[np.bool_] = (log.rung == Rung.FRESH) | between
    return well


def _max_jump(log: RunLog) -> float:
    flat = log.executed.reshape(len(log), -1).astype(np.float64)
    return float(np.abs(np.diff(flat, axis=0)).max(initial=0.0))
