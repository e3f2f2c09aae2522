"""The verbs that learn policies and score them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.cli.reports import put
from controller.cli.sources import (
    has_success,
    open_plant,
    open_policy,
    read_dataset,
    reference,
    source_spec,
    task_spec,
)
from controller.errors import ConfigError, DataError

if TYPE_CHECKING:
    from controller.settings import EvalConfig
    from controller.spec import Spec
    from controller.transitions import Transitions
    from policies.settings import FinetuneConfig, SacConfig, TrainConfig


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
    if not config.data:
        raise ConfigError("data: expected a dataset, as in data=runs/demo/data.hdf5")
    spec = source_spec(config.data)
    if spec is None:
        return task_spec(config.task)
    if config.task not in ("", spec.task):
        raise DataError(f"{config.data}: is of {spec.task}, expected {config.task}")
    return spec


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


def sac(config: SacConfig, arguments: Arguments) -> int:
    """Learn a policy in simulation with soft actor-critic, or go on with a run."""
    from controller.display import progress_bar, say
    from controller.signals import StopFlag
    from policies.online import learn
    from sim.vector import make_vector

    if not config.task:
        raise ConfigError("task: expected the name of a task, as in task=hopper")
    plants = make_vector(config.task, config.copies, seed=config.seed, processes=config.processes)
    with plants, StopFlag() as stop, progress_bar("learning") as advance:
        result = learn(
            config, plants, on_progress=advance, reference=reference(config.task), should_stop=stop
        )
    say(result, arguments.json)
    return 0


def evaluate(config: EvalConfig, arguments: Arguments) -> int:
    """Score a policy over seeded episodes in lockstep."""
    from controller.evaluate import score
    from controller.report import print_table

    policy = open_policy(config.bundle, config.engine, config.device)
    task = config.task or policy.spec.task
    plant = open_plant(task, config.seed, config.faults, "runs/unstable")
    policy.spec.require(plant.spec, "the policy", "the task")
    report = score(config, task, plant, policy, reference(task), has_success(task))
    return put(report, print_table, arguments)
