"""Scripted controllers: their stages by hand, and whether they do their task."""

import numpy as np
import pytest

from controller.errors import ConfigError
from controller.spec import ArraySpec, Spec
from sim.generate.dataset import generate
from sim.generate.scripted import (
    CLEARANCE,
    Scene,
    ScriptedActor,
    pick_and_place,
    push,
    reach,
    script_of,
    slide,
)
from sim.settings import GenerateConfig

STILL = np.zeros(3)
THING = np.array([1.3, 0.7, 0.42])
GOAL = np.array([1.4, 0.7, 0.42])


def beside(x, y, z):
    return THING + np.array([x, y, z])


def fetch_spec(task, width):
    arrays = (("observation", width), ("achieved_goal", 3), ("desired_goal", 3))
    observation = tuple(ArraySpec(name, (size,)) for name, size in arrays)
    return Spec(task, observation, ArraySpec("action", (4,), low=(-1,) * 4, high=(1,) * 4), 25.0)


def test_reach_goes_straight():
    travel, _, _ = reach(Scene(STILL, STILL, STILL, np.array([0.01, -0.02, 0.0])), 0)
    assert travel[0] > 0
    assert travel.tolist() == pytest.approx([travel[0], -2 * travel[0], 0.0])


def test_a_hand_beside_the_object_goes_up_first():
    low = Scene(beside(0.1, 0.0, 0.01), THING, STILL, GOAL)
    for script in (push, slide):
        travel, _, stage = script(low, 0)
        assert travel[:2].tolist() == [0.0, 0.0]
        assert travel[2] > 0
        assert stage == 0


def test_push_gets_behind_and_then_goes_straight_on():
    behind = beside(-0.075, 0.0, 0.0)
    travel, _, stage = push(Scene(behind + CLEARANCE, THING, STILL, GOAL), 0)
    assert stage == 1
    assert travel[2] < 0
    travel, _, stage = push(Scene(behind, THING, STILL, GOAL), 1)
    assert stage == 2
    assert travel[0] > 0
    assert travel[1] == pytest.approx(0.0)
    # A hand that has lost the object starts again.
    assert push(Scene(beside(0.05, 0.0, 0.0), THING, STILL, GOAL), 2)[2] == 0
    # At the goal it rests.
    assert not push(Scene(behind, THING, STILL, beside(0.01, 0, 0)), 2)[0].any()


def test_a_harder_strike_for_a_farther_goal():
    behind = beside(-0.1, 0.0, 0.0)
    near, far = (
        slide(Scene(behind, THING, STILL, beside(metres, 0.0, 0.0)), 2)[0][0]
        for metres in (0.1, 0.4)
    )
    # The speed that friction takes away over a way grows with its square root.
    assert far == pytest.approx(2 * near)
    fast = Scene(behind, THING, np.array([2.0, 0.0, 0.0]), GOAL)
    assert slide(fast, 2)[2] == 3


def test_pick_opens_closes_and_lifts():
    above = beside(0.0, 0.0, 0.08)
    travel, gripper, stage = pick_and_place(Scene(above, THING, STILL, GOAL), 0)
    assert (gripper, stage) == (1.0, 1)
    assert travel[2] < 0
    _, gripper, stage = pick_and_place(Scene(THING, THING, STILL, GOAL), 1)
    assert (gripper, stage) == (-1.0, 3)
    travel, gripper, stage = pick_and_place(Scene(THING, THING, STILL, GOAL), 5)
    assert gripper == -1.0
    assert travel[0] > 0
    # An object that was lost is sought again.
    assert pick_and_place(Scene(above, THING, STILL, GOAL), 5)[1:] == (1.0, 0)


def test_the_object_moves_as_the_observation_says():
    """Velocities of the hand, and of the object relative to it, per control step of 40 ms."""
    seen = np.zeros(31)
    seen[14:17], seen[20:23] = [0.01, 0.0, 0.0], [0.03, -0.02, 0.0]
    actor = ScriptedActor(fetch_spec("FetchPush-v4", 25))
    scene = actor._scene(seen)
    assert scene.velocity == pytest.approx([1.0, -0.5, 0.0])


def test_noise_has_the_stated_size():
    actor, rng = ScriptedActor(fetch_spec("FetchReach-v4", 10), 0.2), np.random.default_rng(0)
    actions = np.array([actor.act(np.zeros(16), rng) for _ in range(3000)])
    assert actions.std(0) == pytest.approx([0.2] * 4, rel=0.05)
    assert actions.mean(0) == pytest.approx([0, 0, 0, -1], abs=0.02)


def test_dense_variants_have_the_same_script():
    assert script_of("FetchSlideDense-v4") is slide
    assert script_of("FetchReach-v9") is reach
    assert script_of("HandReach-v3") is None
    with pytest.raises(ConfigError, match="HandReach-v3 has no scripted controller"):
        ScriptedActor(fetch_spec("HandReach-v3", 10))


@pytest.mark.parametrize(
    ("task", "least"), [("Reach", 1.0), ("Push", 0.9), ("PickAndPlace", 0.9), ("Slide", 0.15)]
)
def test_it_does_its_task(task, least):
    config = GenerateConfig(f"Fetch{task}-v4-scripted", steps=600, seed=0, processes=1)
    made = generate(config)
    assert made.attributes["trajectories"] == 12
    assert made.attributes["success_rate"] >= least
