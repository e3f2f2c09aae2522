"""D4RL's Adroit: a Shadow hand with 24 joints turns a pen, opens a door, hammers, moves a ball.

========= ============ ============ ======== ================================================
task      observation  action       steps    success (D4RL's ``goal_achieved``) at a step
========= ============ ============ ======== ================================================
pen       45           24           100      within 7.5 cm, cosine to the target above 0.95
door      39           28           200      hinge at 1.35 rad or more
hammer    46           26           200      nail within 1 cm of its place in the board
relocate  39           30           200      ball within 10 cm of the target
========= ============ ============ ======== ================================================

Control is at 100 Hz, five physics steps of 2 ms. Actions in [-1, 1] are position targets of the
joints over their whole range; what lies beyond is clipped. Only pen ends early, when the pen is
below 7.5 cm. Rewards and starts are in ``sim.d4rl.adroit_env``.

gymnasium-robotics' ``AdroitHand*-v1``, whose models these are, are not the same tasks: door,
hammer and relocate reward the distance of the hand where D4RL punishes it (0.1 |d| instead of
-0.1 |d|), and pen runs 200 steps and never ends.

Physics: bodies are as in 2021, because the models state their inertias or are made of cylinders
and boxes, whose masses did not change. Contacts are given the margins and the algorithms of
MuJoCo 2.1.0 (``sim.d4rl.adroit_env``): hand, pen, hammer and ball then follow that library to
2e-6 over a second, and 120 episodes of pen's expert return the same in both within 1e-3. What
cannot be had is its way of finding contacts of a box with a capsule or another box: where the
hand touches table or door, trajectories part, and returns differ by less than their spread.
Option ``physics=stock`` leaves contacts as the installed MuJoCo has them.

Source: D4RL ``d4rl/hand_manipulation_suite``; Rajeswaran et al., arXiv:1709.10087.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from controller.spec import ArraySpec, Spec
from sim.d4rl.scores import versions_of
from sim.env import Env
from sim.task import Task

RATE_HZ = 100.0
PHYSICS_STEPS = 5
SOURCES = ("human", "cloned", "expert")

_LONG = ("FFJ3", "FFJ2", "FFJ1", "FFJ0", "MFJ3", "MFJ2", "MFJ1", "MFJ0")
_SHORT = ("RFJ3", "RFJ2", "RFJ1", "RFJ0", "LFJ4", "LFJ3", "LFJ2", "LFJ1", "LFJ0")
HAND = ("WRJ1", "WRJ0", *_LONG, *_SHORT, "THJ4", "THJ3", "THJ2", "THJ1", "THJ0")
"""Joints of wrist, fingers and thumb."""


def _xyz(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{axis}" for name in names for axis in "xyz")


@dataclass(frozen=True)
class AdroitTask:
    """One of the four tasks.

    Attributes:
        name: name of the task.
        description: one line.
        arm: joints that carry the hand, driven before its own.
        observed: names of the observation.
        episode_steps: steps after which an episode is cut.
    """

    name: str
    description: str
    arm: tuple[str, ...]
    observed: tuple[str, ...]
    episode_steps: int = 200

    @property
    def joints(self) -> tuple[str, ...]:
        """The driven joints, in the order of the action."""
        return (*self.arm, *HAND)

    @property
    def spec(self) -> Spec:
        """What its plant looks like."""
        ones = (1.0,) * len(self.joints)
        return Spec(
            task=self.name,
            observation=(ArraySpec("observations", (len(self.observed),), elements=self.observed),),
            action=ArraySpec(
                "action",
                (len(self.joints),),
                "float32",
                low=tuple(-x for x in ones),
                high=ones,
                elements=self.joints,
            ),
            rate_hz=RATE_HZ,
        )


_TURNS = ("ARRx", "ARRy", "ARRz")
_SPEEDS = _xyz("object_velocity", "object_turning")
_SLIDES = ("ARTx", "ARTy", "ARTz")

ADROIT_TASKS: dict[str, AdroitTask] = {
    task.name: task
    for task in (
        AdroitTask(
            "pen",
            "turn a pen in the hand as the target shows, without dropping it",
            (),
            (
                *HAND,
                *_xyz("object"),
                *_SPEEDS,
                *_xyz("object_direction", "target_direction"),
                *_xyz("target_to_object", "turn_to_make"),
            ),
            episode_steps=100,
        ),
        AdroitTask(
            "door",
            "undo the latch and swing the door open",
            ("ARTz", *_TURNS),
            (
                *_TURNS,
                *HAND,
                "latch",
                "door_hinge",
                *_xyz("palm", "handle", "handle_to_palm"),
                "open",
            ),
        ),
        AdroitTask(
            "hammer",
            "pick up a hammer and drive a nail into a board",
            ("ARRx", "ARRy"),
            (
                "ARRx",
                "ARRy",
                *HAND,
                "nail_dir",
                *_SPEEDS,
                *_xyz("palm", "object", "object_euler", "nail"),
                "nail_impact",
            ),
        ),
        AdroitTask(
            "relocate",
            "carry a ball to the target",
            (*_SLIDES, *_TURNS),
            (
                *_SLIDES,
                *_TURNS,
                *HAND,
                *_xyz("object_to_palm", "target_to_palm", "target_to_object"),
            ),
        ),
    )
}


def tasks() -> Iterable[Task]:
    """Return the four tasks."""
    for task in ADROIT_TASKS.values():
        yield Task(
            name=task.name,
            family="adroit",
            description=f"Shadow hand: {task.description}",
            episode_steps=task.episode_steps,
            make_spec=partial(_spec, task),
            make_env=partial(_make, task.name),
            physics_steps=PHYSICS_STEPS,
            has_success=True,
            scored_as=f"{task.name}-expert-v1",
            datasets=versions_of(*(f"{task.name}-{source}" for source in SOURCES)),
        )


def _spec(task: AdroitTask) -> Spec:
    return task.spec


def _make(task: str, physics: str = "mujoco210") -> Env:
    from sim.d4rl.adroit_env import AdroitEnv

    return AdroitEnv(task, physics)
