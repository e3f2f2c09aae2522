"""The verbs that run policies, and those that look at runs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.arguments import Arguments
from controller.cli.reports import describe_opened, put, report_log
from controller.cli.sources import open_plant, open_policy, open_source, reference
from controller.errors import LogError, PlantFailed

if TYPE_CHECKING:
    from controller.interfaces import Policy
    from controller.ranges import Engine
    from controller.settings import (
        DemoConfig,
        DoctorConfig,
        LatencyConfig,
        PolicySettings,
        ReplayConfig,
        RunConfig,
        ShowConfig,
    )


def _policy_of(about: PolicySettings, engine: Engine) -> Policy:
    """Load the policy of a run into this process; an engine other than its own is on the CPU."""
    device = about.device if engine == about.engine else "cpu"
    return open_policy(about.bundle, engine, device, about.act)


def run(config: RunConfig, arguments: Arguments) -> int:
    """Run a policy on a plant, in real time or in lockstep, and report."""
    from controller.launch import RunFailed, fresh_log
    from controller.session import run_lockstep

    if config.mode == "realtime":
        return _run_realtime(config, arguments)
    plant = open_plant(config.task, config.seed, config.plant.faults, config.out)
    policy = _policy_of(config.policy, config.policy.engine)
    policy.spec.require(plant.spec, "the policy", "the plant")
    log = fresh_log(Path(config.out))
    try:
        run_lockstep(config, plant, policy, log)
    except PlantFailed as error:
        report_log(log, arguments)
        raise RunFailed(f"{error} (log: {log})", log) from error
    return report_log(log, arguments)


def _run_realtime(config: RunConfig, arguments: Arguments) -> int:
    from controller.display import run_bar
    from controller.launch import RunFailed, run_line, watch

    log = Path(config.out) / "log.mcap"
    try:
        with run_bar(config.seconds) as show:
            notes = watch(config, lambda elapsed_s, status: show(elapsed_s, run_line(status)))
    except RunFailed as error:
        if error.log is not None:
            report_log(error.log, arguments)
        raise
    for note in notes:
        sys.stderr.write(f"onebeat run: {note}\n")
    return report_log(log, arguments)


def loop(config: RunConfig, arguments: Arguments) -> int:
    """Be the control loop of a run."""
    from controller.session import run_realtime

    replica = None
    if config.policy.local_replica:
        replica = _policy_of(config.policy, "numpy")
    run_realtime(config, replica)
    return 0


def replay_log(config: ReplayConfig, arguments: Arguments) -> int:
    """Recompute a log; status 1 where an action differs."""
    from controller.bundle_search import bundles_of
    from controller.display import say
    from controller.log_reader import read_log
    from controller.replay import refilter_of, replay
    from controller.settings import PolicySettings
    from policies.bundle import shipped

    log = read_log(config.log)
    about = msgspec.convert(log.header.config.get("policy", {}), PolicySettings)
    places = bundles_of(log, config.bundles)
    places |= {v: Path(name) for v, name in log.bundles.items() if name in shipped()}

    def policy_for(version: str) -> Policy | None:
        if version not in places:
            return None
        policy = open_policy(str(places[version]), about.engine, "cpu", about.act)
        return policy if policy.version == version else None

    result = replay(log, policy_for, refilter_of(log), tolerance=config.tolerance)
    say(result.facts(log), arguments.json)
    if result.first_mismatch is not None:
        raise LogError(f"{config.log}: {result.first_mismatch}")
    if result.skipped:
        why = "; ".join(f"{count} ticks: {reason}" for reason, count in result.skipped.items())
        raise LogError(f"{config.log}: not recomputed: {why}; name a store with bundles=")
    return 0


def latency(config: LatencyConfig, arguments: Arguments) -> int:
    """Time requests to a policy server process."""
    from controller.latency import measure, print_report
    from controller.launch import policy_servers
    from controller.settings import PolicySettings
    from policies.bundle import load_bundle

    spec = load_bundle(config.bundle).spec
    about = PolicySettings(bundle=config.bundle, engine=config.engine, device=config.device)
    with policy_servers(about) as start:
        report = measure(
            spec,
            start,
            rates_hz=config.rates_hz,
            transports=config.transports,
            seconds=config.seconds,
        )
    return put(report, print_report, arguments)


def doctor(config: DoctorConfig, arguments: Arguments) -> int:
    """Measure what this machine can hold."""
    from controller.doctor import examine
    from controller.doctor_report import print_report
    from controller.latency import resting
    from controller.types import Request

    infer = None
    if config.bundle:
        policy = open_policy(config.bundle, "numpy", "cpu")
        request = Request(0, 0, resting(policy.spec), 0, 2**62)

        def infer() -> None:
            policy.infer(request)

    report = examine(config.seconds, infer)
    return put(report, print_report, arguments)


def show(config: ShowConfig, arguments: Arguments) -> int:
    """Describe a file or directory by what it is; draw it if it is a dataset."""
    from policies.data.open import is_dataset

    path = Path(config.path)
    if path.suffix == ".mcap":
        return report_log(path, arguments)
    if path.is_dir() and not is_dataset(path):
        from controller.display import say
        from policies.bundle import describe_bundle

        say(describe_bundle(path), arguments.json)
        return 0
    dataset = open_source(config.path, finite=False)
    beside = Path(dataset.source)
    picture = Path(config.out) if config.out else beside.with_name(f"{beside.stem}.png")
    return describe_opened(dataset, "", arguments, picture)


def demo(config: DemoConfig, arguments: Arguments) -> int:
    """Do the whole circle and report."""
    from controller.demo import circle, pictures, print_end, write_report
    from controller.display import console
    from controller.stats import summarise
    from sim.pointmaze import walls
    from sim.render import draw_run

    out = Path(config.out)
    maze = walls(config.task)
    log, finetune = circle(config, console())
    drawn = pictures(log, maze, partial(draw_run, config.task), out)
    report = summarise(log, reference(config.task))
    write_report(out, report, log, finetune, drawn)
    print_end(console(), out, report, finetune, drawn)
    return 0
