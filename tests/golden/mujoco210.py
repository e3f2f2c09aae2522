"""The MuJoCo 2.1.0 library through ctypes, for trajectories to compare with.

The library is not part of this repository. The wheel of the package ``free-mujoco-py`` 2.1.6
carries it. It is for Python up to 3.10; to have the file, say so:

    pip download free-mujoco-py==2.1.6 --no-deps --only-binary=:all: --python-version 3.10

Unpack the wheel and name ``.../mujoco210/bin/libmujoco210nogl.so`` in the environment variable
ONEBEAT_MUJOCO210. ``python -m tests.golden.mujoco210`` then writes the golden file anew.
"""

import ctypes
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

LIBRARY = os.environ.get("ONEBEAT_MUJOCO210", "")
GOLDEN = Path(__file__).parent / "mujoco210.npz"
STEPS = 200
ROBOTS = ("halfcheetah", "hopper", "walker2d", "ant", "antmaze")

# offsetof() in the headers of 2.1.0, 64-bit Linux.
QPOS, QVEL, CTRL = 40376, 40384, 40408


class Simulation:
    """One model in MuJoCo 2.1.0.

    Args:
        xml: MJCF text.
        nq, nv, nu: sizes of its state and controls.
    """

    def __init__(self, xml: str, nq: int, nv: int, nu: int):
        self._lib = lib = ctypes.CDLL(LIBRARY)
        lib.mj_loadXML.restype = lib.mj_makeData.restype = ctypes.c_void_p
        for name in ("mj_makeData", "mj_deleteModel", "mj_deleteData"):
            getattr(lib, name).argtypes = [ctypes.c_void_p]
        for name in ("mj_step", "mj_forward", "mj_resetData"):
            getattr(lib, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        error = ctypes.create_string_buffer(1000)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "model.xml"
            path.write_text(xml)
            self._model = lib.mj_loadXML(str(path).encode(), None, error, 1000)
        assert self._model, error.value.decode()
        self._data = lib.mj_makeData(self._model)
        self.qpos = self._view(QPOS, nq)
        self.qvel = self._view(QVEL, nv)
        self.ctrl = self._view(CTRL, nu)

    def set_state(self, qpos, qvel):
        self._lib.mj_resetData(self._model, self._data)
        self.qpos[:], self.qvel[:] = qpos, qvel
        self.forward()

    def forward(self):
        self._lib.mj_forward(self._model, self._data)

    def step(self, ctrl, steps):
        self.ctrl[:] = ctrl
        for _ in range(steps):
            self._lib.mj_step(self._model, self._data)

    def close(self):
        self._lib.mj_deleteData(self._data)
        self._lib.mj_deleteModel(self._model)

    def _view(self, offset, size):
        at = ctypes.cast(self._data + offset, ctypes.POINTER(ctypes.POINTER(ctypes.c_double)))
        return np.ctypeslib.as_array(at.contents, (size,))


def scenario(robot, model):
    """Return start (qpos, qvel) and 200 actions in [-1, 1] of the comparison."""
    random = np.random.RandomState(7 + ROBOTS.index(robot))
    qpos = model.qpos0 + random.uniform(-0.005, 0.005, model.nq)
    qvel = 0.01 * random.standard_normal(model.nv)
    return qpos, qvel, random.uniform(-1.0, 1.0, (STEPS, model.nu))


def model_text(robot):
    """Return the MJCF that both versions are given."""
    from sim.d4rl.antmaze import EVALUATION
    from sim.d4rl.antmaze_env import ant_in_maze
    from sim.d4rl.locomotion import ROBOTS as KNOWN
    from sim.d4rl.locomotion_env import assets

    if robot == "antmaze":
        return ant_in_maze(EVALUATION["umaze"])
    return (assets() / KNOWN[robot].model).read_text()


def control_of(robot):
    """Return (factor from action to control, physics steps of a control step)."""
    from sim.d4rl.locomotion import ROBOTS as KNOWN

    return (30.0, 5) if robot == "antmaze" else (1.0, KNOWN[robot].physics_steps)


def trajectory(robot, model):
    """Return the states (STEPS, nq + nv) that MuJoCo 2.1.0 goes through."""
    qpos, qvel, actions = scenario(robot, model)
    factor, steps = control_of(robot)
    simulation = Simulation(model_text(robot), model.nq, model.nv, model.nu)
    simulation.set_state(qpos, qvel)
    states = []
    for action in actions:
        simulation.step(factor * action, steps)
        states.append(np.concatenate([simulation.qpos, simulation.qvel]))
    simulation.close()
    return np.array(states)


def main():
    import mujoco

    states = {}
    for robot in ROBOTS:
        states[robot] = trajectory(robot, mujoco.MjModel.from_xml_string(model_text(robot)))
    np.savez_compressed(GOLDEN, **states)
    return 0


if __name__ == "__main__":
    sys.exit(main())
