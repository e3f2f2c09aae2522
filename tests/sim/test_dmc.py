"""dm_control behind the plant contract."""

import numpy as np
import pytest

from controller.testing import check_plant
from sim import catalogue, dmc
from sim.dmc_env import SuiteEnv, survey
from sim.registry import make_env, make_plant, task_named

NAMES = [task.name for task in dmc.tasks()]
SOME = [
    "dmc-cartpole-swingup",
    "dmc-cheetah-run",
    "dmc-finger-spin",
    "dmc-lqr-lqr_2_1",
    "dmc-quadruped-escape",
    "dmc-manipulation-reach_site_features",
]


def test_all_of_the_suite_and_of_manipulation_with_features():
    from dm_control import manipulation, suite

    expected = {f"dmc-{domain}-{task}" for domain, task in suite.ALL_TASKS}
    features = manipulation.get_environments_by_tag("features")
    expected |= {f"dmc-manipulation-{task}" for task in features}
    assert set(NAMES) == expected
    assert len(NAMES) == 64


@pytest.mark.parametrize("name", SOME)
def test_conforms(name):
    check_plant(lambda: make_plant(name, episode_steps=8), steps=20)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_everything_conforms(name):
    check_plant(lambda: make_plant(name, episode_steps=6), steps=15)


def episode(plant, seed):
    """Return all numbers of six steps."""
    plant.reset(seed)
    random = np.random.default_rng(seed)
    low, high = (np.clip(limit, -1, 1) for limit in plant.spec.action.bounds())
    seen = [*plant.observe().arrays]
    for tick in range(6):
        plant.command(random.uniform(low, high), tick)
        seen += [*plant.observe().arrays, np.array(plant.observe().reward)]
    return np.concatenate([array.reshape(-1) for array in seen])


def check_episodes_depend_on_their_seed_alone(name):
    plant = make_plant(name)
    first, other = episode(plant, 5), episode(plant, 6)
    plant.reset()
    assert np.array_equal(first, episode(plant, 5))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "name", [*SOME[:-1], "dmc-manipulation-stack_2_of_3_bricks_random_order_features"]
)
def test_episodes_before_leave_nothing_behind(name):
    check_episodes_depend_on_their_seed_alone(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_episode_anywhere_leaves_anything_behind(name):
    check_episodes_depend_on_their_seed_alone(name)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_catalogue_is_what_dm_control_builds():
    assert survey() == catalogue.entries("dm_control")


def test_cheetah_is_dm_controls_own():
    """Same seed, same actions: the very states and rewards that dm_control gives."""
    from dm_control import suite

    theirs = suite.load("cheetah", "run", task_kwargs={"random": 0})
    env = make_env("dmc-cheetah-run")
    observation, _ = env.reset(seed=5)
    theirs.task.random.seed(5)
    now = theirs.reset()
    random = np.random.default_rng(0)
    for _ in range(20):
        for name, value in now.observation.items():
            assert np.array_equal(value, observation[name])
        action = random.uniform(-1, 1, 6)
        now = theirs.step(action)
        observation, reward, ended, *_ = env.step(action)
        assert reward == now.reward
        assert not ended


def test_rates_lengths_and_limits():
    task = task_named("dmc-manipulation-reach_site_features")
    assert (task.spec().rate_hz, task.physics_steps, task.episode_steps) == (25.0, 20, 250)
    low, high = task.spec().action.bounds()
    assert np.allclose(high[:3], 0.62831853)
    assert np.allclose(low[-3:], -5.0)
    assert task_named("dmc-cheetah-run").episode_steps == 1000
    assert task_named("dmc-lqr-lqr_2_1").spec().action.low == ()


def test_physics_steps_paced_are_physics_steps_at_once():
    action, calls = np.array([0.5, -1.0]), []
    envs = [SuiteEnv("reacher", "easy") for _ in range(2)]
    assert envs[0]._environment._n_sub_steps == 1
    envs = [SuiteEnv("walker", "walk") for _ in range(3)]
    action = np.linspace(-1, 1, 6)
    envs[0].between = lambda: calls.append(None) or action
    envs[2].between = lambda: -action
    results = []
    for env in envs:
        env.reset(seed=1)
        for _ in range(3):
            observation, reward, *_ = env.step(action)
        results.append((observation["velocity"], reward))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not np.array_equal(results[0][0], results[2][0])
    assert len(calls) == 3 * (envs[0]._environment._n_sub_steps - 1)


def test_the_physics_is_there_to_look_at():
    env = make_env("dmc-manipulation-reach_site_features")
    env.reset(seed=0)
    first = env.data.time
    env.step(np.zeros(9))
    assert env.data.time == pytest.approx(first + 0.04)
    assert env.model.nq == len(env.data.qpos)
    env.close()


def test_the_jaco_arm_takes_commands_between_physics_steps():
    """Held commands change nothing; the last of twenty acts for one physics step."""
    name = "dmc-manipulation-reach_site_features"
    actions = np.zeros(9), np.full(9, 0.5)
    results = []
    for others in ([0] * 19, [0] * 18 + [1], [1] * 19):
        env, left = make_env(name), iter(others)
        env.reset(seed=0)
        env.between = lambda left=left: actions[next(left)]
        env.step(actions[0])
        assert next(left, None) is None
        results.append(env.data.qvel.copy())
    bare = make_env(name)
    bare.reset(seed=0)
    bare.step(actions[0])
    assert np.array_equal(bare.data.qvel, results[0])
    small, large = (np.abs(result - results[0]).max() for result in results[1:])
    assert 0 < small < large
