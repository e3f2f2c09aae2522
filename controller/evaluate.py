"""Scoring a policy over seeded episodes, with the control loop in lockstep."""

from __future__ import annotations

import tempfile
from pathlib import Path

from controller.interfaces import Plant, Policy
from controller.log_reader import read_log
from controller.session import run_lockstep
from controller.settings import EvalConfig, PlantSettings, PolicySettings, RunConfig
from controller.stats import Reference, RunReport, summarise


def score(
    config: EvalConfig,
    task: str,
    plant: Plant,
    policy: Policy,
    reference: Reference | None,
    has_success: bool,
) -> RunReport:
    """Return the report of ``config.episodes`` episodes.

    The log is thrown away; ``onebeat run mode=lockstep`` keeps it.
    """
    run = RunConfig(
        task=task,
        mode="lockstep",
        seconds=None,
        episodes=config.episodes,
        seed=config.seed,
        plant=PlantSettings(faults=config.faults),
        policy=PolicySettings(bundle=config.bundle, engine=config.engine, device=config.device),
        loop=config.loop,
    )
    with tempfile.TemporaryDirectory(prefix="onebeat-eval-") as directory:
        log = Path(directory) / "log.mcap"
        run_lockstep(run, plant, policy, log)
        return summarise(read_log(log), reference, has_success=has_success)
