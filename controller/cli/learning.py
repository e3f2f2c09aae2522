"""The verbs that learn policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.cli.sources import (
    read_dataset,
    reference,
    source_spec,
    task_spec,
)
from controller.command_line import INTERRUPTED
from controller.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from controller.spec import Spec
    from policies.settings import SacConfig, TrainConfig
    from policies.train import Scorer


def train(config: TrainConfig, arguments: Arguments) -> int:
    """Learn a policy from a dataset and publish it, or go on with a run."""
    from controller.display import progress_bar, say
    from controller.signals import StopFlag
    from policies.checkpoints import finished
    from policies.train import train as learn

    spec = _spec_of_data(config)
    data = read_dataset(config.data, spec)
    score = _scorer(config, spec) if config.evaluate_episodes else None
    with StopFlag() as stop, progress_bar("training") as advance:
        bundles = learn(config, data, spec, on_progress=advance, should_stop=stop, score=score)
    done = finished(bundles[0].parent, config.optimiser.steps)
    paths = [str(path) for path in bundles]
    named = {"bundles": paths} if config.seeds else {"bundle": paths[0]}
    say(named | {"finished": done}, arguments.json)
    return 0 if done else INTERRUPTED


def _scorer(config: TrainConfig, spec: Spec) -> Scorer:
    """Return what scores the bundles of a checkpoint.

    Raises:
        ConfigError: the task of the data is none of the simulation.
    """
    from policies.evaluation import returns_of
    from sim.vector import make_vector

    task, episodes = config.task or spec.task, config.evaluate_episodes
    known = reference(task)
    make_vector(task, 1).close()

    def score(bundles: Sequence[Path]) -> list[dict[str, float]]:
        with make_vector(task, min(episodes, 10), seed=config.seed, processes=1) as plants:
            return [returns_of(path, plants, episodes, config.seed, known) for path in bundles]

    return score


def _spec_of_data(config: TrainConfig) -> Spec:
    """Return the spec in the dataset, or the task's when the file has none.

    A published dataset without one is known by its name; no simulator is needed for either.

    Raises:
        ConfigError: neither says what the data is of.
        DataError: the dataset is of another task than the settings.
    """
    from policies.data.names import recognise

    if not config.data:
        raise ConfigError("data: expected a dataset, as in data=runs/demo/data.hdf5")
    spec = source_spec(config.data)
    if spec is None:
        published = recognise(config.data)
        task = config.task or (published.task if published else "")
        if not task:
            raise ConfigError(
                f"{config.data}: does not say what robot it is of: "
                "task: expected the name of a task, as in task=hopper"
            )
        return task_spec(task)
    if config.task not in ("", spec.task):
        raise DataError(f"{config.data}: is of {spec.task}, expected {config.task}")
    return spec


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
