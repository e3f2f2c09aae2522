"""What came of evaluating policies: one record for each, and their groups summed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.acting import Select
from controller.ranges import Device, Engine
from controller.settings import Selection, Through
from controller.statistics import Interval, interval, iqm, mean_interval
from controller.stats import Reference, RunReport, normalised


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What E episodes came to.

    Attributes:
        episodes: E.
        return_mean: mean undiscounted return.
        return_std: standard deviation over the episodes.
        return_ci95: 95 % bootstrap interval of the mean.
        score_mean: mean normalised score; None without reference returns.
        score_ci95: 95 % bootstrap interval of it.
        success: share of episodes with the task's success flag at their end; None for a task
            without one.
        length_mean: mean length, in control steps.
        episode_returns: return of each episode.
    """

    episodes: int
    return_mean: float
    return_std: float
    return_ci95: Interval
    score_mean: float | None
    score_ci95: Interval | None
    success: float | None
    length_mean: float
    episode_returns: list[float]


class Evaluation(Figures, frozen=True, kw_only=True):
    """One policy on one task; an entry of ``onebeat eval --json``.

    Attributes:
        bundle: its directory.
        version: of the policy.
        algorithm: how it was learned.
        task: what it was scored on.
        seed: of the episodes' beginnings and of the policy's noise.
        through: ``vector`` or ``loop``.
        copies: episodes that ran at the same time.
        horizon: rows of action of an answer.
        execute: how many of them were executed before the next was asked for; None where the
            control loop decides.
        engine: what computed the actions.
        device: where.
        steps: network evaluations per action.
        candidates: actions drawn, of which the critics chose one.
        select: how they chose; None with one candidate.
        action_us_p50: median time of one answer to one observation, measured apart.
        selection: how the checkpoint was chosen.
        checkpoints: how many there were to choose from.
        updates: updates the policy had learned from; None where the bundle does not say.
        seconds: the episodes took.
        note: what a reader of the score must know.
        run: report of the control loop; None without one.
    """

    bundle: str
    version: str
    algorithm: str
    task: str
    seed: int
    through: Through
    copies: int
    engine: Engine
    device: Device
    steps: int
    candidates: int
    select: Select | None
    action_us_p50: float
    selection: Selection
    checkpoints: int
    updates: int | None
    seconds: float
    note: str | None
    run: RunReport | None = None
    horizon: int = 1
    execute: int | None = 1


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Policies of one algorithm that act alike, such as the runs of several seeds.

    Attributes:
        algorithm: how they learned.
        task: what on; None for several tasks together.
        tasks: how many tasks.
        steps: network evaluations per action.
        candidates: actions drawn for one.
        select: how the critics chose one.
        selection: how the checkpoints were chosen.
        policies: how many.
        episodes: of all of them.
        return_mean: mean over the policies of their mean return; None for several tasks.
        return_std: standard deviation of it over the policies.
        score_mean: mean over the policies of their mean score; None without reference returns.
        score_std: standard deviation of it over the policies; None for several tasks.
        score_iqm: interquartile mean of it over the policies.
        score_iqm_ci95: 95 % bootstrap interval of that, those of each task resampled on
            their own; None where no task has two.
        success: mean share of successes; None where one has none.
    """

    algorithm: str
    task: str | None
    tasks: int
    steps: int
    candidates: int
    select: Select | None
    selection: Selection
    policies: int
    episodes: int
    return_mean: float | None
    return_std: float | None
    score_mean: float | None
    score_std: float | None
    score_iqm: float | None
    score_iqm_ci95: Interval | None
    success: float | None


def figures(
    returns: ArrayLike,
    lengths: Sequence[int] | NDArray[np.int64],
    success: Sequence[bool] | NDArray[np.bool_] | None,
    reference: Reference | None,
) -> Figures:
    """Return what episodes came to.

    Args:
        returns: (E,) undiscounted, E of 1 or more.
        lengths: (E,) control steps.
        success: (E,) flags at the episodes' ends; None for a task without.
        reference: returns that score 0 and 100.
    """
    values = np.asarray(returns, np.float64)
    ends = mean_interval(values)
    score: float | None = None
    score_ends: Interval | None = None
    if reference is not None:
        score = normalised(float(values.mean()), reference)
        score_ends = (normalised(ends[0], reference), normalised(ends[1], reference))
    return Figures(
        episodes=len(values),
        return_mean=float(values.mean()),
        return_std=float(values.std()),
        return_ci95=ends,
        score_mean=score,
        score_ci95=score_ends,
        success=None if success is None else float(np.mean(success)),
        length_mean=float(np.mean(lengths)),
        episode_returns=values.tolist(),
    )


def groups(evaluations: Sequence[Evaluation]) -> list[Group]:
    """Sum up by task and way of acting, and where there are several, all scored tasks."""
    by_task: dict[tuple[object, ...], list[Evaluation]] = {}
    overall: dict[tuple[object, ...], list[Evaluation]] = {}
    for one in evaluations:
        way = (one.algorithm, one.steps, one.candidates, one.select, one.selection)
        by_task.setdefault((one.task, *way), []).append(one)
        if one.score_mean is not None:
            overall.setdefault(way, []).append(one)
    several = [runs for runs in overall.values() if len({run.task for run in runs}) > 1]
    return [_group(runs) for runs in (*by_task.values(), *several)]


def _group(runs: Sequence[Evaluation]) -> Group:
    first = runs[0]
    tasks = list(dict.fromkeys(run.task for run in runs))
    returns = np.array([run.return_mean for run in runs])
    successes = [run.success for run in runs if run.success is not None]
    strata = [list(_scores(run for run in runs if run.task == task)) for task in tasks]
    scores = np.array([score for stratum in strata for score in stratum])
    alike, scored = len(tasks) == 1, len(scores) > 0
    repeated = any(len(stratum) > 1 for stratum in strata)
    return Group(
        algorithm=first.algorithm,
        task=first.task if alike else None,
        tasks=len(tasks),
        steps=first.steps,
        candidates=first.candidates,
        select=first.select,
        selection=first.selection,
        policies=len(runs),
        episodes=sum(run.episodes for run in runs),
        return_mean=float(returns.mean()) if alike else None,
        return_std=float(returns.std()) if alike else None,
        score_mean=float(scores.mean()) if scored else None,
        score_std=float(scores.std()) if scored and alike else None,
        score_iqm=float(iqm(scores)) if scored else None,
        score_iqm_ci95=interval(strata, iqm) if repeated else None,
        success=float(np.mean(successes)) if len(successes) == len(runs) else None,
    )


def _scores(runs: Iterator[Evaluation]) -> Iterator[float]:
    return (run.score_mean for run in runs if run.score_mean is not None)
