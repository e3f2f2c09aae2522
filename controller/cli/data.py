"""The verbs of ``onebeat data``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.cli.reports import describe_dataset, describe_opened
from controller.cli.sources import fetch_shown, open_policy, open_source, reference, task_spec
from controller.errors import ConfigError, DataError
from controller.transitions import layout_of

if TYPE_CHECKING:
    from controller.settings import ExportConfig, FetchConfig, InspectConfig
    from controller.spec import Spec
    from policies.data.dataset import Dataset
    from sim.settings import GenerateConfig


def generate(config: GenerateConfig, arguments: Arguments) -> int:
    """Make a dataset anew."""
    from controller.display import progress_bar
    from policies.data.d4rl import write_d4rl
    from policies.data.dataset import Dataset
    from sim.generate.dataset import prepare

    policy = open_policy(config.bundle, "numpy", "cpu") if config.bundle else None
    try:
        record = prepare(config, policy)
        with progress_bar("recording") as advance:
            made = record(advance)
    finally:
        if policy is not None:
            policy.close()
    out = config.out or f"runs/data/{made.name}.hdf5"
    spec = task_spec(made.task)
    write_d4rl(out, made.data, spec, attributes=made.attributes)
    facts = Dataset(made.data, out, spec, attributes=made.attributes)
    return describe_dataset(made.data, out, made.task, arguments, dataset=facts)


def inspect(config: InspectConfig, arguments: Arguments) -> int:
    """Describe a dataset, whatever is wrong with its numbers."""
    spec = task_spec(config.task) if config.task else None
    dataset = open_source(config.path, spec, finite=False)
    picture = Path(config.out) if config.out else None
    return describe_opened(dataset, config.task or "", arguments, picture)


def export(config: ExportConfig, arguments: Arguments) -> int:
    """Write a dataset in another layout."""
    from controller.display import say

    dataset = open_source(config.path, task_spec(config.task) if config.task else None)
    data = dataset.transitions
    spec = dataset.spec or _spec_for(dataset)
    data = replace(data, task=data.task or spec.task, layout=layout_of(spec))
    minari = config.format == "minari" or (
        config.format == "auto" and not config.out.endswith((".hdf5", ".h5"))
    )
    if minari:
        from policies.data.minari_export import write_minari

        known = reference(config.task or data.task) or dataset.reference
        write_minari(config.out, data, spec, dataset.attributes, known)
    else:
        from policies.data.d4rl import write_d4rl

        write_d4rl(config.out, data, spec, dataset.attributes)
    facts = {
        "out": config.out,
        "format": "minari" if minari else "d4rl",
        "task": data.task,
        "episodes": len(data.starts),
        "steps": len(data),
        "digest": data.digest(),
    }
    say(facts, arguments.json)
    return 0


def _spec_for(dataset: Dataset) -> Spec:
    """Return the spec of the task a dataset from elsewhere belongs to."""
    data = dataset.transitions
    if not data.task:
        raise ConfigError(
            f"task: {dataset.source} does not say which task it is of; name it, as in task=hopper"
        )
    spec = task_spec(data.task)
    wide = data.observations.shape[1], data.actions[:1].size
    expected = sum(array.size for array in spec.observation), spec.action.size
    if wide != expected:
        raise DataError(
            f"{dataset.source}: observations are {wide[0]} wide and actions {wide[1]}, "
            f"{spec.task} has {expected[0]} and {expected[1]}: this is the data of another task"
        )
    return spec


def fetch(config: FetchConfig, arguments: Arguments) -> int:
    """Download a published dataset, or check the one that is there."""
    from controller.display import say
    from policies.data.names import dataset_named

    folder = Path(config.directory) if config.directory else None
    found = fetch_shown(dataset_named(config.name), config.url, folder)
    facts = {
        "name": config.name,
        "path": str(found.path),
        "bytes": found.size,
        "sha256": found.sha256,
        "checked": found.checked,
        "downloaded": found.downloaded,
    }
    say(facts, arguments.json)
    return 0
