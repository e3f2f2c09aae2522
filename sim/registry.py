"""Every task there is, by name. Looking at them builds nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.interfaces import Clock
from controller.spec import Spec
from sim import dmc, mjcf, pointmaze, robotics
from sim.d4rl import adroit, antmaze, kitchen, locomotion, maze2d, scores
from sim.env import Env
from sim.gym_plant import GymPlant
from sim.task import Task

FAMILIES: tuple[Callable[[], Iterable[Task]], ...] = (
    locomotion.tasks,
    antmaze.tasks,
    adroit.tasks,
    kitchen.tasks,
    maze2d.tasks,
    pointmaze.tasks,
    robotics.tasks,
    dmc.tasks,
)
"""Where the tasks come from, in the order they are listed."""


@functools.cache
def tasks() -> Mapping[str, Task]:
    """Return every task by name, family by family."""
    return MappingProxyType({task.name: task for family in FAMILIES for task in family()})


@functools.cache
def _task_of_dataset() -> Mapping[str, str]:
    return {dataset: task.name for task in tasks().values() for dataset in task.datasets}


def task_named(name: str) -> Task:
    """Return one task, by its own name, by that of a D4RL dataset of it, or by a robot's YAML.

    Raises:
        ConfigError: there is no such task; names the nearest. Or the YAML is not right.
    """
    if mjcf.is_robot_file(name):
        return mjcf.task_of_file(name)
    known = tasks()
    if name in known:
        return known[name]
    by_dataset = _task_of_dataset()
    if name in by_dataset:
        return known[by_dataset[name]]
    raise ConfigError(f"task {name} is unknown; {nearest(name, [*known, *by_dataset])}")


def task_spec(name: str) -> Spec:
    """Return the spec of a task, without building its plant.

    Raises:
        ConfigError: there is no such task.
    """
    return task_named(name).spec()


def reference(name: str) -> tuple[float, float] | None:
    """Return the returns of score 0 and 100 of a task or D4RL dataset, None without them."""
    task = tasks().get(name)
    return task.reference if task else scores.reference(name)


def make_env(name: str, **options: Any) -> Env:  # noqa: ANN401
    """Build the environment of a task.

    Raises:
        ConfigError: there is no such task, or it has no such option.
    """
    return _builder(task_named(name), options)()


def make_plant(
    name: str,
    *,
    seed: int = 0,
    episode_steps: int | None = None,
    clock: Clock | None = None,
    dumps: Path | str = "runs/unstable",
    **options: Any,  # noqa: ANN401
) -> GymPlant:
    """Build the plant of a task, in lockstep.

    Args:
        name: name of the task.
        seed: of the first episode, unless ``reset`` is given one.
        episode_steps: steps of an episode; None for the task's own.
        clock: stamps the observations; None for virtual time.
        dumps: directory for the states before the simulation became unstable.
        options: of the task's environment, as ``goal_cell`` or ``noise``.

    Raises:
        ConfigError: there is no such task, or it has no such option.
    """
    task = task_named(name)
    return GymPlant(
        _builder(task, options),
        task.spec(),
        episode_steps=episode_steps or task.episode_steps,
        seed=seed,
        clock=clock,
        physics_steps=task.physics_steps,
        dumps=dumps,
    )


def _builder(task: Task, options: dict[str, Any]) -> Callable[[], Env]:
    for key in options:
        if key not in task.options:
            raise ConfigError(f"task {task.name} has no option {key}; {nearest(key, task.options)}")
    return functools.partial(task.make_env, **options)


def describe() -> list[dict[str, Any]]:
    """Return one row of plain facts for every task."""
    return [_row(task) for task in tasks().values()]


def _row(task: Task) -> dict[str, Any]:
    spec = task.spec()
    low, high = task.reference or (None, None)
    return {
        "task": task.name,
        "family": task.family,
        "obs": sum(array.size for array in spec.observation),
        "act": spec.action.size,
        "rate_hz": spec.rate_hz,
        "max_steps": task.episode_steps,
        "ref_min": low,
        "ref_max": high,
        "datasets": list(task.datasets),
        "arrays": {array.name: array.size for array in spec.observation},
        "physics_steps": task.physics_steps,
        "success": task.has_success,
        "description": task.description,
    }
