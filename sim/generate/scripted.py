"""Scripted controllers for the Fetch arm: reach, push, slide, pick and place.

An action is (x, y, z, gripper) in [-1, 1]: 50 mm of travel per step and axis, then opening the
gripper (1) or closing it (-1). Each controller looks at the observation and remembers which
stage of its task it is in. Distances are in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.spec import Spec
from controller.types import Array
from sim.env import Env

Floats = NDArray[np.float64]

TRAVEL_M = 0.05
GAIN = 6.0
"""Action per metre; above 1 / TRAVEL_M = 20 the hand would overshoot."""
PERIOD_S = 0.04
OPEN, CLOSED = 1.0, -1.0
CLEARANCE = np.array([0.0, 0.0, 0.08])
"""From an object to the hand that passes over it."""


class Scene(NamedTuple):
    """Where things are.

    Attributes:
        hand: position of the gripper (3,).
        thing: position of the object (3,); the hand's where there is none.
        velocity: velocity of the object in m/s (3,).
        goal: where the object, or the hand, has to be (3,).
    """

    hand: Floats
    thing: Floats
    velocity: Floats
    goal: Floats


Stage = int
Script = Callable[[Scene, Stage], tuple[Floats, float, Stage]]
"""Takes the scene and the stage; gives travel (3,), gripper, and the stage from here on."""


def reach(scene: Scene, stage: Stage) -> tuple[Floats, float, Stage]:
    """Go straight to the goal."""
    return 2 * GAIN * (scene.goal - scene.hand), CLOSED, stage


def pick_and_place(scene: Scene, stage: Stage) -> tuple[Floats, float, Stage]:
    """Stand above the object, go down around it, close, carry it to the goal."""
    above = scene.thing + CLEARANCE
    if stage == 0 and _near(scene.hand, above, 0.02):
        stage = 1
    if stage == 1 and _near(scene.hand, scene.thing, 0.012):
        stage = 2
    if stage == 0:
        return 2 * GAIN * (above - scene.hand), OPEN, stage
    if stage == 1:
        return 2 * GAIN * (scene.thing - scene.hand), OPEN, stage
    if stage < 2 + GRASP_STEPS:
        return np.zeros(3), CLOSED, stage + 1
    if not _near(scene.hand, scene.thing, 0.05):
        return np.zeros(3), OPEN, 0
    return GAIN * (scene.goal - scene.thing), CLOSED, stage


GRASP_STEPS = 3
"""Steps that the fingers need to close."""


def push(scene: Scene, stage: Stage) -> tuple[Floats, float, Stage]:
    """Get behind the object, seen from the goal, and push it there."""
    way = (scene.goal - scene.thing)[:2]
    left = float(np.hypot(*way))
    if left < 0.015:
        return np.zeros(3), CLOSED, stage
    direction = way / left
    behind = _behind(scene, direction, 0.075)
    aside = scene.hand[:2] - scene.thing[:2]
    lateral = abs(float(aside[0] * direction[1] - aside[1] * direction[0]))
    if stage == 0 and _near(scene.hand[:2], behind[:2], 0.02):
        stage = 1
    if stage == 1 and scene.hand[2] - scene.thing[2] < 0.015:
        stage = 2
    if stage == 2 and (lateral > 0.03 or aside @ direction > 0):
        stage = 0
    if stage == 0:
        return _over(scene, behind), CLOSED, stage
    if stage == 1:
        return 2 * GAIN * (behind - scene.hand), CLOSED, stage
    # Straight on, slower towards the goal, while the hand is led back to the line through both.
    line = _behind(scene, direction, -float(aside @ direction))
    travel = 1.5 * GAIN * (line - scene.hand)
    travel[:2] += min(PUSH_GAIN * left, PUSH_LIMIT) * direction
    return travel, CLOSED, stage


PUSH_GAIN = 8.0
PUSH_LIMIT = 0.8


def slide(scene: Scene, stage: Stage) -> tuple[Floats, float, Stage]:
    """Strike the puck so that friction brings it to rest at the goal."""
    way = (scene.goal - scene.thing)[:2]
    left = float(np.hypot(*way))
    direction = way / max(left, 1e-9)
    behind = _behind(scene, direction, SLIDE_RUN_UP_M)
    if stage == 0 and _near(scene.hand[:2], behind[:2], 0.02):
        stage = 1
    if stage == 1 and scene.hand[2] - scene.thing[2] < 0.02:
        stage = 2
    wanted = math.sqrt(2.0 * SLIDE_DECELERATION * left)
    if stage == 2 and float(scene.velocity[:2] @ direction) > SLIDE_ENOUGH * wanted:
        stage = 3
    if stage == 0:
        return _over(scene, behind), CLOSED, stage
    if stage == 1:
        return 2 * GAIN * (behind - scene.hand), CLOSED, stage
    if stage == 2:
        aim = direction * (1.0, SLIDE_ASIDE) * wanted / SLIDE_SPEED
        return np.array([*(aim / max(1.0, np.abs(aim).max())), 0.0]), CLOSED, stage
    return np.array([0.0, 0.0, 1.0]), CLOSED, stage


SLIDE_RUN_UP_M = 0.11
SLIDE_DECELERATION = 0.8
"""Of the puck, in m/s²."""
SLIDE_SPEED = 1.0
"""Speed in m/s of a puck that was struck with an action of 1."""
SLIDE_ASIDE = 1.4
"""The hand's flat face passes on only some of its motion across."""
SLIDE_ENOUGH = 0.95


def _over(scene: Scene, place: Floats) -> Floats:
    """Return the travel to above a place: first up, so as not to sweep the object away."""
    travel: Floats = 2 * GAIN * (place + CLEARANCE - scene.hand)
    if scene.hand[2] - scene.thing[2] < 0.7 * CLEARANCE[2]:
        travel[:2] = 0.0
    return travel


def _behind(scene: Scene, direction: Floats, distance_m: float) -> Floats:
    return np.array([*(scene.thing[:2] - distance_m * direction), scene.thing[2]])


def _near(a: Floats, b: Floats, distance_m: float) -> bool:
    offset = a - b
    return bool(offset @ offset < distance_m**2)


SCRIPTS: dict[str, Script] = {
    "FetchReach": reach,
    "FetchPush": push,
    "FetchSlide": slide,
    "FetchPickAndPlace": pick_and_place,
}
"""By task name without its version; the dense variants have the same motion."""


def script_of(task: str) -> Script | None:
    """Return the script of a task, None where there is none."""
    return SCRIPTS.get(task.rpartition("-v")[0].removesuffix("Dense"))


class ScriptedActor:
    """A script, with noise on its actions.

    Raises:
        ConfigError: the task has no script.
    """

    def __init__(self, spec: Spec, noise: float = 0.0) -> None:
        script = script_of(spec.task)
        if script is None:
            raise ConfigError(
                f"{spec.task} has no scripted controller; {nearest(spec.task, SCRIPTS)}"
            )
        self._script, self._noise, self._stage = script, noise, 0
        places, start = {}, 0
        for array in spec.observation:
            places[array.name] = slice(start, start + array.size)
            start += array.size
        self._seen, self._goal = places["observation"], places["desired_goal"]

    def begin(self, env: Env, observation: Floats, rng: np.random.Generator) -> None:
        """Begin with the first stage."""
        self._stage = 0

    def act(self, observation: Floats, rng: np.random.Generator) -> Array:
        """Return travel and gripper."""
        travel, gripper, self._stage = self._script(self._scene(observation), self._stage)
        action = np.array([*np.clip(travel, -1.0, 1.0), gripper])
        return action + self._noise * rng.standard_normal(4)

    def log_probs(self) -> None:
        """Return nothing."""

    def _scene(self, observation: Floats) -> Scene:
        seen, goal = observation[self._seen], observation[self._goal]
        hand = seen[:3]
        if len(seen) == 10:
            return Scene(hand, hand, seen[5:8] / PERIOD_S, goal)
        # The object's velocity is given relative to the hand's, both per control step.
        return Scene(hand, seen[3:6], (seen[14:17] + seen[20:23]) / PERIOD_S, goal)
