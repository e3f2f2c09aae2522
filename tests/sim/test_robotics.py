"""gymnasium-robotics behind the plant contract."""

import gymnasium
import numpy as np
import pytest

from controller.testing import check_plant
from controller.transitions import layout_of
from sim import catalogue, robotics
from sim.env import Substepped
from sim.foreign_env import ForeignEnv, flat, succeeded
from sim.registry import make_env, make_plant, task_named
from sim.robotics_env import names, survey

NAMES = [task.name for task in robotics.tasks()]
SOME = [
    "AdroitHandPen-v1",
    "AntMaze_UMaze-v5",
    "FetchPickAndPlace-v4",
    "FetchReachDense-v4",
    "HandManipulateBlock_ContinuousTouchSensors-v1",
    "HandReach-v3",
    "PointMaze_Medium_Diverse_GR-v3",
]


def test_every_environment_that_runs_without_mujoco_py():
    assert list(names()) == NAMES
    assert len(NAMES) == 113
    assert len({name.rpartition("-v")[0] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", SOME)
def test_conforms(name):
    check_plant(lambda: make_plant(name, episode_steps=6), steps=13)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_everything_conforms(name):
    check_plant(lambda: make_plant(name, episode_steps=6), steps=13)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_catalogue_is_what_the_package_builds():
    assert survey() == catalogue.entries("gymnasium_robotics")


def test_fetch_is_the_packages_own():
    """The first episode of a seed: the very observations, rewards and flags."""
    theirs = gymnasium.make("FetchPush-v4").unwrapped
    env = make_env("FetchPush-v4")
    expected, _ = theirs.reset(seed=4)
    observation, _ = env.reset(seed=4)
    random = np.random.default_rng(0)
    for _ in range(15):
        assert set(observation) == set(expected)
        for name, value in expected.items():
            assert np.array_equal(value, observation[name])
        action = random.uniform(-1, 1, 4).astype(np.float32)
        expected, wage, *_, theirs_info = theirs.step(action)
        observation, reward, *_, info = env.step(action)
        assert (reward, info["success"]) == (wage, bool(theirs_info["is_success"]))


def test_goals_can_be_told_apart_in_a_flat_observation():
    layout = layout_of(task_named("FetchPush-v4").spec())
    assert dict(layout) == {"observation": 25, "achieved_goal": 3, "desired_goal": 3}
    kitchen = dict(layout_of(task_named("FrankaKitchen-v1").spec()))
    assert kitchen["observation"] == 59
    assert kitchen["desired_goal/microwave"] == 1
    assert kitchen["achieved_goal/kettle"] == 7


def test_rates_and_lengths():
    rows = {
        "FetchReach-v4": (25.0, 20, 50),
        "HandReach-v3": (25.0, 20, 50),
        "PointMaze_UMaze-v3": (100.0, 1, 300),
        "AntMaze_Large-v5": (20.0, 5, 1000),
        "AdroitHandDoor-v1": (100.0, 5, 200),
        "FrankaKitchen-v1": (12.5, 40, 280),
    }
    for name, expected in rows.items():
        task = task_named(name)
        found = (round(task.spec().rate_hz, 9), task.physics_steps, task.episode_steps)
        assert found == expected, name


@pytest.mark.parametrize(
    ("name", "paced"),
    [
        ("HandReach-v3", True),
        ("AdroitHandDoor-v1", True),
        ("AntMaze_UMaze-v5", True),
        ("FrankaKitchen-v1", True),
        ("FetchReach-v4", False),
    ],
)
def test_commands_between_physics_steps(name, paced):
    """Steps paced with a constant action are the steps computed at once."""
    calls, envs = [], [make_env(name) for _ in range(3)]
    size = task_named(name).spec().action.size
    action = np.linspace(-0.8, 0.8, size).astype(np.float32)
    assert all(isinstance(env, Substepped) is paced for env in envs)
    envs[0].between = lambda: calls.append(None) or action
    envs[2].between = lambda: -action
    states = []
    for env in envs:
        assert isinstance(env, ForeignEnv)
        assert env.paced is paced
        env.reset(seed=2)
        env.step(action)
        states.append(env.data.qpos.copy())
        env.close()
    assert np.array_equal(states[0], states[1])
    assert np.array_equal(states[0], states[2]) is not paced
    assert len(calls) == (task_named(name).physics_steps - 1) * paced


def test_flags_and_names():
    assert succeeded({"is_success": np.float32(1.0)})
    assert not succeeded({"is_success": 0.0, "success": True})
    assert succeeded({"success": np.True_})
    assert succeeded({"tasks_to_complete": []})
    assert not succeeded({"tasks_to_complete": ["kettle"]})
    assert not succeeded({})
    assert flat({"a": 1, "b": {"c": 2}}) == {"a": 1, "b/c": 2}
