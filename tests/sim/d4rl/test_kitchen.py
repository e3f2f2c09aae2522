"""D4RL's kitchen: its 60 numbers, noise, rewards and ends, and the published data."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from controller.errors import ConfigError
from controller.testing import check_plant
from sim.d4rl.kitchen import (
    ELEMENTS,
    OBJECT_NOISE,
    KitchenEnv,
    kitchen_spec,
    kitchen_task,
)
from sim.registry import make_plant
from sim.spaces import spec_of_spaces

STILL = np.zeros(9)
COMPLETE_GOAL = np.array(
    [0.0] * 17 + [-0.69, -0.05, 0.37, 0.0, 0.0, -0.75] + [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]
)


@pytest.fixture(scope="module")
def env():
    made = KitchenEnv(kitchen_task("kitchen-complete"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def published():
    directory = os.environ.get("ONEBEAT_DATA")
    path = Path(directory or "") / "kitchen-complete-v0.hdf5"
    if not directory or not path.is_file():
        pytest.skip("ONEBEAT_DATA names no directory with kitchen-complete-v0.hdf5")
    with h5py.File(path) as file:
        return {name: file[name][:] for name in ("observations", "actions", "terminals")}


def put(env: KitchenEnv, *elements: str) -> None:
    """Put elements where their goals are."""
    qpos = env.kitchen.data.qpos
    for element in elements:
        places, goal = ELEMENTS[element]
        qpos[list(places)] = goal


def test_is_a_plant():
    check_plant(lambda: make_plant("kitchen-mixed", episode_steps=12), steps=25)


def test_spec_is_that_of_the_built_environment(env):
    spec = kitchen_spec("kitchen-complete")
    action = spec_of_spaces(
        "t", env.kitchen.action_space, env.kitchen.action_space, 1 / env.kitchen.robot_env.dt
    )
    assert spec.rate_hz == pytest.approx(action.rate_hz)
    ours, theirs = spec.action, action.action
    assert (ours.shape, ours.dtype, ours.low, ours.high) == (
        theirs.shape,
        theirs.dtype,
        theirs.low,
        theirs.high,
    )
    assert [array.shape for array in spec.observation] == [(60,)]


def test_goals_by_hand():
    assert np.array_equal(kitchen_task("kitchen-complete").goal, COMPLETE_GOAL)
    assert np.array_equal(kitchen_task("kitchen-partial").goal, COMPLETE_GOAL)
    mixed = COMPLETE_GOAL.copy()
    mixed[[11, 12]], mixed[19] = (-0.88, -0.01), 0.0
    assert np.array_equal(kitchen_task("kitchen-mixed").goal, mixed)


def test_observation_is_robot_objects_goal_with_bounded_noise(env):
    qpos = env.kitchen.data.qpos
    drawn = []
    observation, info = env.reset(seed=0)
    assert not info["success"]
    for seed in range(40):
        observation, _ = env.reset(seed=seed)
        assert np.array_equal(observation[30:], COMPLETE_GOAL)
        drawn.append(observation[:30] - qpos)
    scale = 0.1 * np.concatenate([np.full(9, 0.1), OBJECT_NOISE])
    share = np.abs(drawn) / scale
    assert share.max() <= 1.0
    assert share.max(axis=0).min() > 0.8


def test_without_noise_the_observation_is_the_state():
    env = KitchenEnv(kitchen_task("kitchen-complete"), noise=0.0)
    observation, _ = env.reset(seed=0)
    assert np.array_equal(observation[:30], env.kitchen.data.qpos)
    env.close()


def test_a_task_is_rewarded_once_and_all_four_end_the_episode(env):
    env.reset(seed=0)
    assert env.step(STILL)[1:4] == (0.0, False, False)
    put(env, "microwave", "top burner")
    assert env.step(STILL)[1:4] == (1.0, False, False)
    assert env.step(STILL)[1] == 0.0
    put(env, "microwave", "light switch", "slide cabinet")
    assert env.step(STILL)[1] == 2.0
    put(env, "kettle")
    _, reward, terminated, truncated, info = env.step(STILL)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    env.reset(seed=0)
    assert env.step(STILL)[1:3] == (0.0, False)


def test_mixed_wants_the_burner_and_not_the_cabinet():
    plant = make_plant("kitchen-mixed")
    plant.reset(0)
    put(plant.env, "slide cabinet", "bottom burner")
    plant.command(STILL, 0)
    assert plant.observe().reward == 1.0
    put(plant.env, *kitchen_task("kitchen-mixed").elements)
    plant.command(STILL, 1)
    seen = plant.observe()
    assert (seen.episode_return, seen.terminated, seen.success) == (4.0, True, True)


def test_physics_steps_paced_are_physics_steps_at_once():
    action, calls = np.linspace(-1.0, 1.0, 9), []
    envs = [KitchenEnv(kitchen_task("kitchen-mixed")) for _ in range(2)]
    envs[1].between = lambda: calls.append(None) or action
    for env in envs:
        env.reset(seed=3)
    for _ in range(3):
        whole, paced = (env.step(action)[0] for env in envs)
        assert np.array_equal(whole, paced)
    assert np.array_equal(envs[0].data.qvel, envs[1].data.qvel)
    assert len(calls) == 3 * 39
    for env in envs:
        env.close()


def test_a_command_in_between_counts_from_the_positions_last_reported(env):
    """By hand: 2 rad/s for 80 ms from the report, within the joints' limits."""
    observation, _ = env.reset(seed=0)
    asked = iter([np.full(9, 0.5)] * 20 + [np.full(9, 3.0)] * 19)
    seen = []

    def between():
        seen.append(env.data.ctrl.copy())
        return next(asked)

    env.between = between
    env.step(STILL)
    env.between = None
    for index, share in ((0, 0.0), (1, 0.5), (20, 0.5), (21, 1.0)):
        assert seen[index][:7] == pytest.approx(observation[:7] + share * 2.0 * 0.08)


def test_unknown_kitchen():
    with pytest.raises(ConfigError, match="did you mean kitchen-complete"):
        kitchen_task("kitchen-complet")


def test_published_data_has_our_goal_pose_and_noise(env, published):
    observations = published["observations"]
    ends = np.flatnonzero(published["terminals"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    ours, _ = env.reset(seed=0)
    assert np.array_equal(observations[:, 30:], np.tile(COMPLETE_GOAL, (3680, 1)).astype("f4"))
    # The demonstrations begin with the arm elsewhere, the objects at rest but for noise.
    offset = np.abs(observations[starts, :30] - ours[:30])
    assert offset[:, :9].max() < 0.2
    assert (offset[:, 9:] <= 0.2 * OBJECT_NOISE + 0.012).all()
    rest = [observations[start : start + 15, 9:30] for start in starts]
    scatter = np.concatenate([part - np.median(part, axis=0) for part in rest]).std(axis=0)
    assert scatter == pytest.approx(0.1 * OBJECT_NOISE / np.sqrt(3), rel=0.1)


@pytest.mark.slow
def test_replaying_the_published_demonstrations(published):
    """Open loop, without noise: 1.68 of 4 tasks, as known for MuJoCo 3.11."""
    ends = np.flatnonzero(published["terminals"]) + 1
    plant = make_plant("kitchen-complete", noise=0.0)
    returns = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        plant.reset(0)
        for action in published["actions"][start:end]:
            plant.command(action, 0)
            if plant.observe().done:
                break
        returns.append(plant.observe().episode_return)
    assert len(returns) == 19
    assert np.mean(returns) == pytest.approx(1.68, abs=0.11)
    assert max(returns) == 4.0
