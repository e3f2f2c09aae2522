"""The verbs that run policies, and those that look at runs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.cli.reports import describe_opened, report_log
from controller.cli.sources import (
    open_plant,
    open_policy,
    open_source,
    open_twin,
    reference,
    task_spec,
)
from controller.errors import ConfigError, PlantFailed

if TYPE_CHECKING:
    from controller.interfaces import Policy
    from controller.ranges import Engine
    from controller.settings import (
        DemoConfig,
        PolicySettings,
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

    if config.mode == "realtime":
        _require_chunks(config)
        return _run_realtime(config, arguments)
    for name, part in (("policy", config.policy), ("plant", config.plant)):
        if part.endpoint is not None:
            raise ConfigError(f"{name}.endpoint is for mode=realtime, got mode={config.mode}")
    spec = task_spec(config.task)
    policy = _policy_of(config.policy, config.policy.engine)
    policy.spec.require(spec, "the policy", "the plant")
    log = fresh_log(Path(config.out))
    try:
        _run_here(config, policy, log)
    except PlantFailed as error:
        report_log(log, arguments)
        raise RunFailed(f"{error} (log: {log})", log) from error
    return report_log(log, arguments)


def _require_chunks(config: RunConfig) -> None:
    """Refuse to ask a policy ahead whose only row is over by the time that it comes."""
    if config.loop.chunks.ask != "ahead" or config.policy.endpoint is not None:
        return
    from policies.bundle import load_bundle

    bundle = load_bundle(config.policy.bundle)
    if bundle.manifest.horizon == 1:
        raise ConfigError(
            f"loop.chunks.ask=ahead: {config.policy.bundle} answers with 1 row, for the tick that "
            "asked; expected a policy of chunks (onebeat train horizon=16), or ask=each_tick"
        )


def _run_here(config: RunConfig, policy: Policy, log: Path) -> None:
    from controller.session import run_lockstep, run_virtual

    if config.mode == "virtual":
        run_virtual(config, lambda clock: open_twin(config, clock), policy, log)
        return
    plant = open_plant(config.task, config.seed, config.plant.faults, config.out)
    run_lockstep(config, plant, policy, log)


def _run_realtime(config: RunConfig, arguments: Arguments) -> int:
    from controller.display import run_bar
    from controller.launch import RunFailed, run_line, watch
    from controller.status import StatusBoard

    log = Path(config.out) / "log.mcap"
    if config.view:
        from controller.view_foxglove import address

        sys.stderr.write(f"onebeat run: open {address(config.view_port)} in Foxglove\n")
    try:
        with run_bar(config.seconds) as show:
            notes = watch(config, lambda elapsed_s, status: show(elapsed_s, run_line(status)))
    except RunFailed as error:
        if error.log is not None:
            report_log(error.log, arguments)
        raise
    for note in notes:
        sys.stderr.write(f"onebeat run: {note}\n")
    with StatusBoard(Path(config.out) / "status.bin") as board:
        dropped = board.read()["dropped"]
    return report_log(log, arguments, dropped)


def loop(config: RunConfig, arguments: Arguments) -> int:
    """Be the control loop of a run."""
    from controller.session import run_realtime

    replica = None
    if config.policy.local_replica:
        replica = _policy_of(config.policy, "numpy")
    run_realtime(config, replica)
    return 0


def show(config: ShowConfig, arguments: Arguments) -> int:
    """Describe a file or directory by what it is; draw it if it is a dataset."""
    from controller.log_parts import is_log
    from policies.data.open import is_dataset

    path = Path(config.path)
    if path.suffix == ".mcap":
        return report_log(path, arguments)
    if path.is_dir() and is_log(path / "log.mcap"):
        return report_log(path / "log.mcap", arguments)
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
