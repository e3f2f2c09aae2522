"""From a recipe, or a task and what drives it, to transitions and the facts about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from controller.errors import ConfigError
from controller.interfaces import Policy
from controller.spelling import nearest
from controller.transitions import Transitions, concatenate, layout_of
from sim import registry
from sim.generate.pool import Progress, Recording, record, record_here
from sim.generate.recipes import SCRIPT_NOISE, Driver, Part, Published, Recipe, recipes
from sim.generate.rollout import COLUMNS, Job
from sim.mjcf import is_robot_file
from sim.settings import CollectConfig, GenerateConfig
from sim.task import Task

Attributes = Mapping[str, str | int | float]

DEFAULT_STEPS = 200_000
SMALL = 3000
"""Steps below which starting processes takes longer than it saves."""
OLD_PHYSICS = {
    "locomotion": "mujoco210 inertials",
    "antmaze": "mujoco210 inertials",
    "adroit": "mujoco210 contacts",
    "maze2d": "mujoco210 contacts",
}
"""What families have of MuJoCo 2.1.0, where D4RL's data was recorded."""
MAZES = ("pointmaze", "maze2d")
"""Families with a waypoint controller; see ``sim.datasets``."""


@dataclass(frozen=True)
class Made:
    """A dataset.

    Attributes:
        name: its name.
        task: name of the task.
        data: the transitions, with float32 columns.
        attributes: facts about them.
    """

    name: str
    task: str
    data: Transitions
    attributes: Attributes


@dataclass(frozen=True)
class Plan:
    """What is to be recorded.

    Attributes:
        recipe: how.
        jobs: one for each part.
        steps: control steps of each job.
        policy: what drives instead of what the jobs name, in this process.
        seed: seed of everything.
        digests: sha256 of each policy file, by its name.
    """

    recipe: Recipe
    jobs: tuple[Job, ...]
    steps: tuple[int, ...]
    seed: int
    policy: Policy | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task."""
        return registry.task_named(self.recipe.task)


def generate(
    config: GenerateConfig, policy: Policy | None = None, on_progress: Progress | None = None
) -> Made:
    """Make a dataset; see ``prepare``."""
    return prepare(config, policy)(on_progress)


def prepare(
    config: GenerateConfig, policy: Policy | None = None
) -> Callable[[Progress | None], Made]:
    """Check that a dataset can be made, and return what makes it.

    Args:
        config: what to make.
        policy: what ``config.bundle`` names, opened.

    Returns:
        Takes whom to tell how far it is; raises as ``make`` does.

    Raises:
        ConfigError, DataError: see ``plan``.
    """
    if _is_maze(config, policy):
        return partial(_maze, config)
    planned = plan(config, policy)

    def run(on_progress: Progress | None = None) -> Made:
        data, attributes = make(planned, config.processes, on_progress)
        return Made(planned.recipe.name, planned.task.name, data, attributes)

    return run


def plan(config: GenerateConfig, policy: Policy | None = None) -> Plan:
    """Say what a command asks for, and that all it needs is there.

    Args:
        config: the command's settings.
        policy: what ``config.bundle`` names, opened.

    Raises:
        ConfigError: no such recipe or task, nothing drives the task, or a policy file is missing;
            says which and where one comes from.
        DataError: a policy file is no policy.
    """
    recipe = recipes().get(config.task)
    recipe = recipe or _recipe_of_task(config, policy)
    if recipe.name == config.task and (config.policy or config.bundle or config.behaviour):
        raise ConfigError(
            f"{config.task} is a recipe: it takes policies=DIRECTORY; policy, bundle and "
            f"behaviour go with a task, here {recipe.task}"
        )
    task = registry.task_named(recipe.task)
    if policy is not None:
        task.spec().require(policy.spec, f"task {task.name}", str(config.bundle))
    noise = recipe.noise if config.noise is None else config.noise
    jobs, steps = [], []
    for part, length in zip(recipe.parts, recipe.lengths(config.steps), strict=True):
        if length:
            steps.append(length)
            jobs.append(
                Job(
                    task.name,
                    part.driver,
                    config.seed,
                    part.stream,
                    str(_policy_file(config, recipe, part)) if part.policy else "",
                    noise,
                    dict(recipe.options),
                    recipe.episode_steps or task.episode_steps,
                )
            )
    digests = _checked_policies(jobs) if policy is None else {}
    return Plan(recipe, tuple(jobs), tuple(steps), config.seed, policy, digests)


def make(
    planned: Plan, processes: int | None = None, on_progress: Progress | None = None
) -> tuple[Transitions, Attributes]:
    """Record a plan.

    Args:
        planned: what to record.
        processes: how many processes run episodes; None for one on each core. The result does
            not depend on it. A policy that was given opened runs in this process.
        on_progress: told now and then how far it is.

    Returns:
        Transitions with float32 columns; facts about them.

    Raises:
        ChildDied: a process ended; with what it said last.
        SimError: the simulation became unstable.
    """
    jobs, steps = planned.jobs, planned.steps
    processes = processes or len(os.sched_getaffinity(0))
    if planned.policy is not None:
        from sim.generate.actors import RequestActor

        actor = RequestActor(planned.policy, jobs[0].noise)
        recordings = record_here(jobs, steps, on_progress, actor)
    elif processes == 1 or sum(steps) < SMALL:
        recordings = record_here(jobs, steps, on_progress)
    else:
        recordings = record(jobs, steps, processes, on_progress)
    parts = [_transitions(planned.task, one) for one in recordings]
    data = parts[0] if len(parts) == 1 else concatenate(parts)
    facts: dict[str, str | int | float] = {}
    if jobs[0].driver == "navigation":
        from sim.generate.antmaze import relabelled

        data, facts = relabelled(data, planned.task, planned.seed, jobs[0].stream)
    trajectories = sum(len(one.lengths) for one in recordings)
    successes = [success for one in recordings for success in one.successes]
    return data, {**_attributes(planned, data, trajectories, successes), **facts}


def _is_maze(config: GenerateConfig, policy: Policy | None) -> bool:
    task = registry.tasks().get(config.task)
    scripted = config.behaviour in (None, "scripted")
    return bool(
        task and task.family in MAZES and scripted and policy is None and config.policy is None
    )


def _maze(config: GenerateConfig, on_progress: Progress | None) -> Made:
    from sim.datasets import collect

    noise = SCRIPT_NOISE if config.noise is None else config.noise
    steps = config.steps or DEFAULT_STEPS
    data = collect(
        CollectConfig(config.task, steps, config.seed, noise, config.stay_s), on_progress
    )
    recipe = Recipe(f"{config.task}-scripted", config.task, (Part("scripted", steps),))
    job = Job(config.task, "scripted", config.seed, noise=noise)
    planned = Plan(recipe, (job,), (steps,), config.seed)
    facts = _attributes(planned, data, len(data.episodes()), ())
    return Made(recipe.name, config.task, data, {**facts, "stay_s": config.stay_s})


def _recipe_of_task(config: GenerateConfig, policy: Policy | None) -> Recipe:
    """Return the recipe that a task and what drives it amount to."""
    known = registry.tasks()
    own = is_robot_file(config.task)
    if config.task not in known and not own:
        close = nearest(config.task, [*recipes(), *known])
        hint = f"did you mean {close}? " if close else ""
        raise ConfigError(
            f"{config.task} is no recipe and no task; {hint}recipes: {', '.join(recipes())}; "
            "`onebeat sim list` shows the tasks"
        )
    given = [n for n in ("policy", "bundle", "behaviour") if getattr(config, n) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: only one of them can drive {config.task}")
    driver: Driver
    if config.policy is not None or policy is not None:
        driver, what = "policy", Path(config.policy or config.bundle or "policy").stem
    elif config.behaviour == "random":
        driver = what = "random"
    elif config.behaviour == "scripted":
        driver = what = "scripted"
    else:
        fitting = [name for name, recipe in recipes().items() if recipe.task == config.task]
        also = f", or a recipe: {', '.join(fitting)}" if fitting else ""
        raise ConfigError(
            f"{config.task}: nothing drives it; expected policy=FILE.npz, bundle=DIRECTORY, "
            f"behaviour=random or, where there is a script, behaviour=scripted{also}"
        )
    part = Part(driver, DEFAULT_STEPS, config.policy or "")
    noise = SCRIPT_NOISE if driver == "scripted" else 0.0
    name = Path(config.task).stem if own else config.task
    return Recipe(f"{name}-{what}", config.task, (part,), noise=noise)


def _policy_file(config: GenerateConfig, recipe: Recipe, part: Part) -> Path:
    if config.policy is not None:
        return Path(config.policy)
    if config.policies is None:
        raise ConfigError(
            f"{recipe.name}: expected policies=DIRECTORY with {', '.join(recipe.policies)}"
            f"{_where_from(recipe)}"
        )
    path = Path(config.policies) / part.policy
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; {recipe.name} takes it{_where_from(recipe)}")
    return path


def _where_from(recipe: Recipe) -> str:
    if not any("sac_snapshot" in policy for policy in recipe.policies):
        return ""
    return f"; `onebeat sac task={recipe.task} out=DIRECTORY/{recipe.task}` makes your own"


def _checked_policies(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the digest of each policy file, after having seen that it is one for the task."""
    from sim.generate.actors import make_actor
    from sim.generate.behaviour import load_behaviour

    digests = {}
    for job in jobs:
        make_actor(job, registry.task_spec(job.task))
        if job.policy:
            digests[_short(job.policy)] = load_behaviour(job.policy).digest
    return digests


def _transitions(task: Task, recording: Recording) -> Transitions:
    columns = recording.columns
    info = {
        name.removeprefix("infos/"): column
        for name, column in columns.items()
        if name not in COLUMNS
    }
    values = {name: columns[name] for name in COLUMNS}
    return Transitions(**values, layout=layout_of(task.spec()), task=task.name, info=info)  # type: ignore[arg-type]


def _attributes(
    planned: Plan, data: Transitions, trajectories: int, successes: Sequence[bool]
) -> dict[str, str | int | float]:
    recipe, returns = planned.recipe, data.returns()
    of_episodes = [rows.stop - rows.start for rows in data.episodes()]
    facts: dict[str, str | int | float] = {
        "name": recipe.name,
        "recipe": describe(planned),
        "seed": planned.seed,
        "steps": len(data),
        "trajectories": trajectories,
        "physics": physics(planned.task),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "length_mean": float(np.mean(of_episodes)),
    }
    if planned.task.has_success and successes:
        facts["success_rate"] = float(np.mean(successes))
    if planned.digests:
        facts["policy_digests"] = " ".join(f"{n}:{d}" for n, d in planned.digests.items())
    if planned.policy is not None:
        facts["policy_version"] = planned.policy.version
    return facts | _published(recipe.published)


def _published(published: Published) -> dict[str, float]:
    values = {
        "d4rl_return_mean": published.return_mean,
        "d4rl_score_mean": published.score_mean,
        "d4rl_length_mean": published.length_mean,
    }
    return {name: value for name, value in values.items() if value is not None}


def describe(planned: Plan) -> str:
    """Return one line: what drives for how long, with which noise."""
    parts = [
        f"{_short(job.policy) or job.driver} {steps} steps"
        for job, steps in zip(planned.jobs, planned.steps, strict=True)
    ]
    if planned.policy is not None:
        parts = [f"{planned.policy.version} {planned.steps[0]} steps"]
    noise = planned.jobs[0].noise
    added = f"; noise {noise:g}" if noise else ""
    note = f"; {planned.recipe.note}" if planned.recipe.note else ""
    return f"{', '.join(parts)}{added}{note}"


def _short(policy: str) -> str:
    """Return the last directory and the name of a policy file."""
    return "/".join(Path(policy).parts[-2:])


def physics(task: Task) -> str:
    """Return what computed the motion."""
    engine = f"mujoco {version('mujoco')}"
    old = OLD_PHYSICS.get(task.family)
    return f"{old} on {engine}" if old else engine
