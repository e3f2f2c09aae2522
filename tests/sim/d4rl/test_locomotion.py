"""D4RL's locomotion: rules by hand, and returns of known policies."""

import json
import os
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from controller.errors import ConfigError
from controller.testing import check_plant
from sim.d4rl.locomotion import ROBOTS
from sim.d4rl.locomotion_env import LocomotionEnv
from sim.registry import make_env, make_plant, task_named

DATA = Path(os.environ.get("ONEBEAT_DATA", "/nowhere"))
POLICIES = DATA / "policies"
needs_policies = pytest.mark.skipif(
    not POLICIES.is_dir(), reason="ONEBEAT_DATA names no directory with policies"
)


@pytest.mark.parametrize("robot", ROBOTS)
def test_conforms(robot):
    check_plant(lambda: make_plant(robot, episode_steps=20), steps=50)


@pytest.mark.parametrize(
    ("robot", "observed", "actions", "rate_hz"),
    [
        ("halfcheetah", 17, 6, 20),
        ("hopper", 11, 3, 125),
        ("walker2d", 17, 6, 125),
        ("ant", 111, 8, 20),
    ],
)
def test_sizes_and_rates(robot, observed, actions, rate_hz):
    task, env = task_named(robot), LocomotionEnv(robot)
    spec = task.spec()
    assert (spec.observation[0].size, spec.action.size) == (observed, actions)
    assert spec.rate_hz == pytest.approx(rate_hz)
    assert spec.rate_hz * env.model.opt.timestep * task.physics_steps == pytest.approx(1.0)
    driven = [env.model.joint(int(env.model.actuator_trnid[i, 0])).name for i in range(actions)]
    # The model calls walker2d's and hopper's joints thigh_joint, thigh_left_joint and so on.
    assert list(spec.action.elements) == [name.replace("_joint", "") for name in driven]


@pytest.mark.parametrize("robot", ["halfcheetah", "hopper", "walker2d"])
def test_a_step_by_hand(robot):
    env = LocomotionEnv(robot)
    env.reset(seed=3)
    action = np.linspace(-0.5, 0.7, env.model.nu).astype(np.float32)
    before = env.data.qpos[0]
    observation, reward, *_ = env.step(action)
    dt = ROBOTS[robot].physics_steps * ROBOTS[robot].timestep_s
    cost, bonus = (0.1, 0.0) if robot == "halfcheetah" else (1e-3, 1.0)
    moved = (env.data.qpos[0] - before) / dt
    assert reward == pytest.approx(moved + bonus - cost * float((action**2).sum()), rel=1e-6)
    limit = np.inf if robot == "halfcheetah" else 10.0
    expected = np.concatenate([env.data.qpos[1:], np.clip(env.data.qvel, -limit, limit)])
    assert np.array_equal(observation, expected)


def test_ant_by_hand():
    env = make_env("ant")
    env.reset(seed=3)
    before = env.data.body("torso").xpos[0]
    observation, reward, *_ = env.step(np.full(8, 0.5, np.float32))
    moved = (env.data.body("torso").xpos[0] - before) / 0.05
    assert reward == pytest.approx(moved + 1.0 - 0.5 * 8 * 0.25)
    assert np.array_equal(observation[:27], np.r_[env.data.qpos[2:], env.data.qvel])
    assert not observation[27:].any()


@pytest.mark.filterwarnings("ignore:.*out of date")
@pytest.mark.parametrize(
    ("robot", "name"),
    [
        ("halfcheetah", "HalfCheetah-v4"),
        ("hopper", "Hopper-v4"),
        ("walker2d", "Walker2d-v4"),
        ("ant", "Ant-v4"),
    ],
)
def test_with_stock_physics_it_is_gymnasium_v4(robot, name):
    theirs, ours = gymnasium.make(name).unwrapped, LocomotionEnv(robot, "stock")
    random, ends = np.random.default_rng(0), 0
    for episode in range(10):
        theirs.reset(seed=episode)
        ours.set_state(theirs.data.qpos, theirs.data.qvel)
        ended, steps = False, 0
        while not ended and steps < 50:
            action = random.uniform(-1, 1, ours.model.nu).astype(np.float32)
            expected, reward, ended, *_ = theirs.step(action)
            found = ours.step(action)
            assert np.array_equal(found[0][: expected.size], expected)
            # Gymnasium takes the square of the action in float32.
            assert found[1] == pytest.approx(reward, abs=1e-6)
            assert found[2] == ended
            steps += 1
        ends += ended
    assert (ends > 0) == (robot != "halfcheetah")


@pytest.mark.parametrize("robot", ["hopper", "walker2d"])
def test_velocities_are_clipped(robot):
    env = LocomotionEnv(robot)
    qvel = np.linspace(-30, 30, env.model.nv)
    env.set_state(env.model.qpos0, qvel)
    shown = env.observe()[env.model.nq - 1 :]
    assert np.array_equal(shown, np.clip(qvel, -10, 10))


@pytest.mark.parametrize(
    ("robot", "index", "value", "ends"),
    [
        ("hopper", 1, 0.71, False),
        ("hopper", 1, 0.69, True),
        ("hopper", 2, 0.21, True),
        ("hopper", 2, -0.19, False),
        ("hopper", 3, -101.0, True),
        ("hopper", 0, 500.0, False),
        ("walker2d", 1, 0.79, True),
        ("walker2d", 1, 2.01, True),
        ("walker2d", 2, -1.01, True),
        ("walker2d", 2, 0.99, False),
        ("ant", 2, 0.19, True),
        ("ant", 2, 1.01, True),
        ("ant", 2, 0.5, False),
        ("halfcheetah", 2, 3.0, False),
    ],
)
def test_ends(robot, index, value, ends):
    env = LocomotionEnv(robot)
    qpos = env.model.qpos0.copy()
    qpos[index] = value
    env.set_state(qpos, np.zeros(env.model.nv))
    assert env._rules.healthy() is not ends


def test_actions_beyond_the_limits_are_clipped():
    ends = []
    for action in ([9.0, -9.0, 2.0], [1.0, -1.0, 1.0]):
        env = LocomotionEnv("hopper")
        env.reset(seed=0)
        ends.append(env.step(np.array(action, np.float32)))
    assert ends[0][1] == ends[1][1]
    assert np.array_equal(ends[0][0], ends[1][0])


def test_commands_between_physics_steps():
    """Steps paced with a constant action are the steps computed at once."""
    paced, whole = LocomotionEnv("hopper"), LocomotionEnv("hopper")
    action, other = np.array([0.3, -0.2, 0.9]), np.array([-1.0, 1.0, 0.0])
    calls = []
    paced.between = lambda: calls.append(None) or action
    for env in (paced, whole):
        env.reset(seed=1)
    assert np.array_equal(paced.step(action)[0], whole.step(action)[0])
    assert len(calls) == 3
    paced.between = lambda: other
    assert not np.array_equal(paced.step(action)[0], whole.step(action)[0])


def test_unknown_physics():
    with pytest.raises(ConfigError, match="physics: 'mujoco' is unknown; valid: mujoco210, stock"):
        make_plant("hopper", physics="mujoco")


def returns(snapshot, episodes, robot="hopper"):
    """Roll a snapshot out as the published comparison of physics did; return (returns, lengths).

    Starts come from RandomState(episode), the policy's noise from one RandomState(0).
    """
    stored = np.load(POLICIES / robot / f"sac_snapshot_{snapshot:02d}.npz", allow_pickle=False)
    w = {name: stored[name].astype(np.float64) for name in stored.files if "." in name}
    env, noise = LocomotionEnv(robot), np.random.RandomState(0)
    totals, lengths = [], []
    for episode in range(episodes):
        start = np.random.RandomState(episode)
        qpos, qvel = env._rules.start(start, env.model)
        env.set_state(qpos, qvel)
        observation, total, done, steps = env.observe(), 0.0, False, 0
        while not done and steps < 1000:
            h = observation
            for layer in ("fc0", "fc1"):
                h = np.maximum(w[f"{layer}.weight"] @ h + w[f"{layer}.bias"], 0.0)
            mean = w["last_fc.weight"] @ h + w["last_fc.bias"]
            log_std = w["last_fc_log_std.weight"] @ h + w["last_fc_log_std.bias"]
            drawn = noise.randn(env.model.nu)
            action = np.tanh(mean + np.exp(np.clip(log_std, -20, 2)) * drawn)
            observation, reward, done, *_ = env.step(action.astype(np.float32))
            total, steps = total + reward, steps + 1
        totals.append(total)
        lengths.append(steps)
    return np.array(totals), np.array(lengths)


ROWS = [
    (3, 1749.789, 556.304, 538.85),
    (4, 1303.264, 866.075, 420.30),
    (5, 2089.128, 725.964, 640.10),
    (10, 1299.498, 85.412, 356.70),
]
"""Snapshot, mean return, std and length over 20 episodes in MuJoCo 2.1.0 itself."""


@needs_policies
@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[] if row[0] == 10 else pytest.mark.slow) for row in ROWS]
)
def test_hopper_returns_are_those_of_mujoco_210(row):
    snapshot, mean, std, length = row
    totals, lengths = returns(snapshot, 20)
    assert totals.mean() == pytest.approx(mean, abs=6e-4)
    assert totals.std() == pytest.approx(std, abs=6e-4)
    assert lengths.mean() == length


@needs_policies
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("robot", ["halfcheetah", "hopper", "walker2d"])
def test_returns_agree_with_the_published_ones(robot):
    folder = {"walker2d": "walker"}.get(robot, robot)
    published = {
        row["policy_path"]: (row["return_mean"], row["return_std:"])
        for row in json.loads((DATA / "dope_published_returns.json").read_text())
    }
    episodes = 10
    for snapshot in range(11):
        mean, std = published[f"{folder}/{folder}_online_{snapshot}.pkl"]
        totals, _ = returns(snapshot, episodes, robot)
        error = max(std, totals.std()) / np.sqrt(episodes)
        assert abs(totals.mean() - mean) < 4 * error, (snapshot, totals.mean(), mean)
        if robot == "halfcheetah":
            # Snapshot 10 falls on its back in 4 of 200 episodes, in MuJoCo 2.1.0 in 3 of 200; the
            # published std has none. One such return hides a shift of the rest from the mean.
            # The median does not mind; its standard error is sqrt(pi / 2) times the mean's.
            error = np.sqrt(np.pi / 2) * std / np.sqrt(episodes)
            assert abs(np.median(totals) - mean) < 4 * error, (snapshot, np.median(totals), mean)
