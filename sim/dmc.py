"""dm_control: every task of the suite, and manipulation with feature observations.

Names are ``dmc-DOMAIN-TASK`` and ``dmc-manipulation-TASK``. Each of dm_control's observation
arrays keeps its name and shape, as float64. The time limit is
the plant's; a step that dm_control ends with discount 0 is terminal.

Models that dm_control draws at random when they are built (``lqr``, ``stacker``) are built
from seed 0: a plant of one name is always the same robot.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from controller.spec import Spec
from sim import catalogue
from sim.env import Env
from sim.task import Task

PREFIX = "dmc-"
MANIPULATION = "manipulation"


def tasks() -> Iterable[Task]:
    """Return the tasks, from the catalogue."""
    for entry in catalogue.entries("dm_control"):
        name = entry.spec.task
        domain, _, task = name.removeprefix(PREFIX).partition("-")
        yield Task(
            name=name,
            family="dm_control",
            description=entry.description,
            episode_steps=entry.episode_steps,
            make_spec=partial(_spec, entry),
            make_env=partial(_make, domain, task),
            physics_steps=entry.physics_steps,
            has_success=entry.has_success,
        )


def _spec(entry: catalogue.Entry) -> Spec:
    return entry.spec


def _make(domain: str, task: str) -> Env:
    from sim.dmc_env import ManipulationEnv, SuiteEnv

    return ManipulationEnv(task) if domain == MANIPULATION else SuiteEnv(domain, task)
