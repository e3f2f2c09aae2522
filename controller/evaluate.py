"""Scoring a policy over seeded episodes, with the control loop in lockstep."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from controller.interfaces import Plant, Policy
from controller.log_reader import read_log
from controller.run_log import RunLog
from controller.scores import Figures, figures
from controller.session import run_lockstep
from controller.settings import EvalConfig, PlantSettings, PolicySettings, RunConfig
from controller.stats import Reference, RunReport, summarise


def score(
    config: EvalConfig,
    bundle: Path | str,
    plant: Plant,
    policy: Policy,
    reference: Reference | None,
    has_success: bool,
) -> tuple[Figures, RunReport]:
    """Return what ``config.episodes`` episodes came to, and the report of the loop.

    The log is thrown away; ``onebeat run mode=lockstep`` keeps it.
    """
    run = RunConfig(
        task=plant.spec.task,
        mode="lockstep",
        seconds=None,
        episodes=config.episodes,
        seed=config.seed,
        plant=PlantSettings(faults=config.faults),
        policy=PolicySettings(bundle=str(bundle), engine=config.engine, device=config.device),
        loop=config.loop,
    )
    with tempfile.TemporaryDirectory(prefix="onebeat-eval-") as directory:
        file = Path(directory) / "log.mcap"
        run_lockstep(run, plant, policy, file)
        log = read_log(file)
    return (
        figures_of(log, reference, has_success=has_success),
        summarise(log, reference, has_success=has_success),
    )


def figures_of(log: RunLog, reference: Reference | None, *, has_success: bool) -> Figures:
    """Return what the complete episodes of a run came to; there must be one."""
    ends = np.flatnonzero(log.done)
    rows = ends[np.unique(log.episode[ends], return_index=True)[1]]
    success = log.success[rows] if has_success else None
    return figures(log.episode_return[rows], log.step[rows], success, reference)
