"""D4RL's locomotion tasks: HalfCheetah, Hopper, Walker2d and Ant.

Observations, rewards and ends are those of the Gym ``-v2`` environments that D4RL recorded,
which ``-v4`` kept and ``-v5`` changed; the physics is MuJoCo 2.1.0's (``sim.d4rl.physics``).

=========== ========== ===================================== =====================================
robot       control    reward per step                       ends when not
=========== ========== ===================================== =====================================
halfcheetah 5 × 10 ms  Δx/Δt - 0.1 |a|²                      never
hopper      4 × 2 ms   Δx/Δt + 1 - 0.001 |a|²                z > 0.7, |angle| < 0.2, others < 100
walker2d    4 × 2 ms   Δx/Δt + 1 - 0.001 |a|²                0.8 < z < 2, |angle| < 1
ant         5 × 10 ms  Δx/Δt + 1 - 0.5 |a|²                  0.2 ≤ z ≤ 1
=========== ========== ===================================== =====================================

Observations are positions without the first (ant: two), then velocities, which hopper and
walker2d clip to ±10. Ant's go on with 84 zeros: Gym meant contact forces there, which MuJoCo 2
never filled in, and D4RL's ant files have the zeros. Episodes last 1000 steps.

Source: Gym ``gym/envs/mujoco/{half_cheetah,hopper,walker2d,ant}.py``; D4RL ``d4rl/gym_mujoco``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from controller.spec import ArraySpec, Spec
from sim.d4rl.scores import versions_of
from sim.env import Env
from sim.task import Task

EPISODE_STEPS = 1000
LEVELS = ("random", "medium", "medium-replay", "full-replay", "medium-expert", "expert")

_CHEETAH = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
_LEGS = ("thigh", "leg", "foot")
_WALKER = (*_LEGS, *(f"{name}_left" for name in _LEGS))
_ANT_JOINTS = tuple(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle"))
_ANT_MOTORS = tuple(f"{part}_{leg}" for leg in (4, 1, 2, 3) for part in ("hip", "ankle"))


@dataclass(frozen=True)
class Robot:
    """Facts of one robot.

    Attributes:
        name: name of the task and of its inertials.
        model: file of Gymnasium's assets.
        physics_steps: physics steps of one control step.
        timestep_s: one physics step.
        positions: names of the observed positions.
        velocities: names of the observed velocities.
        motors: names of the actuators.
        padding: zeros at the end of an observation.
    """

    name: str
    model: str
    physics_steps: int
    timestep_s: float
    positions: tuple[str, ...]
    velocities: tuple[str, ...]
    motors: tuple[str, ...]
    padding: int = 0

    @property
    def spec(self) -> Spec:
        """What its plant looks like."""
        names = (
            *self.positions,
            *(f"{name}_velocity" for name in self.velocities),
            *(f"contact{i}" for i in range(self.padding)),
        )
        ones = (1.0,) * len(self.motors)
        return Spec(
            task=self.name,
            observation=(ArraySpec("observations", (len(names),), elements=names),),
            action=ArraySpec(
                "action",
                (len(self.motors),),
                "float32",
                low=tuple(-x for x in ones),
                high=ones,
                elements=self.motors,
            ),
            rate_hz=1.0 / (self.physics_steps * self.timestep_s),
        )


def _planar(name: str, model: str, steps: int, timestep_s: float, motors: tuple[str, ...]) -> Robot:
    joints = ("z", "pitch", *motors)
    return Robot(name, model, steps, timestep_s, joints, ("x", *joints), motors)


_ANT_BODY = ("z", "qw", "qx", "qy", "qz")
_ANT_SPEED = ("x", "y", "z", "roll", "pitch", "yaw")

ROBOTS: dict[str, Robot] = {
    robot.name: robot
    for robot in (
        _planar("halfcheetah", "half_cheetah.xml", 5, 0.01, _CHEETAH),
        _planar("hopper", "hopper.xml", 4, 0.002, _LEGS),
        _planar("walker2d", "walker2d.xml", 4, 0.002, _WALKER),
        Robot(
            "ant",
            "ant.xml",
            5,
            0.01,
            (*_ANT_BODY, *_ANT_JOINTS),
            (*_ANT_SPEED, *_ANT_JOINTS),
            _ANT_MOTORS,
            padding=84,
        ),
    )
}


def tasks() -> Iterable[Task]:
    """Return the four tasks."""
    for robot in ROBOTS.values():
        yield Task(
            name=robot.name,
            family="locomotion",
            description=f"run forward as fast as possible: D4RL's {robot.name}",
            episode_steps=EPISODE_STEPS,
            make_spec=partial(_spec, robot),
            make_env=partial(_make, robot.name),
            physics_steps=robot.physics_steps,
            scored_as=f"{robot.name}-medium-v2",
            datasets=versions_of(*(f"{robot.name}-{level}" for level in LEVELS)),
        )


def _spec(robot: Robot) -> Spec:
    return robot.spec


def _make(robot: str, physics: str = "mujoco210") -> Env:
    from sim.d4rl.locomotion_env import LocomotionEnv

    return LocomotionEnv(robot, physics)
