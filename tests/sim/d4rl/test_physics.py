"""The physics of MuJoCo 2.1.0, against trajectories of that library."""

import mujoco
import numpy as np
import pytest

from sim.d4rl.antmaze import EVALUATION
from sim.d4rl.antmaze_env import AntMazeEnv
from sim.d4rl.locomotion_env import LocomotionEnv
from sim.d4rl.physics import as_mujoco_210, inertials
from tests.golden import mujoco210

GOLDEN = np.load(mujoco210.GOLDEN, allow_pickle=False)
TOLERANCE = {
    # (control steps, largest deviation of a position). Beyond them halfcheetah and ant are chaotic.
    "halfcheetah": (50, 1e-8),
    "hopper": (200, 1e-9),
    "walker2d": (200, 1e-9),
    "ant": (50, 1e-9),
    "antmaze": (200, 1e-7),
}


def environment(robot, physics):
    if robot == "antmaze":
        return AntMazeEnv(EVALUATION["umaze"], physics=physics)
    return LocomotionEnv(robot, physics)


def deviations(robot, physics, states) -> np.ndarray:
    """Return max |Δq| after each control step of the scenario."""
    env = environment(robot, physics)
    factor, steps = mujoco210.control_of(robot)
    qpos, qvel, actions = mujoco210.scenario(robot, env.model)
    mujoco.mj_resetData(env.model, env.data)
    env.data.qpos[:], env.data.qvel[:] = qpos, qvel
    mujoco.mj_forward(env.model, env.data)
    found = []
    for action, state in zip(actions, states, strict=True):
        env.data.ctrl[:] = factor * action
        mujoco.mj_step(env.model, env.data, steps)
        found.append(np.abs(env.data.qpos - state[: env.model.nq]).max())
    return np.array(found)


@pytest.mark.parametrize("robot", mujoco210.ROBOTS)
def test_follows_the_library_of_2021(robot):
    steps, largest = TOLERANCE[robot]
    assert deviations(robot, "mujoco210", GOLDEN[robot])[:steps].max() < largest


@pytest.mark.parametrize("robot", mujoco210.ROBOTS)
def test_stock_physics_does_not(robot):
    assert deviations(robot, "stock", GOLDEN[robot])[49] > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not mujoco210.LIBRARY, reason="ONEBEAT_MUJOCO210 names no library")
@pytest.mark.parametrize("robot", mujoco210.ROBOTS)
def test_the_golden_file_is_what_the_library_does(robot):
    model = environment(robot, "mujoco210").model
    assert np.array_equal(mujoco210.trajectory(robot, model), GOLDEN[robot])


@pytest.mark.parametrize(
    ("robot", "mass"), [("hopper", 15.265), ("walker2d", 22.698), ("ant", 0.8787)]
)
def test_total_masses_as_published(robot, mass):
    model = LocomotionEnv(robot).model
    assert model.body_mass.sum() == pytest.approx(mass, abs=5e-4)
    assert model.body_subtreemass[0] == pytest.approx(mass, abs=5e-4)


def test_capsules_of_2021_by_hand():
    """Hopper's torso: a capsule of radius 0.05 and half length 0.2 at 1000 kg/m³."""
    radius, half = 0.05, 0.2
    cylinder = np.pi * radius**2 * 2 * half * 1000
    assert inertials()["hopper"][1].mass == pytest.approx(cylinder + 1000 * np.pi * radius**3)
    stock = LocomotionEnv("hopper", "stock").model.body_mass[1]
    assert stock == pytest.approx(cylinder + 1000 * 4 / 3 * np.pi * radius**3)


@pytest.mark.parametrize(("robot", "other"), [("hopper", "walker2d"), ("walker2d", "hopper")])
def test_a_model_of_another_robot(robot, other):
    model = LocomotionEnv(other, "stock").model
    with pytest.raises(ValueError, match=rf"{robot}: the model's bodies are .* expected \['world'"):
        as_mujoco_210(model, robot)


def test_a_robot_that_nobody_measured():
    model = LocomotionEnv("hopper", "stock").model
    with pytest.raises(ValueError, match="robot hoper is unknown; did you mean hopper"):
        as_mujoco_210(model, "hoper")


def test_margins_that_cannot_be_halved():
    model = LocomotionEnv("hopper", "stock").model
    model.geom_margin[0] = 0.5
    with pytest.raises(ValueError, match=r"margins \[0.001, 0.5\]: only a uniform margin"):
        as_mujoco_210(model, "hopper")
