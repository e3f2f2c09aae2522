"""Our tasks through Gymnasium's own front door."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from controller.spec import ArraySpec
from sim.errors import ActionMismatch, EpisodeOver, RenderUnavailable
from sim.gymnasium_env import GymnasiumEnv, box, id_of, register
from sim.registry import make_plant, task_named, tasks
from sim.vector_copies import episode_seed

MAZE = "onebeat/pointmaze-umaze-v0"


def test_ids_say_what_they_are():
    assert id_of("hopper") == "onebeat/hopper-v0"
    assert id_of("hopper-medium-v2") == "onebeat/hopper-medium-v2"
    assert id_of("FetchReach-v4") == "onebeat/FetchReach-v4"
    assert id_of("maze2d-umaze") == id_of("maze2d-umaze-v1") == "onebeat/maze2d-umaze-v1"
    assert id_of("dmc/cheetah run") == "onebeat/dmc-cheetah-run-v0"


def test_every_task_and_dataset_is_registered_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
    ours = {name for name in gymnasium.registry if name.startswith("onebeat/")}
    names = [name for task in tasks().values() for name in (task.name, *task.datasets)]
    assert ours == {id_of(name) for name in names} | {"onebeat/robot-v0"}
    for task in tasks().values():
        for name in (task.name, *task.datasets):
            found = gymnasium.spec(id_of(name))
            assert found.kwargs["task"] == task.name
            assert found.max_episode_steps == task.episode_steps


def test_no_import_is_needed_beside_gymnasiums():
    code = (
        "import gymnasium, sys\n"
        "env = gymnasium.make('sim.gymnasium_env:onebeat/pointmaze-umaze-v0')\n"
        "sys.exit(env.reset(seed=0)[0]['observation'].shape != (4,))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False)
    assert done.returncode == 0


def test_registering_imports_no_simulator():
    code = "import sim.gymnasium_env, sys\nsys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


REPRESENTATIVE = (
    "pointmaze-umaze",
    "maze2d-umaze",
    "kitchen-complete",
    "hopper",
    "antmaze-umaze",
    "pen",
    "FetchReach-v4",
    "dmc-cheetah-run",
)


@pytest.mark.parametrize("task", [name for name in REPRESENTATIVE if name in tasks()])
def test_passes_gymnasiums_checker(task):
    env = gymnasium.make(id_of(task))
    with warnings.catch_warnings():
        # It remarks on unbounded observations, which these tasks have.
        warnings.simplefilter("ignore")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_is_the_plant_cut_by_gymnasiums_limit():
    env = gymnasium.make(MAZE, max_episode_steps=6)
    plant = make_plant("pointmaze-umaze", episode_steps=6)
    env.action_space.seed(2)
    plant.reset(7)
    seen, info = env.reset(seed=7)
    assert info == {"success": plant.observe().success}
    for tick in range(6):
        action = env.action_space.sample()
        seen, reward, terminated, truncated, info = env.step(action)
        plant.command(action, tick)
        now = plant.observe()
        assert list(seen) == [array.name for array in plant.spec.observation]
        assert all(np.array_equal(a, b) for a, b in zip(seen.values(), now.arrays, strict=True))
        assert (reward, terminated, truncated) == (now.reward, now.terminated, now.truncated)
        assert info["success"] == now.success
    assert truncated
    seen["observation"][:] = 0.0  # Callers may write into what they are given.


def test_resets_without_a_seed_go_on_from_the_one_before():
    def starts() -> list[np.ndarray]:
        env = gymnasium.make(MAZE)
        seeds = (3, None, None)
        return [env.reset(seed=seed)[0]["observation"] for seed in seeds]

    first, second = starts(), starts()
    assert np.array_equal(first, second)
    assert not np.array_equal(first[1], first[2])
    unseeded = [gymnasium.make(MAZE).reset()[0]["observation"] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_options_and_mistakes():
    env = gymnasium.make(MAZE, goal_cell=(1, 1))
    goals = [env.reset()[0]["desired_goal"] for _ in range(3)]
    assert np.abs(np.array(goals) - goals[0]).max() <= 0.5
    with pytest.raises(ActionMismatch, match="not finite"):
        env.unwrapped.step(np.full(2, np.nan))
    with pytest.raises(EpisodeOver, match="reset first"):
        GymnasiumEnv("pointmaze-umaze").step(np.zeros(2))
    with pytest.raises(ValueError, match="expected None or rgb_array"):
        GymnasiumEnv("pointmaze-umaze", render_mode="human")


def test_a_robot_of_ones_own_is_given_by_its_file():
    arm = str(Path(__file__).parents[2] / "configs" / "robots" / "arm" / "robot.yaml")
    env = gymnasium.make("onebeat/robot-v0", task=arm)
    limit = task_named(arm).episode_steps
    env.reset(seed=0)
    ends = [env.step(np.zeros(env.action_space.shape))[2:4] for _ in range(limit)]
    assert ends == [(False, False)] * (limit - 1) + [(False, True)]
    vector = gymnasium.make_vec("onebeat/robot-v0", 2, task=arm, processes=1, episode_steps=3)
    vector.reset(seed=0)
    ends = [vector.step(np.zeros(vector.action_space.shape))[3].tolist() for _ in range(3)]
    assert ends == [[False] * 2, [False] * 2, [True] * 2]
    vector.close()


def test_render_gives_a_picture_or_says_why_not():
    env = gymnasium.make(MAZE, render_mode="rgb_array")
    env.reset(seed=0)
    try:
        picture = env.render()
    except RenderUnavailable as error:
        assert "pointmaze-umaze" in str(error) or "MUJOCO_GL" in str(error)  # noqa: PT017
    else:
        assert (picture.shape[-1], picture.dtype) == (3, np.uint8)
        assert picture.std() > 1.0
    env.close()
    assert GymnasiumEnv("pointmaze-umaze").render() is None


def test_boxes_have_the_limits_of_the_spec():
    array = ArraySpec("a", (2,), "float32", low=(-1.0, None), high=(2.0, None))
    assert box(array) == spaces.Box(
        np.array([-1, -np.inf], np.float32), np.array([2, np.inf], np.float32), (2,), np.float32
    )
    assert box(ArraySpec("i", (2, 2), "uint8")) == spaces.Box(0, 255, (2, 2), np.uint8)


def test_make_vec_steps_the_copies_in_parallel():
    envs = gymnasium.make_vec(MAZE, num_envs=3, max_episode_steps=4, processes=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.unwrapped.copies._workers
    seen, info = envs.reset(seed=5)
    assert envs.observation_space.contains(seen)
    assert info == {}
    plant = make_plant("pointmaze-umaze", episode_steps=4)
    plant.reset(episode_seed(5, 2, 0))
    assert np.array_equal(seen["observation"][2], plant.observe().arrays[0])
    envs.action_space.seed(1)
    for tick in range(4):
        actions = envs.action_space.sample()
        seen, rewards, terminated, truncated, info = envs.step(actions)
        plant.command(actions[2], tick)
        assert envs.observation_space.contains(seen)
        assert ("final_obs" in info) == (tick == 3)
    last = plant.observe()
    assert truncated.all()
    assert not terminated.any()
    assert (rewards[2], info["success"][2]) == (last.reward, last.success)
    assert info["_final_obs"].all()
    assert np.array_equal(info["final_obs"][2]["observation"], last.arrays[0])
    plant.reset(episode_seed(5, 2, 1))
    assert np.array_equal(seen["observation"][2], plant.observe().arrays[0])
    with pytest.raises(ValueError, match="expected one number"):
        envs.reset(seed=[1, 2, 3])
    envs.close()
    envs.close()


def test_a_vector_is_what_gymnasiums_own_would_be():
    ours = gymnasium.make_vec(MAZE, num_envs=2, processes=1)
    theirs = gymnasium.make_vec(
        MAZE,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    theirs.reset(seed=0)
    ours.reset(seed=0)
    actions = np.zeros((2, 2), np.float32)
    a, b = ours.step(actions), theirs.step(actions)
    assert [type(x) for x in a] == [type(x) for x in b]
    assert [x.dtype for x in a[1:4]] == [x.dtype for x in b[1:4]]
    assert set(a[4]) == set(b[4])
    ours.close()
    theirs.close()
