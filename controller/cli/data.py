"""The verbs of ``onebeat data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.cli.reports import describe_dataset
from controller.cli.sources import read_dataset, task_spec

if TYPE_CHECKING:
    from controller.settings import InspectConfig
    from sim.settings import CollectConfig


def generate(config: CollectConfig, arguments: Arguments) -> int:
    """Drive a task with its scripted controller."""
    from controller.display import progress_bar
    from policies.data.d4rl import write_d4rl
    from sim.datasets import collect

    with progress_bar("collecting") as advance:
        data = collect(config, on_progress=advance)
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    write_d4rl(config.out, data, task_spec(config.task))
    return describe_dataset(data, config.out, config.task, arguments)


def inspect(config: InspectConfig, arguments: Arguments) -> int:
    """Describe a dataset."""
    data = read_dataset(config.path, task_spec(config.task) if config.task else None)
    return describe_dataset(data, config.path, config.task or data.task, arguments)
