"""What D4RL's hand does in MuJoCo 2.1.0: a second of smooth random motion in each task.

The pen is turned and lost, the hammer is touched. The arm keeps the hand off the table and the
door, because that library finds the contacts of a box with a capsule or another box otherwise.

``python -m tests.golden.adroit210`` writes the golden file anew, with the library that
``tests.golden.mujoco210`` tells of.
"""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from sim.d4rl.adroit import ADROIT_TASKS, PHYSICS_STEPS
from sim.d4rl.adroit_env import assets, load_model
from tests.golden.mujoco210 import Simulation

GOLDEN = Path(__file__).parent / "adroit210.npz"
STEPS = 100
KEPT = 0.9
AWAY = {
    "door": {"ARTz": -1.0, "ARRx": -1.0, "ARRy": 0.0, "ARRz": 0.0},
    "hammer": {"ARRx": 0.5, "ARRy": 0.0},
    "relocate": {"ARTx": 0.0, "ARTy": 0.0, "ARTz": -1.0, "ARRx": -1.0, "ARRy": 0.0, "ARRz": 0.0},
}
"""Task -> where its arm goes."""


def scenario(task):
    """Return (100, A) actions: each is mostly the one before it."""
    random = np.random.RandomState(list(ADROIT_TASKS).index(task))
    actions = random.uniform(-3.0, 3.0, (STEPS, len(ADROIT_TASKS[task].joints)))
    actions[0] = 0.0
    for i in range(1, STEPS):
        actions[i] = np.clip(KEPT * actions[i - 1] + (1.0 - KEPT) * actions[i], -1.0, 1.0)
    for place, joint in enumerate(ADROIT_TASKS[task].arm):
        actions[:, place] = AWAY[task][joint]
    return actions


def model_text(task):
    """Return the MJCF of a task in one piece."""
    root = ET.parse(assets() / f"adroit_{task}.xml").getroot()
    for parent in list(root.iter()):
        for place, child in enumerate(list(parent)):
            if child.tag == "include":
                parent.remove(child)
                included = ET.parse(assets() / child.attrib["file"]).getroot()
                parent[place:place] = list(included)
    for compiler in root.iter("compiler"):
        for kind in ("meshdir", "texturedir"):
            compiler.set(kind, str(assets() / compiler.attrib[kind]))
    return ET.tostring(root, encoding="unicode")


def trajectory(task):
    """Return the positions (100, nq) after each control step."""
    model = load_model(task, "stock")
    simulation = Simulation(model_text(task), model.nq, model.nv, model.nu)
    simulation.set_state(model.qpos0, np.zeros(model.nv))
    low, high = model.actuator_ctrlrange.T
    found = []
    for action in scenario(task):
        simulation.step((low + high) / 2 + action * (high - low) / 2, PHYSICS_STEPS)
        found.append(simulation.qpos.copy())
    simulation.close()
    return np.array(found)


def main():
    np.savez_compressed(GOLDEN, **{task: trajectory(task) for task in ADROIT_TASKS})
    return 0


if __name__ == "__main__":
    sys.exit(main())
