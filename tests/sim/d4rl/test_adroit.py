"""D4RL's Adroit: observations, rewards by hand, returns of known policies, demonstrations."""

import os
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest

from controller.errors import ConfigError
from controller.testing import check_plant
from sim.d4rl.adroit import ADROIT_TASKS, PHYSICS_STEPS
from sim.d4rl.adroit_env import AdroitEnv, euler
from sim.d4rl.scores import reference
from sim.env import quiet_import
from sim.generate.behaviour import load_behaviour
from sim.registry import make_plant, task_named

DATA = Path(os.environ.get("ONEBEAT_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="ONEBEAT_DATA names no directory")


@pytest.mark.parametrize("task", ADROIT_TASKS)
def test_conforms(task):
    check_plant(lambda: make_plant(task, episode_steps=12), steps=25)


@pytest.mark.parametrize(
    ("name", "observed", "actions", "steps"),
    [
        ("pen", 45, 24, 100),
        ("door", 39, 28, 200),
        ("hammer", 46, 26, 200),
        ("relocate", 39, 30, 200),
    ],
)
def test_sizes_rates_and_names(name, observed, actions, steps):
    task, env = task_named(name), AdroitEnv(name)
    spec = task.spec()
    assert (spec.observation[0].size, spec.action.size) == (observed, actions)
    assert (spec.rate_hz, task.episode_steps, task.physics_steps) == (100.0, steps, PHYSICS_STEPS)
    assert env.model.opt.timestep * PHYSICS_STEPS == pytest.approx(0.01)
    driven = [env.model.joint(int(joint)).name for joint, _ in env.model.actuator_trnid]
    assert list(spec.action.elements) == driven
    assert f"{name}-expert-v1" in task.datasets
    assert task.reference == reference(f"{name}-human-v1")


@pytest.mark.parametrize("name", ADROIT_TASKS)
def test_names_of_joints_are_where_their_positions_are(name):
    env = AdroitEnv(name)
    joints = {env.model.joint(i).name for i in range(env.model.njnt)}
    qpos = np.random.default_rng(0).uniform(-0.1, 0.1, env.model.nq)
    observation = env.set_state(qpos, np.zeros(env.model.nv), {})
    named = [
        (i, n) for i, n in enumerate(ADROIT_TASKS[name].observed) if n in joints or n == "open"
    ]
    assert len(named) >= 24
    for place, joint in named:
        expected = -1.0 if joint == "open" else env.data.joint(joint).qpos[0]
        assert observation[place] == expected, joint


def theirs(name):
    """Return gymnasium-robotics' environment, and its palm and what the palm has to reach."""
    with quiet_import():
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
        made = gymnasium.make(f"AdroitHand{name.capitalize()}-v1").unwrapped
    wanted = made.data.site("S_handle") if name == "door" else made.data.body("Object")
    return made, made.data.site("S_grasp").xpos, wanted.xpos


@pytest.mark.parametrize("name", ADROIT_TASKS)
def test_observations_are_the_packages_and_rewards_d4rls(name):
    """Same seed, same actions. The package's sign is wrong in all but pen: +0.1 for -0.1."""
    env, (other, palm, wanted) = AdroitEnv(name, "stock"), theirs(name)
    random = np.random.default_rng(0)
    for episode in range(2):
        seed = 3 if episode == 0 else None
        observation, expected = env.reset(seed=seed)[0], other.reset(seed=seed)[0]
        for _ in range(40):
            # Only hammer's Euler angles are computed otherwise than there.
            assert np.allclose(observation, expected, rtol=0.0, atol=1e-13 * (name == "hammer"))
            action = random.uniform(-1.3, 1.3, env.model.nu).astype(np.float32)
            observation, reward, _, _, info = env.step(action)
            expected, wage, _, _, theirs_info = other.step(action)
            wrong = 0.0 if name == "pen" else 0.2 * np.linalg.norm(palm - wanted)
            assert reward == pytest.approx(wage - wrong, abs=1e-12)
            assert info["success"] == theirs_info["success"]


def by_name(name, observation):
    """Return the observation's arrays of three by the names of their elements, less the axis."""
    task = ADROIT_TASKS[name]
    stems = {n.rpartition("_")[0] for n in task.observed if n.endswith(("_x", "_y", "_z"))}
    return {
        stem: np.array([observation[task.observed.index(f"{stem}_{axis}")] for axis in "xyz"])
        for stem in stems
    } | dict(zip(task.observed, observation, strict=True))


def pen_reward(env, observation):
    seen = by_name("pen", observation)
    distance = np.linalg.norm(seen["object"] - [0.0, -0.2, 0.25])
    cosine = np.dot(seen["object_direction"], seen["target_direction"])
    reward = -distance + cosine - 5.0 * (seen["object"][2] < 0.075)
    near = distance < 0.075
    return reward + 10.0 * (near and cosine > 0.9) + 50.0 * (near and cosine > 0.95)


def door_reward(env, observation):
    seen = by_name("door", observation)
    angle = seen["door_hinge"]
    reward = -0.1 * np.linalg.norm(seen["palm"] - seen["handle"]) - 0.1 * (angle - 1.57) ** 2
    reward -= 1e-5 * np.sum(env.data.qvel**2)
    return reward + 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)


def hammer_reward(env, observation):
    seen = by_name("hammer", observation)
    goal, head = env.data.site("nail_goal").xpos, env.data.site("tool").xpos
    missing = np.linalg.norm(seen["nail"] - goal)
    reward = -0.1 * np.linalg.norm(seen["palm"] - seen["object"])
    reward -= np.linalg.norm(head - seen["nail"]) + 10.0 * missing
    reward -= 1e-2 * np.linalg.norm(env.data.qvel)
    reward += 2.0 * (seen["object"][2] > 0.04 and head[2] > 0.04)
    return reward + 25.0 * (missing < 0.02) + 75.0 * (missing < 0.01)


def relocate_reward(env, observation):
    seen = by_name("relocate", observation)
    missing = np.linalg.norm(seen["target_to_object"])
    reward = -0.1 * np.linalg.norm(seen["object_to_palm"])
    if env.data.body("Object").xpos[2] > 0.04:
        reward += 1.0 - 0.5 * np.linalg.norm(seen["target_to_palm"]) - 0.5 * missing
    return reward + 10.0 * (missing < 0.1) + 20.0 * (missing < 0.05)


REWARDS = {
    "pen": pen_reward,
    "door": door_reward,
    "hammer": hammer_reward,
    "relocate": relocate_reward,
}
UPRIGHT, TILTED = (1.0, 0.0, 0.0, 0.0), (np.cos(0.2), np.sin(0.2), 0.0, 0.0)
LYING = (np.cos(np.pi / 4), 0.0, np.sin(np.pi / 4), 0.0)


@pytest.mark.parametrize(
    ("name", "joints", "places", "least", "most", "success"),
    [
        ("pen", {}, {"desired_orien": UPRIGHT}, -0.2, 0.2, False),
        ("pen", {}, {"desired_orien": LYING}, 60.9, 61.0, True),
        ("pen", {"OBJRx": 0.4}, {"desired_orien": LYING}, 10.8, 11.0, False),
        ("pen", {"OBJTx": 0.2, "OBJTy": 0.5}, {"desired_orien": LYING}, -4.6, -4.5, False),
        ("pen", {"OBJTx": -0.1}, {"desired_orien": LYING}, 0.85, 0.95, False),
        ("door", {}, {}, -0.6, -0.2, False),
        ("door", {"door_hinge": 0.5}, {}, 1.7, 2.0, False),
        ("door", {"door_hinge": 1.2}, {}, 9.7, 10.0, False),
        ("door", {"door_hinge": 1.4}, {}, 19.7, 20.0, True),
        ("hammer", {}, {}, -3.0, -0.5, False),
        ("hammer", {"nail_dir": 0.075}, {}, 23.0, 25.0, False),
        ("hammer", {"nail_dir": 0.0895}, {}, 98.0, 100.0, True),
        ("hammer", {"OBJTz": 0.3, "nail_dir": 0.0895}, {}, 99.0, 100.0, True),
        ("relocate", {}, {"target_pos": (0.0, 0.0, 0.3)}, -0.1, 0.0, False),
        ("relocate", {"OBJTz": 0.2}, {"target_pos": (0.0, 0.0, 0.5)}, 0.6, 1.0, False),
        ("relocate", {"OBJTz": 0.2}, {"target_pos": (0.0, 0.07, 0.235)}, 10.5, 11.0, True),
        ("relocate", {"OBJTz": 0.2}, {"target_pos": (0.0, 0.02, 0.235)}, 30.5, 31.0, True),
    ],
)
def test_rewards_by_hand(name, joints, places, least, most, success):
    """Every bonus and the success flag, against the formula in terms of the observation."""
    env = AdroitEnv(name)
    qpos = env.model.qpos0.copy()
    for joint, value in joints.items():
        qpos[env.model.joint(joint).qposadr[0]] = value
    env.set_state(qpos, np.zeros(env.model.nv), places)
    rest = -env._middle / env._reach
    observation, reward, terminated, truncated, info = env.step(rest)
    assert reward == pytest.approx(REWARDS[name](env, observation), abs=1e-12)
    assert least < reward < most
    assert (info["success"], truncated) == (success, False)
    # The pen's first joint points down, from 25 cm above the table.
    assert terminated == (name == "pen" and joints.get("OBJTx", 0.0) > 0.175)


def test_a_dropped_pen_ends_the_episode_of_the_plant():
    plant = make_plant("pen")
    plant.reset(0)
    plant.env.data.qpos[24:27] = (0.2, 0.5, 0.0)
    plant.command(np.zeros(24, np.float32), 0)
    assert plant.observe().terminated
    assert not plant.observe().success


@pytest.mark.parametrize(
    ("name", "place", "low", "high"),
    [
        ("door", "door_body_pos", (-0.3, 0.25, 0.252), (-0.2, 0.35, 0.35)),
        ("hammer", "board_pos", (0.05, 0.0, 0.1), (0.05, 0.0, 0.25)),
        ("relocate", "obj_pos", (-0.15, -0.15, 0.035), (0.15, 0.3, 0.035)),
        ("relocate", "target_pos", (-0.2, -0.2, 0.15), (0.2, 0.2, 0.35)),
    ],
)
def test_what_a_reset_places_fills_its_box(name, place, low, high):
    env = AdroitEnv(name)
    env.reset(seed=0)
    drawn = np.array([env._scene.draw(env._random)[place] for _ in range(400)])
    assert (drawn >= low).all()
    assert (drawn <= high).all()
    reach = np.subtract(high, low)
    assert (np.ptp(drawn, axis=0) >= 0.97 * reach).all()


def test_the_pens_target_is_turned_about_x_and_y():
    env = AdroitEnv("pen")
    env.reset(seed=5)
    again = np.random.default_rng(5)
    roll, pitch = again.uniform(-1.0, 1.0), again.uniform(-1.0, 1.0)
    expected = rotation(0, roll) @ rotation(1, pitch) @ [0.0, 0.0, 1.0]
    assert env._scene.observe()[36:39] == pytest.approx(expected)


def rotation(axis, angle):
    """Return the matrix of a turn about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def test_euler_angles():
    random = np.random.default_rng(0)
    for _ in range(50):
        a, b, c = random.uniform((-3.1, -1.5, -3.1), (3.1, 1.5, 3.1))
        matrix = rotation(0, a) @ rotation(1, b) @ rotation(2, c)
        assert euler(matrix.ravel()) == pytest.approx((a, b, c))
    level = np.array([0.0, 0.0, 1.0, 0.6, 0.8, 0.0, -0.8, 0.6, 0.0])
    assert euler(level) == pytest.approx((0.0, np.pi / 2, np.arctan2(0.6, 0.8)))


def test_commands_between_physics_steps():
    """Steps paced with a constant action are the steps computed at once."""
    calls, action = [], np.linspace(-0.6, 0.6, 26)
    paced, whole, changed = (AdroitEnv("hammer") for _ in range(3))
    paced.between = lambda: calls.append(None) or action
    changed.between = lambda: -action
    ends = []
    for env in (paced, whole, changed):
        env.reset(seed=1)
        env.step(action)
        ends.append(env.data.qpos.copy())
    assert np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])
    assert len(calls) == PHYSICS_STEPS - 1


def test_actions_beyond_the_limits_are_clipped():
    ends = []
    for size in (1.0, 7.0):
        env = AdroitEnv("relocate")
        env.reset(seed=0)
        env.step(np.where(np.arange(30) % 2, size, -size).astype(np.float32))
        ends.append(env.data.qpos.copy())
    assert np.array_equal(*ends)


def test_unknown_physics():
    with pytest.raises(ConfigError, match="physics: 'mujoco200' is unknown; did you mean mujoco21"):
        make_plant("pen", physics="mujoco200")


def roll_out(name, episodes, act, seed=0):
    """Return (returns, successes, lengths) of episodes of the plant."""
    plant = make_plant(name, seed=seed)
    random, rows = np.random.default_rng(seed + 1), []
    for _ in range(episodes):
        plant.reset()
        now = plant.observe()
        while not now.done:
            action = act(now.arrays[0], random)
            plant.command(np.clip(action, -1.0, 1.0).astype(np.float32), now.step)
            now = plant.observe()
        rows.append((now.episode_return, now.success, now.step))
    return np.array(rows).T


@pytest.mark.slow
@needs_data
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "success"), [("pen", 0.7), ("door", 0.9)])
def test_the_experts_return_is_d4rls(name, success):
    """D4RL's score of 100 is the return of this policy, acting with its noise."""
    policy = load_behaviour(DATA / "policies" / name / "dapg_expert.npz")
    returns, successes, _ = roll_out(name, 60, policy.act)
    expected = reference(f"{name}-expert-v1")[1]
    assert abs(returns.mean() - expected) < 3.0 * returns.std() / np.sqrt(len(returns))
    assert successes.mean() > success


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ADROIT_TASKS)
def test_random_actions_return_d4rls_minimum(name):
    """Within sampling error of ours, and of D4RL's, which is taken to be as large."""
    size = len(ADROIT_TASKS[name].joints)
    returns, _, lengths = roll_out(name, 80, lambda _, random: random.uniform(-1.0, 1.0, size))
    error = returns.std() * np.sqrt(2.0 / len(returns))
    assert abs(returns.mean() - reference(f"{name}-expert-v1")[0]) < 3.0 * error
    expected = pytest.approx(54, abs=12) if name == "pen" else 200
    assert lengths.mean() == expected


@pytest.fixture(scope="module")
def human():
    """Return the demonstrations of door: columns, starts, and (begin, end) of each."""
    path = DATA / "door-human-v1.hdf5"
    if not path.is_file():
        pytest.skip("ONEBEAT_DATA names no directory with door-human-v1.hdf5")
    with h5py.File(path) as file:
        columns = {k: file[k][:] for k in ("actions", "observations", "rewards", "timeouts")}
        starts = {k: file[f"infos/init_{k}"][:] for k in ("qpos", "qvel", "door_body_pos")}
    ends = [int(end) + 1 for end in np.flatnonzero(columns["timeouts"])]
    return columns, starts, list(zip([0, *ends[:-1]], ends, strict=True))


def test_rewards_of_the_demonstrations_have_d4rls_sign(human):
    """From the recorded observations alone: what is left is 1e-5 |q̇|², never negative and small.

    With the other sign, 0.2 |palm - handle| would be left, up to 0.14.
    """
    columns, _, spans = human
    left = []
    for begin, end in spans:
        after = columns["observations"][begin + 1 : end].astype(np.float64)
        angle, away = after[:, 28], np.linalg.norm(after[:, 35:38], axis=1)
        bonus = 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)
        formula = -0.1 * away - 0.1 * (angle - 1.57) ** 2 + bonus
        # The places in the first observations are not those of the joints.
        left.append((formula - columns["rewards"][begin : end - 1])[12:])
    left = np.concatenate(left)
    assert left.min() > 0.0
    assert left.max() < 0.025


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_replaying_the_human_demonstrations(human):
    """Open loop from their starts: the returns and the doors of the recording."""
    columns, starts, spans = human
    env, found, opened = AdroitEnv("door"), [], []
    for demo, (begin, end) in enumerate(spans):
        places = {"door_body_pos": starts["door_body_pos"][demo]}
        env.set_state(starts["qpos"][demo], starts["qvel"][demo], places)
        steps = [env.step(action) for action in columns["actions"][begin:end]]
        found.append(sum(step[1] for step in steps))
        opened.append(any(step[4]["success"] for step in steps))
    recorded = [columns["rewards"][begin:end].sum() for begin, end in spans]
    assert np.mean(recorded) == pytest.approx(794.1, abs=0.1)
    assert np.mean(found) == pytest.approx(794.1, rel=0.02)
    close = np.isclose(found, recorded, rtol=0.05, atol=5.0)
    assert close.sum() >= 18
    swung = [columns["observations"][begin:end, 28].max() >= 1.35 for begin, end in spans]
    assert np.sum(np.array(opened) == swung) >= 23
