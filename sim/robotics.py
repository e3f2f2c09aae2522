"""gymnasium-robotics: every environment, the newest version of each, under its own id.

Goals are arrays of the observation: ``observation``, ``achieved_goal``, ``desired_goal``, which
the codec lays end to end; the layout kept with the data and the policy tells them apart again.
FrankaKitchen's goals within goals are named ``desired_goal/microwave`` and so on. Nothing is
changed but the reset, which forgets the last episode (``sim.foreign_env``); for D4RL's Adroit,
kitchen and mazes, which differ, see ``sim.d4rl``.

Left out: the environments of that package that need mujoco-py, and MaMuJoCo, which has several
agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from controller.spec import Spec
from sim import catalogue
from sim.env import Env
from sim.task import Task


def tasks() -> Iterable[Task]:
    """Return the tasks, from the catalogue."""
    for entry in catalogue.entries("gymnasium_robotics"):
        yield Task(
            name=entry.spec.task,
            family="gymnasium_robotics",
            description=entry.description,
            episode_steps=entry.episode_steps,
            make_spec=partial(_spec, entry),
            make_env=partial(_make, entry.spec.task),
            physics_steps=entry.physics_steps,
            has_success=entry.has_success,
        )


def _spec(entry: catalogue.Entry) -> Spec:
    return entry.spec


def _make(task: str) -> Env:
    from sim.robotics_env import make

    return make(task)
