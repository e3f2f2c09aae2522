"""The hand's physics: against a trajectory of MuJoCo 2.1.0, and why the bodies are its bodies."""

import mujoco
import numpy as np
import pytest

from sim.d4rl.adroit import ADROIT_TASKS
from sim.d4rl.adroit_env import AdroitEnv, assets, load_model
from tests.golden import adroit210, mujoco210

GOLDEN = np.load(adroit210.GOLDEN, allow_pickle=False)
TOLERANCE = 2e-6


def deviations(task, physics):
    """Return max |Δq| to MuJoCo 2.1.0 after each control step."""
    env = AdroitEnv(task, physics)
    env.set_state(env.model.qpos0, np.zeros(env.model.nv), {})
    found = []
    for action, expected in zip(adroit210.scenario(task), GOLDEN[task], strict=True):
        env.step(action)
        found.append(np.abs(env.data.qpos - expected).max())
    return np.array(found)


@pytest.mark.parametrize("task", ADROIT_TASKS)
def test_follows_the_library_of_2021(task):
    assert deviations(task, "mujoco210").max() < TOLERANCE


@pytest.mark.parametrize(("task", "least"), [("pen", 1.0), ("hammer", 1e-2), ("relocate", 1e-4)])
def test_stock_contacts_do_not(task, least):
    assert deviations(task, "stock").max() > least


@pytest.mark.slow
@pytest.mark.skipif(not mujoco210.LIBRARY, reason="ONEBEAT_MUJOCO210 names no library")
@pytest.mark.parametrize("task", ADROIT_TASKS)
def test_the_golden_file_is_what_the_library_does(task):
    assert np.array_equal(adroit210.trajectory(task), GOLDEN[task])


@pytest.mark.parametrize("task", ADROIT_TASKS)
def test_two_margins_add_up_to_what_the_larger_one_was(task):
    stock, ours = load_model(task, "stock"), load_model(task, "mujoco210")
    i, j = np.triu_indices(stock.ngeom, 1)
    meet = (stock.geom_contype[i] & stock.geom_conaffinity[j]) | (
        stock.geom_contype[j] & stock.geom_conaffinity[i]
    )
    fixed = stock.body_weldid[stock.geom_bodyid]
    pairs = (meet != 0) & (fixed[i] != fixed[j])
    assert pairs.sum() > 80
    larger = np.maximum(stock.geom_margin[i], stock.geom_margin[j])
    added = ours.geom_margin[i] + ours.geom_margin[j]
    assert np.array_equal(added[pairs], larger[pairs])


def test_bodies_are_as_in_2021():
    """No body's inertia comes from a capsule, the shape whose mass MuJoCo has corrected."""
    for task in ADROIT_TASKS:
        spec = mujoco.MjSpec.from_file(str(assets() / f"adroit_{task}.xml"))
        for body in spec.bodies:
            capsules = [g for g in body.geoms if g.type == mujoco.mjtGeom.mjGEOM_CAPSULE]
            assert not capsules or body.explicitinertial, body.name
