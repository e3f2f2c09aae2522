"""What a run achieved and how punctual it was, from its log alone."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.histogram import Histogram
from controller.log_schema import STAGES
from controller.run_log import RunLog
from controller.types import Reason, Rung

MAX_LATE = 100
Reference = tuple[float, float]
"""Mean return of the random and of the expert policy: 0 and 100 on the normalised scale."""


class Latency(msgspec.Struct, frozen=True):
    """Percentiles in microseconds, to three digits; the longest exactly."""

    p50: float
    p99: float
    p99_9: float
    max: float


class Rungs(msgspec.Struct, frozen=True):
    """Ticks by the rung their command came from."""

    fresh: int = 0
    tail: int = 0
    local: int = 0
    hold: int = 0
    stop: int = 0
    human: int = 0


class LateStep(msgspec.Struct, frozen=True):
    """Physics that was not ready at the end of its control step, as the loop saw it.

    Attributes:
        tick: tick that saw it first.
        episode: episode of its observation.
        step: step of its observation.
        steps: late steps since the tick before; more than 1 where the loop missed some.
        late_us: the largest lateness among them.
    """

    tick: int
    episode: int
    step: int
    steps: int
    late_us: float


class RunReport(msgspec.Struct, frozen=True, kw_only=True, rename={"return_": "return"}):
    """The result of a run; the fields of ``onebeat run --json``.

    Attributes:
        rate_hz: commands sent per second.
        ticks: logged ticks.
        missed: ticks whose command left after the next deadline, and ``skipped``.
        return_: mean return of the complete episodes; of the unfinished one when ``partial``;
            None without a tick.
        score: mean normalised score, 100 for the reference expert; None without a reference.
        success: fraction of the same episodes with the task's success flag; None without one.
        episodes: complete episodes.
        rungs: ticks by rung; those between episodes count as hold.
        versions: policy versions in order of appearance.
        stages: latency by stage; None for a stage without a sample. ``total`` runs from the
            tick's deadline to the command sent, and the others add up to it: ``rest`` is what
            no other names, such as waiting in vain for an answer.
        work: ``total`` less the lateness of the wake-up.
        corrected: ``total`` with the skipped periods, each as late as the command that followed
            it: without them the longest delays would be told once instead of once per period.
        answers: request to answer, over the answers that acted: also of those that no tick
            waited for.
        log: path of the log.
        task: name of the task.
        mode: realtime, virtual or lockstep.
        seconds: from the first deadline to the last command.
        skipped: periods that passed without a tick.
        dropped: records that the log could not take.
        truncated: the log is not complete.
        partial: no episode was completed.
        holds_between_episodes: ticks that held because an episode was over.
        episode_returns: return of each complete episode.
        reasons: ticks by name of the reason; a tick may have several.
        real_time_factor: plant time per wall-clock time within the episodes, by the plant's own
            stamps; None in lockstep and without two observations.
        late_steps: control steps that the plant's physics had not ready in time.
        late: the first ``MAX_LATE`` ticks that saw such steps.
        plant: what the plant says of itself: times per control step at which a command can
            begin to act (``substeps``), and the ``faults`` that were on.
        histograms: by stage, and of ``corrected``: HdrHistogram's compressed text (V2), in
            nanoseconds.
    """

    rate_hz: float
    ticks: int
    missed: int
    return_: float | None
    score: float | None
    success: float | None
    episodes: int
    rungs: Rungs
    versions: list[str]
    stages: dict[str, Latency | None]
    log: str
    task: str
    mode: Literal["realtime", "virtual", "lockstep"]
    seconds: float
    skipped: int
    dropped: int
    truncated: bool
    partial: bool
    holds_between_episodes: int
    episode_returns: list[float]
    reasons: dict[str, int]
    real_time_factor: float | None
    late_steps: int
    late: list[LateStep]
    plant: dict[str, Any]
    work: Latency | None
    corrected: Latency | None
    answers: Latency | None
    histograms: dict[str, str]


def summarise(
    log: RunLog, reference: Reference | None = None, *, has_success: bool = True
) -> RunReport:
    """Return the figures of a run.

    Args:
        log: the run.
        reference: returns that score 0 and 100.
        has_success: whether the task knows success; else there is no share of it.
    """
    skipped = skipped_after(log)
    returns, successes, complete = _episodes(log)
    counts = np.bincount(log.rung, minlength=len(Rung))
    times = {**stages(log), "corrected": corrected(log)}
    histograms = {name: Histogram(values) for name, values in times.items()}
    return RunReport(
        rate_hz=_rate_hz(log),
        ticks=len(log),
        missed=int(late(log).sum() + skipped.sum()),
        return_=float(np.mean(returns)) if returns else None,
        score=_score(returns, reference),
        success=float(np.mean(successes)) if successes and has_success else None,
        episodes=complete,
        rungs=Rungs(**{rung.name.lower(): int(counts[rung]) for rung in Rung}),
        versions=list(dict.fromkeys(version for version in log.versions if version)),
        stages={name: _latency(each) for name, each in histograms.items() if name != "corrected"},
        log=str(log.path),
        task=log.header.task or log.header.spec.task,
        mode=log.header.mode,
        seconds=(int(log.sent_ns[-1]) - int(log.deadline_ns[0])) / 1e9 if len(log) else 0.0,
        skipped=int(skipped.sum()),
        dropped=log.dropped,
        truncated=log.truncated,
        partial=bool(returns) and not complete,
        holds_between_episodes=int(
            ((log.rung == Rung.HOLD) & (log.reasons & Reason.EPISODE != 0)).sum()
        ),
        episode_returns=returns[:complete],
        reasons={
            reason.name.lower(): int((log.reasons & reason != 0).sum())
            for reason in Reason
            if reason.name and (log.reasons & reason != 0).any()
        },
        real_time_factor=_real_time_factor(log),
        late_steps=int(log.late_steps[-1] - log.late_steps[0]) if len(log) else 0,
        late=_late_steps(log),
        plant=log.header.plant,
        work=latency(work(log)),
        corrected=_latency(histograms["corrected"]),
        answers=latency(answers(log)),
        histograms={name: each.encoded() for name, each in histograms.items() if len(each)},
    )


def late(log: RunLog) -> NDArray[np.bool_]:
    """Return (T,) whether the command left after the next deadline."""
    return log.sent_ns > log.deadline_ns + log.header.period_ns


def skipped_after(log: RunLog) -> NDArray[np.int64]:
    """Return (T,) the number of periods without a tick between each tick and the next.

    Ticks that ran but are missing from the log, as the sink reported, are not skipped.
    """
    missing = np.zeros(len(log), np.int64)
    missing[:-1] = np.diff(log.tick) - 1
    return (missing - log.dropped_after()).clip(min=0)


def missed_between(log: RunLog, start_ns: int, end_ns: int) -> int:
    """Return the ticks missed within [start_ns, end_ns] of the loop's clock."""
    within = (log.sent_ns >= start_ns) & (log.deadline_ns <= end_ns)
    return int((late(log) + skipped_after(log))[within].sum())


def latency(times_ns: NDArray[np.int64]) -> Latency | None:
    """Return the percentiles of the times that are not absent (negative)."""
    return _latency(Histogram(times_ns))


def _latency(histogram: Histogram) -> Latency | None:
    found = histogram.quantiles()
    return Latency(found.p50, found.p99, found.p99_9, found.max) if found else None


def stages(log: RunLog) -> dict[str, NDArray[np.int64]]:
    """Return (T,) nanoseconds by stage, -1 where absent; ``rest`` makes the sum of a tick whole."""
    *parts, total = STAGES
    known = np.sum([log.stages[name].clip(min=0) for name in parts], axis=0)
    whole = log.stages[total]
    rest = np.where(whole >= 0, whole - known, -1)
    return {**{name: log.stages[name] for name in parts}, "rest": rest, total: whole}


def work(log: RunLog) -> NDArray[np.int64]:
    """Return (T,) nanoseconds from the wake-up to the command sent, -1 where absent."""
    total, wake = log.stages["total"], log.stages["wake"]
    return np.where((total >= 0) & (wake >= 0), total - wake, -1)


def answers(log: RunLog) -> NDArray[np.int64]:
    """Return nanoseconds from request to answer, once for each answer that acted."""
    acted = np.flatnonzero((log.answer_tick >= 0) & (log.rtt_ns >= 0))
    _, first = np.unique(log.answer_tick[acted], return_index=True)
    return log.rtt_ns[acted[first]]


def corrected(log: RunLog) -> NDArray[np.int64]:
    """Return nanoseconds from each deadline to the next command: of the ticks, then of the skipped.

    A skipped period had to wait for the command of the tick after it. Against the intended
    start, which the grid gives, nothing is left to estimate from the period.
    """
    skipped = skipped_after(log)
    rows = np.flatnonzero(skipped)
    before = np.repeat(rows, skipped[rows])
    place = np.arange(len(before)) - np.repeat(
        np.cumsum(skipped[rows]) - skipped[rows], skipped[rows]
    )
    due_ns = log.deadline_ns[before] + (place + 1) * log.header.period_ns
    return np.concatenate([log.stages["total"], log.sent_ns[before + 1] - due_ns])


def normalised(episode_return: float, reference: Reference) -> float:
    """Return the score: 0 for the lower reference, 100 for the upper one."""
    low, high = reference
    return 100.0 * (episode_return - low) / (high - low)


def _rate_hz(log: RunLog) -> float:
    if len(log) < 2:
        return 0.0
    span_ns = int(log.sent_ns[-1]) - int(log.sent_ns[0])
    periods = int(log.tick[-1]) - int(log.tick[0]) - int(skipped_after(log).sum())
    return periods * 1e9 / span_ns if span_ns > 0 else 0.0


def _real_time_factor(log: RunLog) -> float | None:
    if log.header.mode == "lockstep" or len(log) < 2:
        return None
    within = (np.diff(log.episode) == 0) & ~log.done[:-1]
    stamps_ns = np.diff(log.stamp_ns)[within].sum()
    steps = np.diff(log.step)[within].sum()
    return float(steps * log.header.spec.period_ns / stamps_ns) if stamps_ns > 0 else None


def _late_steps(log: RunLog) -> list[LateStep]:
    counts = np.diff(log.late_steps, prepend=log.late_steps[:1])
    rows = np.flatnonzero(counts > 0)[:MAX_LATE]
    columns = zip(
        log.tick[rows].tolist(),
        log.episode[rows].tolist(),
        log.step[rows].tolist(),
        counts[rows].tolist(),
        (log.late_ns[rows] / 1e3).tolist(),
        strict=True,
    )
    return [LateStep(*values) for values in columns]


def _score(returns: list[float], reference: Reference | None) -> float | None:
    if reference is None or not returns:
        return None
    return float(np.mean([normalised(value, reference) for value in returns]))


def _episodes(log: RunLog) -> tuple[list[float], list[bool], int]:
    """Return returns and successes of the complete episodes, or of the unfinished one."""
    ends = np.flatnonzero(log.done)
    _, first = np.unique(log.episode[ends], return_index=True)
    rows = ends[first]
    complete = len(rows)
    if not complete and len(log):
        rows = np.array([len(log) - 1])
    returns = [float(value) for value in log.episode_return[rows]]
    return returns, [bool(flag) for flag in log.success[rows]], complete
