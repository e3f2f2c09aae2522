"""Scoring one policy under one delay."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from controller.clock import VirtualClock
from controller.delayed import DelayedPolicy
from controller.delays.blocking import NEVER_NS, play_blocking
from controller.delays.settings import Arm, DelaysConfig
from controller.evaluate import figures_of
from controller.interfaces import Clock, Plant, Policy
from controller.log_reader import read_log
from controller.scores import Figures, figures
from controller.session import run_virtual
from controller.settings import PolicySettings, RunConfig
from controller.stats import Reference
from controller.types import Observation, Reason, Request, Rung

NEVER_S = 1e9
"""A study goes on to the end of the episode where a robot's stop would latch."""

MakePlant = Callable[[Clock], Plant]


class DelayRow(msgspec.Struct, frozen=True, kw_only=True):
    """One policy, run in one way, under one delay.

    Attributes:
        arm: name of the policy and the way.
        task: the task.
        delay_ms: delay that was asked for.
        latency_ms: median time from a request to the answer that acted; None when none did.
        steps: network evaluations of an answer.
        episodes: how many.
        score: mean normalised score; None without a reference.
        score_ci95: its bootstrap interval; None likewise.
        return_mean: mean return.
        return_ci95: its bootstrap interval.
        success: share of successes; None without such a thing.
        length: mean steps of an episode.
        rungs: share of ticks within episodes by rung; empty for ``blocking``.
    """

    arm: str
    task: str
    delay_ms: float
    latency_ms: float | None
    steps: int
    episodes: int
    score: float | None
    score_ci95: tuple[float, float] | None
    return_mean: float
    return_ci95: tuple[float, float]
    success: float | None
    length: float
    rungs: dict[str, float]


class DelayRows(msgspec.Struct, frozen=True):
    """What ``onebeat delays --json`` prints."""

    rows: list[DelayRow]


def score(
    config: DelaysConfig,
    arm: Arm,
    delay_ms: float,
    policy: Policy,
    make_plant: MakePlant,
    reference: Reference | None,
    has_success: bool,
) -> DelayRow:
    """Play the episodes of one cell.

    Args:
        config: settings of the study.
        arm: the policy and the way to run it.
        delay_ms: the delay of its answers.
        policy: the arm's, in this process.
        make_plant: makes a plant that follows a clock.
        reference: returns that score 0 and 100.
        has_success: whether the task knows success.
    """
    steps = _steps(policy)
    whole_ms = delay_ms + arm.evaluation_ms * steps
    if arm.blocking:
        found = _blocking(config, whole_ms, policy, make_plant, reference, has_success)
        latency_ms: float | None = whole_ms
        rungs: dict[str, float] = {}
    else:
        found, latency_ms, rungs = _looped(
            config, arm, whole_ms, policy, make_plant, reference, has_success
        )
    return DelayRow(
        arm=arm.name,
        task=policy.spec.task,
        delay_ms=delay_ms,
        latency_ms=latency_ms,
        steps=steps,
        episodes=found.episodes,
        score=found.score_mean,
        score_ci95=found.score_ci95,
        return_mean=found.return_mean,
        return_ci95=found.return_ci95,
        success=found.success,
        length=found.length_mean,
        rungs=rungs,
    )


def _steps(policy: Policy) -> int:
    """Return the network evaluations of an answer."""
    resting = Observation(tuple(array.resting() for array in policy.spec.observation), 0)
    chunk = policy.infer(Request(0, 0, resting, 0, NEVER_NS))
    assert chunk is not None, "a policy in this process answers in the end"
    return chunk.evaluations


def _blocking(
    config: DelaysConfig,
    delay_ms: float,
    policy: Policy,
    make_plant: MakePlant,
    reference: Reference | None,
    has_success: bool,
) -> Figures:
    clock = VirtualClock()
    plant = make_plant(clock)
    slow = DelayedPolicy(policy, clock, round(delay_ms * 1e6))
    try:
        ends = [
            played.last
            for played in play_blocking(plant, slow, clock, config.seed, config.episodes)
        ]
    finally:
        plant.close()
    returns = np.array([end.episode_return for end in ends])
    success = np.array([end.success for end in ends]) if has_success else None
    lengths = np.array([end.step for end in ends], np.int64)
    return figures(returns, lengths, success, reference)


def _looped(
    config: DelaysConfig,
    arm: Arm,
    delay_ms: float,
    policy: Policy,
    make_plant: MakePlant,
    reference: Reference | None,
    has_success: bool,
) -> tuple[Figures, float | None, dict[str, float]]:
    run = RunConfig(
        task=policy.spec.task,
        mode="virtual",
        seconds=None,
        episodes=config.episodes,
        seed=config.seed,
        policy=PolicySettings(bundle=arm.bundle, delay_ms=delay_ms),
        loop=msgspec.structs.replace(arm.loop, stop_after_s=NEVER_S),
    )
    with tempfile.TemporaryDirectory(prefix="onebeat-delays-") as directory:
        file = Path(directory) / "log.mcap"
        run_virtual(run, make_plant, policy, file)
        log = read_log(file)
    within = log.reasons & Reason.EPISODE == 0
    trips = log.rtt_ns[within & (log.answer_tick >= 0)]
    latency_ms = float(np.median(np.maximum(trips, 0))) / 1e6 if len(trips) else None
    counts = np.bincount(log.rung[within], minlength=len(Rung)) / max(1, int(within.sum()))
    rungs = {rung.name.lower(): round(float(counts[rung]), 4) for rung in Rung if counts[rung]}
    return figures_of(log, reference, has_success=has_success), latency_ms, rungs
