"""Every task there is, by name. Looking at them builds nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.interfaces import Plant
from controller.spec import Spec
from sim import scores
from sim.kitchen import EPISODE_STEPS, KITCHEN_TASKS, kitchen_spec, make_kitchen
from sim.pointmaze import MAZE_TASKS, MazeTask, make_maze, maze_spec


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: its name.
        family: tasks of one family share robot and spec but for the name.
        description: one line.
        rate_hz: control rate.
        episode_steps: steps after which an episode is cut.
        datasets: names of the D4RL datasets that belong to it.
        scripted: whether ``onebeat data generate`` can drive it.
        make: builds its plant from (name, seed and options by keyword).
        make_spec: returns its spec from its name, without building it.
    """

    name: str
    family: str
    description: str
    rate_hz: float
    episode_steps: int
    datasets: tuple[str, ...]
    scripted: bool
    make: Callable[..., Plant]
    make_spec: Callable[[str], Spec]

    @property
    def reference(self) -> tuple[float, float] | None:
        """Returns of score 0 and score 100."""
        return scores.reference(self.name)

    def spec(self) -> Spec:
        """Return what its plant looks like."""
        return self.make_spec(self.name)


def tasks() -> dict[str, Task]:
    """Return every task by name, family by family."""
    mazes = [_maze(task) for task in MAZE_TASKS.values()]
    kitchens = [
        Task(
            name=task.name,
            family="kitchen",
            description=f"Franka arm, four tasks in any order: {', '.join(task.elements)}",
            rate_hz=kitchen_spec(task.name).rate_hz,
            episode_steps=EPISODE_STEPS,
            datasets=(task.reference,),
            scripted=False,
            make=make_kitchen,
            make_spec=kitchen_spec,
        )
        for task in KITCHEN_TASKS.values()
    ]
    return {task.name: task for task in (*mazes, *kitchens)}


def task_named(name: str) -> Task:
    """Return one task.

    Raises:
        ConfigError: there is no such task; names the nearest.
    """
    known = tasks()
    if name not in known:
        raise ConfigError(f"task {name} is unknown; {nearest(name, known)}")
    return known[name]


def task_spec(name: str) -> Spec:
    """Return the spec of a task, without building its plant.

    Raises:
        ConfigError: there is no such task.
    """
    return task_named(name).spec()


def make_plant(name: str, *, seed: int = 0, **options: Any) -> Plant:  # noqa: ANN401
    """Build the plant of a task, in lockstep.

    Args:
        name: name of the task.
        seed: of the first episode, unless ``reset`` is given one.
        options: of the family, as ``episode_steps``, ``clock``, ``goal_cell`` or ``noise``.

    Raises:
        ConfigError: there is no such task, or it has no such option.
    """
    task = task_named(name)
    valid = [key for key in inspect.signature(task.make).parameters if key not in ("task", "seed")]
    for key in options:
        if key not in valid:
            raise ConfigError(f"task {name} has no option {key}; {nearest(key, valid)}")
    return task.make(name, seed=seed, **options)


def describe() -> list[dict[str, Any]]:
    """Return one row of plain facts for every task."""
    return [_row(task) for task in tasks().values()]


def _row(task: Task) -> dict[str, Any]:
    spec = task.spec()
    return {
        "name": task.name,
        "family": task.family,
        "observation": {array.name: array.size for array in spec.observation},
        "action": spec.action.size,
        "rate_hz": task.rate_hz,
        "episode_steps": task.episode_steps,
        "reference": list(task.reference) if task.reference else None,
        "datasets": list(task.datasets),
        "scripted": task.scripted,
        "description": task.description,
    }


def _maze(task: MazeTask) -> Task:
    spec = maze_spec(task.name)
    goal = f"goal in cell {list(task.layout.d4rl_goal)}" if task.d4rl else "random goal"
    return Task(
        name=task.name,
        family="maze2d" if task.d4rl else "pointmaze",
        description=f"ball in the {task.maze} maze, random start, {goal}",
        rate_hz=spec.rate_hz,
        episode_steps=task.layout.episode_steps,
        datasets=(task.reference,) if task.d4rl else (),
        scripted=True,
        make=make_maze,
        make_spec=maze_spec,
    )
