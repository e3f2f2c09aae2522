"""Names, options and static facts of the tasks."""

import json
import subprocess
import sys

import numpy as np
import pytest

from controller.errors import ConfigError
from sim.d4rl.scores import references
from sim.registry import describe, make_plant, task_named, task_spec, tasks


def test_every_description_is_plain_data_about_a_known_dataset():
    rows = describe()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["task"] for row in rows] == list(tasks())
    assert len({tuple(row) for row in rows}) == 1
    for row in rows:
        assert set(row["datasets"]) <= set(references())
        assert row["description"]


def test_a_row_by_hand():
    row = next(row for row in describe() if row["task"] == "maze2d-medium")
    assert row == {
        "task": "maze2d-medium",
        "family": "maze2d",
        "obs": 4,
        "act": 2,
        "rate_hz": 100.0,
        "max_steps": 600,
        "ref_min": 13.13,
        "ref_max": 277.39,
        "datasets": ["maze2d-medium-v1"],
        "arrays": {"observations": 4},
        "physics_steps": 1,
        "success": True,
        "description": "ball to the goal in cell [6, 6], reward 1 at the goal",
    }


@pytest.mark.parametrize("name", tasks())
def test_spec_carries_its_task_and_rate(name):
    task = tasks()[name]
    spec = task.spec()
    assert spec == task_spec(name)
    assert spec.task == name


@pytest.mark.parametrize("name", ["halfcheetah", "pointmaze-umaze", "maze2d-open"])
def test_episodes_have_the_stated_length(name):
    plant = make_plant(name)
    assert plant.spec == task_named(name).spec()
    plant.reset(0)
    still = np.zeros(plant.spec.action.shape, plant.spec.action.dtype)
    while not plant.observe().done:
        plant.command(still, 0)
    assert plant.observe().truncated
    assert plant.observe().step == task_named(name).episode_steps


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="pointmaze-medum is unknown; did you mean pointmaze-med"):
        make_plant("pointmaze-medum")


def test_unknown_option_names_the_valid_ones():
    with pytest.raises(ConfigError, match=r"no option goal_cel; did you mean goal_cell\?"):
        make_plant("pointmaze-umaze", goal_cel=(1, 1))
    with pytest.raises(ConfigError, match="kitchen-mixed has no option goal_cell"):
        make_plant("kitchen-mixed", goal_cell=(1, 1))


def test_options_reach_the_plant():
    plant = make_plant("pointmaze-umaze", seed=4, episode_steps=1)
    plant.reset()
    first = plant.observe().arrays[0]
    plant.command(np.zeros(2, np.float32), 0)
    assert plant.observe().truncated
    plant.reset(4)
    assert np.array_equal(plant.observe().arrays[0], first)


def test_looking_at_tasks_loads_no_simulator():
    program = (
        "import sys, sim, sim.settings, sim.render, sim.datasets\n"
        "from sim.registry import describe\n"
        "assert describe()\n"
        "heavy = {'mujoco', 'gymnasium', 'gymnasium_robotics', 'torch', 'h5py', 'PIL', 'zmq'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
