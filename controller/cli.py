"""The command line: the one place that brings controller, sim and policies together.

Packages are imported when a verb needs them, so that ``onebeat --help`` is quick and a robot
without torch or mujoco has every verb that needs neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.arguments import Arguments
from controller.command_line import Verb
from controller.command_line import run as run_command
from controller.errors import ConfigError, DataError, LogError

if TYPE_CHECKING:
    from rich.console import Console

    from controller.interfaces import Plant, Policy
    from controller.ranges import Device, Engine
    from controller.settings import (
        DemoConfig,
        DoctorConfig,
        EvalConfig,
        InspectConfig,
        LatencyConfig,
        ReplayConfig,
        RunConfig,
        ShowConfig,
    )
    from controller.spec import Spec
    from controller.transitions import Transitions
    from policies.settings import FinetuneConfig, TrainConfig
    from sim.settings import CollectConfig


def open_policy(bundle: str, engine: Engine, device: Device) -> Policy:
    """Load a policy into this process, from a bundle or the current one of a store."""
    from policies.engine import load_policy

    return load_policy(bundle, engine=engine, device=device)


def open_plant(task: str, seed: int) -> Plant:
    """Build a task's plant in this process, in lockstep."""
    from sim.registry import make_plant

    return make_plant(task, seed=seed)


def read_dataset(path: str, spec: Spec | None) -> Transitions:
    """Read transitions from a run log (.mcap) or an HDF5 file in D4RL's layout."""
    if path.endswith(".mcap"):
        from controller.log_reader import read_log

        return read_log(path).transitions().validate(path)
    from policies.data.d4rl import read_d4rl

    return read_d4rl(path, spec)


def reference(task: str) -> tuple[float, float] | None:
    """Return the returns that score 0 and 100, where they are known."""
    from sim.registry import reference as known

    return known(task)


def data_generate(config: CollectConfig, arguments: Arguments) -> int:
    """Drive a task with its scripted controller."""
    from controller.display import progress_bar
    from policies.data.d4rl import write_d4rl
    from sim.datasets import collect

    with progress_bar("collecting") as advance:
        data = collect(config, on_progress=advance)
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    write_d4rl(config.out, data, task_spec(config.task))
    return _describe(data, config.out, config.task, arguments)


def data_inspect(config: InspectConfig, arguments: Arguments) -> int:
    """Describe a dataset."""
    data = read_dataset(config.path, task_spec(config.task) if config.task else None)
    return _describe(data, config.path, config.task or data.task, arguments)


def _describe(data: Transitions, path: str, task: str, arguments: Arguments) -> int:
    from controller.dataset_report import describe_data
    from controller.display import say

    say(describe_data(data, path, reference(task)), arguments.json)
    return 0


def train(config: TrainConfig, arguments: Arguments) -> int:
    """Learn a policy from a dataset and publish it."""
    from controller.display import progress_bar, say
    from policies.train import train as learn

    spec = _spec_of_data(config)
    data = read_dataset(config.data, spec)
    with progress_bar("training") as advance:
        bundle = learn(config, data, spec, on_progress=advance)
    say({"bundle": str(bundle)}, arguments.json)
    return 0


def _spec_of_data(config: TrainConfig) -> Spec:
    """Return the spec in the dataset, or the task's when the file has none."""
    from policies.data.d4rl import read_spec

    if not config.data:
        raise ConfigError("data: expected a dataset, as in data=runs/demo/data.hdf5")
    spec = read_spec(config.data)
    if spec is None:
        return task_spec(config.task)
    if config.task not in ("", spec.task):
        raise DataError(f"{config.data}: is of {spec.task}, expected {config.task}")
    return spec


def task_spec(task: str) -> Spec:
    """Return the spec of a task of the simulation."""
    from sim.registry import task_spec as known

    return known(task)


def run(config: RunConfig, arguments: Arguments) -> int:
    """Run a policy on a plant, in real time or in lockstep, and report."""
    from controller.launch import fresh_log
    from controller.session import run_lockstep

    if config.mode == "realtime":
        return _run_realtime(config, arguments)
    plant = open_plant(config.task, config.seed)
    policy = open_policy(config.policy.bundle, config.policy.engine, config.policy.device)
    policy.spec.require(plant.spec, "the policy", "the plant")
    log = fresh_log(Path(config.out))
    run_lockstep(config, plant, policy, log)
    return _report(log, arguments)


def _run_realtime(config: RunConfig, arguments: Arguments) -> int:
    from controller.display import run_bar
    from controller.launch import RunFailed, run_line, watch

    log = Path(config.out) / "log.mcap"
    try:
        with run_bar(config.seconds) as show:
            notes = watch(config, lambda elapsed_s, status: show(elapsed_s, run_line(status)))
    except RunFailed as error:
        if error.log is not None:
            _report(error.log, arguments)
        raise
    for note in notes:
        sys.stderr.write(f"onebeat run: {note}\n")
    return _report(log, arguments)


def _report(path: Path, arguments: Arguments) -> int:
    from controller.log_reader import read_log
    from controller.report import print_table
    from controller.stats import summarise

    log = read_log(path)
    report = summarise(log, reference(log.header.task))
    return _put(report, print_table, arguments)


def _put(report: object, print_report: Callable[[Any, Console], None], arguments: Arguments) -> int:
    from controller.display import console, put_json

    if arguments.json:
        put_json(report)
    else:
        print_report(report, console())
    return 0


def loop(config: RunConfig, arguments: Arguments) -> int:
    """Be the control loop of a run."""
    from controller.session import run_realtime

    replica = None
    if config.policy.local_replica:
        replica = open_policy(config.policy.bundle, "numpy", "cpu")
    run_realtime(config, replica)
    return 0


def evaluate(config: EvalConfig, arguments: Arguments) -> int:
    """Score a policy over seeded episodes in lockstep."""
    from controller.evaluate import score
    from controller.report import print_table

    policy = open_policy(config.bundle, config.engine, config.device)
    task = config.task or policy.spec.task
    plant = open_plant(task, config.seed)
    policy.spec.require(plant.spec, "the policy", "the task")
    report = score(config, task, plant, policy, reference(task))
    return _put(report, print_table, arguments)


def replay_log(config: ReplayConfig, arguments: Arguments) -> int:
    """Recompute a log; status 1 where an action differs."""
    from controller.bundle_search import bundles_of
    from controller.display import say
    from controller.log_reader import read_log
    from controller.replay import refilter_of, replay

    log = read_log(config.log)
    engine: Engine = "torch" if log.header.engine == "torch" else "numpy"
    places = bundles_of(log, config.bundles)

    def policy_for(version: str) -> Policy | None:
        policy = open_policy(str(places[version]), engine, "cpu") if version in places else None
        return policy if policy and policy.version == version else None

    result = replay(log, policy_for, refilter_of(log), tolerance=config.tolerance)
    say(result.facts(log), arguments.json)
    if result.first_mismatch is not None:
        raise LogError(f"{config.log}: {result.first_mismatch}")
    if result.skipped:
        why = "; ".join(f"{count} ticks: {reason}" for reason, count in result.skipped.items())
        raise LogError(f"{config.log}: not recomputed: {why}; name a store with bundles=")
    return 0


def finetune(config: FinetuneConfig, arguments: Arguments) -> int:
    """Improve a policy from logs and publish it."""
    from controller.display import progress_bar, say
    from controller.transitions import concatenate
    from policies.bundle import load_bundle
    from policies.finetune import finetune as improve

    if not config.logs:
        raise ConfigError("logs: expected at least one run log, as in logs=[runs/demo/log.mcap]")
    spec = load_bundle(config.parent).spec
    logs = concatenate([_rows_of(path, spec) for path in config.logs])
    offline = read_dataset(config.offline, spec) if config.offline else None
    with progress_bar("fine-tuning") as advance:
        result = improve(config, logs, offline, on_progress=advance)
    say(result, arguments.json)
    return 0


def _rows_of(path: str, spec: Spec) -> Transitions:
    from controller.log_reader import read_log

    log = read_log(path)
    spec.require(log.header.spec, "the policy", path)
    return log.transitions().validate(path)


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
    return _put(report, print_report, arguments)


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
    return _put(report, print_report, arguments)


def show(config: ShowConfig, arguments: Arguments) -> int:
    """Describe a file or directory by what it is."""
    path = Path(config.path)
    if path.suffix == ".mcap":
        return _report(path, arguments)
    if not path.is_dir():
        data = read_dataset(config.path, None)
        return _describe(data, config.path, data.task, arguments)
    from controller.display import say
    from policies.bundle import describe_bundle

    say(describe_bundle(path), arguments.json)
    return 0


def demo(config: DemoConfig, arguments: Arguments) -> int:
    """Do the whole circle and report."""
    from controller.demo import circle, pictures, print_end, write_report
    from controller.display import console
    from controller.stats import summarise
    from sim.pointmaze import walls
    from sim.render import render_gif

    out = Path(config.out)
    maze = walls(config.task)
    log, finetune = circle(config, console())
    drawn = pictures(log, maze, partial(render_gif, config.task), out)
    report = summarise(log, reference(config.task))
    write_report(out, report, log, finetune, drawn)
    print_end(console(), out, report, finetune, drawn)
    return 0


_SETTINGS = "controller.settings"
VERBS: dict[str, Verb] = {
    "demo": Verb(
        "data, training, serving, running, fine-tuning and report, on built-in data",
        f"{_SETTINGS}:DemoConfig",
        demo,
        "out",
    ),
    "data generate": Verb(
        "drive a task with its scripted controller, into a D4RL file",
        "sim.settings:CollectConfig",
        data_generate,
        "task",
    ),
    "data inspect": Verb(
        "episodes, returns, score and faults of a dataset or a log",
        f"{_SETTINGS}:InspectConfig",
        data_inspect,
        "path",
    ),
    "train": Verb("learn a policy from a dataset", "policies.settings:TrainConfig", train, "data"),
    "serve": Verb(
        "answer a loop's requests",
        "policies.settings:ServeConfig",
        "policies.verbs:serve",
        "bundle",
    ),
    "sim list": Verb("every task, with sizes, rate and reference scores", "", "sim.verbs:sim_list"),
    "sim serve": Verb(
        "run a task's plant in real time", "sim.settings:SimConfig", "sim.verbs:sim_serve", "task"
    ),
    "run": Verb("run a policy on a plant at a fixed rate", f"{_SETTINGS}:RunConfig", run, "task"),
    "loop": Verb("the loop of a run", f"{_SETTINGS}:RunConfig", loop, hidden=True),
    "finetune": Verb(
        "improve a policy from the logs of its runs",
        "policies.settings:FinetuneConfig",
        finetune,
        "parent",
    ),
    "eval": Verb(
        "score a policy over seeded episodes in lockstep",
        f"{_SETTINGS}:EvalConfig",
        evaluate,
        "bundle",
    ),
    "replay": Verb(
        "recompute every action of a log", f"{_SETTINGS}:ReplayConfig", replay_log, "log"
    ),
    "latency": Verb(
        "time requests to the policy server beside a bare echo",
        f"{_SETTINGS}:LatencyConfig",
        latency,
        "bundle",
    ),
    "doctor": Verb("which rate this machine can hold", f"{_SETTINGS}:DoctorConfig", doctor),
    "show": Verb("describe a log, a bundle or a dataset", f"{_SETTINGS}:ShowConfig", show, "path"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; see ``command_line.run``."""
    return run_command(VERBS, sys.argv[1:] if words is None else words)


if __name__ == "__main__":
    sys.exit(main())
