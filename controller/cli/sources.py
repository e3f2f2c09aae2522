"""What the verbs work on: policies, plants and data, by name or path."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from controller.acting import AS_BUNDLED, ActSettings
from controller.errors import ConfigError

if TYPE_CHECKING:
    from controller.dataset_warnings import Expected
    from controller.fault_settings import FaultsConfig
    from controller.interfaces import Clock, Plant, Policy
    from controller.ranges import Device, Engine
    from controller.settings import RunConfig
    from controller.spec import Spec
    from controller.transitions import Transitions
    from policies.data.dataset import Dataset
    from policies.data.download import Fetched
    from policies.data.names import Published

log = logging.getLogger(__name__)


def open_policy(
    bundle: str, engine: Engine, device: Device, act: ActSettings = AS_BUNDLED
) -> Policy:
    """Load a policy into this process, from a bundle or the current one of a store."""
    from policies.engine import load_policy

    return load_policy(bundle, engine=engine, device=device, act=act)


def open_plant(task: str, seed: int, faults: FaultsConfig, dumps: str | Path) -> Plant:
    """Build a task's plant in this process, in lockstep.

    Args:
        task: name of the task.
        seed: of its first episode.
        faults: what to put between it and the loop.
        dumps: directory for the states before the simulation became unstable.
    """
    from sim.faults import faulty
    from sim.registry import make_plant

    return faulty(make_plant(task, seed=seed, dumps=dumps), faults)


def open_twin(config: RunConfig, clock: Clock) -> Plant:
    """Build a run's plant in this process, in real time as a virtual clock tells it."""
    from sim.registry import make_plant
    from sim.twin import TwinPlant

    plant = make_plant(config.task, seed=config.seed, dumps=config.out)
    return TwinPlant(plant, clock, faults=config.plant.faults)


def read_dataset(source: str, spec: Spec | None) -> Transitions:
    """Read the transitions of a dataset; doubts about it go to standard error."""
    dataset = open_source(source, spec)
    for note in dataset.notes:
        log.warning("%s: %s", source, note)
    return dataset.transitions


def open_source(
    source: str, spec: Spec | None = None, task: str = "", *, finite: bool = True
) -> Dataset:
    """Open a dataset by path, directory or name; a download shows its progress.

    Args:
        source: see ``policies.data.open.open_dataset``.
        spec: the robot the data must belong to.
        task: name of the task; empty for what the data says.
        finite: whether values that are not finite are refused.
    """
    from policies.data.open import open_dataset

    return open_dataset(source, spec, task, finite=finite, get=_get_shown)


def source_spec(source: str) -> Spec | None:
    """Return the spec a dataset was written with, None for one from elsewhere."""
    from policies.data.open import spec_of

    return spec_of(source, get=_get_shown)


def _get_shown(dataset: Published) -> Path:
    return fetch_shown(dataset).path


def fetch_shown(
    dataset: Published, url: str | None = None, directory: Path | None = None
) -> Fetched:
    """Get a published dataset, with a progress bar if it has to be downloaded."""
    from controller.display import progress_bar
    from policies.data.download import fetch, kept_at

    if kept_at(dataset, directory).is_file():
        return fetch(dataset, base=url, directory=directory)
    with progress_bar(f"downloading {dataset.name}") as advance:
        return fetch(
            dataset,
            base=url,
            directory=directory,
            on_progress=lambda done, total: advance(done, total, {"MB": done / 1e6}),
        )


def expectations(task: str, dataset: Dataset | None, actions: int) -> Expected:
    """Return what is known of a task and a dataset, to hold the data against.

    Args:
        task: name of the task.
        dataset: what the data came with; None for data that was just made.
        actions: size of an action; limits of another size are of another task.
    """
    from controller.dataset_warnings import Expected
    from policies.data.names import recognise

    spec = dataset.spec if dataset and dataset.spec else _known_spec(task)
    published = dataset.published if dataset else None
    alike = published or recognise(task)
    low = high = None
    if spec is not None and spec.action.size == actions:
        low, high = (limit.reshape(-1) for limit in spec.action.bounds())
    return Expected(
        low,
        high,
        rewards=alike.rewards if alike else None,
        episode_steps=published.episode_steps if published else 0,
    )


def _known_spec(task: str) -> Spec | None:
    try:
        return task_spec(task)
    except ConfigError:
        return None


def has_success(task: str) -> bool:
    """Whether a task knows success; a robot that is no task here is taken to."""
    from sim.registry import tasks

    known = tasks().get(task)
    return known is None or known.has_success


def reference(task: str) -> tuple[float, float] | None:
    """Return the returns that score 0 and 100, where they are known."""
    from sim.registry import reference as known

    return known(task)


def task_spec(task: str) -> Spec:
    """Return the spec of a task of the simulation."""
    from sim.registry import task_spec as known

    return known(task)
