"""Scoring policies over whole episodes of several copies of a task at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.acting import ActSettings
from controller.clock import MonotonicClock
from controller.errors import ConfigError
from controller.interfaces import Clock, VectorPlant
from controller.ranges import Device, Engine
from controller.scores import Evaluation, Figures, figures
from controller.settings import Selection, Through
from controller.stats import Reference
from policies.batch import load_batch
from policies.bundle import Bundle, load_bundle
from policies.engine import load_policy
from policies.model import evaluations
from policies.rollouts import Executor, roll_out

LATENCY_CALLS = 200
NOISE = 1
"""Stream of a seed that the policy's noise is drawn from; the episodes have others."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What policies are scored under.

    Attributes:
        task: name of the task.
        episodes: of each policy.
        seed: of the episodes' beginnings and of the policy's noise.
        reference: returns that score 0 and 100.
        has_success: whether the task knows success.
        engine: what computes the actions.
        device: where.
        act: how they are chosen, where that is not left to the bundle.
        through: vector or loop.
        copies: episodes that run at the same time.
        execute: rows of an answer to execute before the next is asked for; None for half of
            them.
    """

    task: str
    episodes: int
    seed: int = 0
    reference: Reference | None = None
    has_success: bool = False
    engine: Engine = "numpy"
    device: Device = "cpu"
    act: ActSettings = ActSettings()
    through: Through = "vector"
    copies: int = 1
    execute: int | None = None


def executed(execute: int | None, horizon: int) -> int:
    """Return how many rows of an answer are executed: half by default, at least one.

    Half, 8 of 16, is also what Chi et al. 2023 and Prasad et al. 2024 execute: more goes
    longer without a look, fewer drop most of what was drawn together.

    Args:
        execute: what was asked for.
        horizon: H, rows of an answer.

    Raises:
        ConfigError: more than ``horizon``.
    """
    if execute is None:
        return max(1, horizon // 2)
    if execute > horizon:
        raise ConfigError(
            f"execute={execute}: an answer of this policy has {horizon} "
            f"row{'s' if horizon > 1 else ''}; expected 1{f' to {horizon}' if horizon > 1 else ''}"
        )
    return execute


def play(
    bundle: Path, plants: VectorPlant, trial: Trial, on_episode: Callable[[], None] | None = None
) -> Figures:
    """Return what a policy's episodes came to; same seed and copies, same figures.

    Args:
        bundle: its directory.
        plants: copies of the task; left in the middle of episodes.
        trial: what it is scored under.
        on_episode: called at the end of each episode.

    Raises:
        SpecMismatch: the policy is of another robot.
        BundleError: the bundle is damaged, or cannot act as asked.
        ConfigError: it has fewer rows than are to be executed.
    """
    policy = load_batch(bundle, trial.engine, trial.device, trial.act)
    policy.spec.require(plants.spec, f"the policy {bundle}", f"the task {trial.task}")
    noise = np.random.default_rng((trial.seed, NOISE))
    rows = executed(trial.execute, policy.horizon)
    act = Executor(lambda seen: policy.act(seen, noise), plants.num, rows)
    done = roll_out(plants, act, trial.episodes, trial.seed, on_episode, act.begin)
    success = done.success if trial.has_success else None
    return figures(done.returns, done.lengths, success, trial.reference)


def best(played: Sequence[Figures]) -> int:
    """Return the index of the highest mean return, the first of equals."""
    return max(range(len(played)), key=lambda index: played[index].return_mean)


def returns_of(
    bundle: Path, plants: VectorPlant, episodes: int, seed: int, reference: Reference | None
) -> dict[str, float]:
    """Return the figures of a policy that belong among the metrics of its training."""
    trial = Trial(task=plants.spec.task, episodes=episodes, seed=seed, reference=reference)
    got = play(bundle, plants, trial)
    told = {"return_mean": got.return_mean, "return_std": got.return_std}
    return told if got.score_mean is None else told | {"score_mean": got.score_mean}


def action_us(bundle: Bundle, trial: Trial, clock: Clock) -> float:
    """Return the median time in microseconds of one answer to one observation.

    Back to back, with every cache warm: in a paced loop it takes longer.
    """
    policy = load_policy(bundle.path, trial.engine, trial.device, act=trial.act)
    seen = bundle.golden["observations"]
    times_ns = np.empty(LATENCY_CALLS, np.int64)
    for call in range(LATENCY_CALLS):
        row = seen[call % len(seen)][None]
        start_ns = clock.now_ns()
        policy.act(row, trial.seed, call)
        times_ns[call] = clock.now_ns() - start_ns
    return float(np.median(times_ns)) / 1e3


def record(
    bundle: Path,
    played: Figures,
    trial: Trial,
    seconds: float,
    *,
    selection: Selection = "last",
    checkpoints: int = 1,
    note: str | None = None,
    clock: Clock | None = None,
    **more: Any,  # noqa: ANN401
) -> Evaluation:
    """Return the record of an evaluation, the time of one action measured for it.

    Args:
        bundle: directory of the policy.
        played: what its episodes came to.
        trial: what it was scored under.
        seconds: the episodes took.
        selection: how the policy was chosen among its run's checkpoints.
        checkpoints: how many there were.
        note: what a reader must know.
        clock: measures the time; the machine's by default.
        more: further fields of the record.
    """
    opened = load_bundle(bundle)
    about = opened.manifest
    sampler = about.sampler.changed(trial.act)
    return Evaluation(
        **{name: getattr(played, name) for name in Figures.__struct_fields__},
        bundle=str(bundle),
        version=about.version,
        algorithm=about.algorithm,
        task=trial.task,
        seed=trial.seed,
        through=trial.through,
        copies=trial.copies,
        horizon=about.horizon,
        execute=executed(trial.execute, about.horizon) if trial.through == "vector" else None,
        engine=trial.engine,
        device=trial.device,
        steps=evaluations(about.model, sampler),
        candidates=sampler.candidates,
        select=sampler.select if sampler.candidates > 1 else None,
        action_us_p50=action_us(opened, trial, clock or MonotonicClock()),
        selection=selection,
        checkpoints=checkpoints,
        updates=about.training.get("steps"),
        seconds=seconds,
        note=note,
        **more,
    )
