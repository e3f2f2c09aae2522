"""The environments behind ``sim.d4rl.adroit``.

Places are taken as MuJoCo left them after the last physics step, before it integrated: they are
2 ms older than the joint positions, in observations and rewards alike, as in D4RL.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.types import Array
from sim.d4rl.adroit import ADROIT_TASKS, PHYSICS_STEPS
from sim.env import quiet_import

Floats = NDArray[np.float64]

PHYSICS = ("mujoco210", "stock")
"""Contacts as in MuJoCo 2.1.0 as far as they can be had, or those of the installed version."""
ITERATIONS = 50
"""Of the search for a contact of two convex shapes, in 2.1.0."""


def assets() -> Path:
    """Return the directory of gymnasium-robotics' models of the hand."""
    with quiet_import():
        import gymnasium_robotics
    return Path(gymnasium_robotics.__file__).parent / "envs" / "assets" / "adroit_hand"


def load_model(task: str, physics: str) -> Any:  # noqa: ANN401
    """Return the compiled model of a task.

    Raises:
        ConfigError: no such physics.
    """
    if physics not in PHYSICS:
        raise ConfigError(f"physics: {physics!r} is unknown; {nearest(physics, PHYSICS)}")
    model = mujoco.MjModel.from_xml_path(str(assets() / f"adroit_{task}.xml"))
    if physics == "mujoco210":
        _contacts_of_210(model)
    return model


def _contacts_of_210(model: Any) -> None:  # noqa: ANN401
    """Give a model the contacts of MuJoCo 2.1.0, in place.

    Two margins add up today, where the larger one counted. Every geom but hammer's board has the
    same margin, and nothing but those others can touch the board: half the margin for all, the
    board included, adds up to what was the larger one in every pair.
    """
    model.geom_margin[:] = model.geom_margin.max() / 2.0
    new = mujoco.mjtDisableBit
    model.opt.disableflags |= int(new.mjDSBL_NATIVECCD) | int(new.mjDSBL_MULTICCD)
    model.opt.ccd_iterations = ITERATIONS


class AdroitEnv:
    """One of the four tasks.

    Args:
        task: key of ``ADROIT_TASKS``.
        physics: of ``PHYSICS``.

    Attributes:
        model: the ``mujoco.MjModel``; what a reset draws is written into it.
        data: the ``mujoco.MjData``.
        between: see :class:`sim.env.Substepped`.
    """

    def __init__(self, task: str, physics: str = "mujoco210") -> None:
        self.model = load_model(task, physics)
        self.data = mujoco.MjData(self.model)
        self.between: Callable[[], Array] | None = None
        self._random = np.random.default_rng()
        low, high = self.model.actuator_ctrlrange.T
        self._middle, self._reach = (low + high) / 2.0, (high - low) / 2.0
        self._ctrl = self.data.ctrl
        self._scene = SCENES[task](self.model, self.data, len(ADROIT_TASKS[task].observed))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode with the hand at rest and the scene drawn anew."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        places = self._scene.draw(self._random)
        observation = self.set_state(self.model.qpos0, np.zeros(self.model.nv), places)
        return observation, {"success": False}

    def set_state(self, qpos: Floats, qvel: Floats, places: Mapping[str, Floats]) -> Floats:
        """Begin an episode in a given state; return its observation.

        Args:
            qpos: joint positions.
            qvel: joint velocities.
            places: what stands where, by D4RL's names: ``desired_orien`` (4,) of pen,
                ``door_body_pos``, ``board_pos`` of hammer, ``obj_pos`` and ``target_pos`` of
                relocate, each (3,). What is not named stays where it is.
        """
        mujoco.mj_resetData(self.model, self.data)
        for name, place in places.items():
            self._scene.places[name][:] = place
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)
        self._scene.begin()
        return self._scene.observe()

    def step(self, action: Array) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Move the joints' targets to an action (A,), clipped to [-1, 1]."""
        self._drive(action)
        if self.between is None:
            mujoco.mj_step(self.model, self.data, PHYSICS_STEPS)
        else:
            mujoco.mj_step(self.model, self.data)
            for _ in range(PHYSICS_STEPS - 1):
                self._drive(self.between())
                mujoco.mj_step(self.model, self.data)
        observation = self._scene.observe()
        reward, terminated, achieved = self._scene.judge()
        return observation, reward, terminated, False, {"success": achieved}

    def close(self) -> None:
        """Release nothing."""

    def _drive(self, action: Array) -> None:
        np.multiply(np.minimum(np.maximum(action, -1.0), 1.0), self._reach, out=self._ctrl)
        self._ctrl += self._middle


class Scene(ABC):
    """What tells one task from another; base of the four.

    Args:
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``.
        size: of the observation.

    Attributes:
        places: views of what the task places at a reset.
    """

    def __init__(self, model: Any, data: Any, size: int) -> None:  # noqa: ANN401
        self.places: dict[str, Floats] = {}
        self._qpos, self._qvel = data.qpos, data.qvel
        self._palm = data.site("S_grasp").xpos
        self._shown = np.zeros(size)

    @abstractmethod
    def draw(self, random: np.random.Generator) -> dict[str, Floats]:
        """Return where to place what an episode begins with."""

    def begin(self) -> None:  # noqa: B027
        """Take the measures of a scene that has been placed; most have none to take."""

    @abstractmethod
    def observe(self) -> Floats:
        """Return the observation, a buffer that the next call overwrites."""

    @abstractmethod
    def judge(self) -> tuple[float, bool, bool]:
        """Return reward, whether the task ended, whether the goal is achieved."""


class Pen(Scene):
    """Reward: cos - d, with the distance d of the pen to its place and the cosine to its target.

    While d < 0.075, 10 more for cos > 0.9, and 50 more for cos > 0.95. The step that drops the
    pen costs 5 and ends the episode.
    """

    def __init__(self, model: Any, data: Any, size: int) -> None:  # noqa: ANN401
        super().__init__(model, data, size)
        self.places["desired_orien"] = model.body("target").quat
        self._pen, self._place = data.body("Object").xpos, data.site("eps_ball").xpos
        self._ends = [data.site(f"object_{end}").xpos for end in ("top", "bottom")]
        self._targets = [data.site(f"target_{end}").xpos for end in ("top", "bottom")]
        self._length = self._target_length = 1.0

    def draw(self, random: np.random.Generator) -> dict[str, Floats]:
        """Turn the target by up to 1 rad about x and about y."""
        roll, pitch = (0.5 * random.uniform(-1.0, 1.0) for _ in range(2))
        (sx, cx), (sy, cy) = ((math.sin(a), math.cos(a)) for a in (roll, pitch))
        return {"desired_orien": np.array([cy * cx, cy * sx, sy * cx, sy * sx])}

    def begin(self) -> None:
        """Measure the pen and its target, whose directions are to be unit vectors."""
        self._length = _norm(self._ends[0] - self._ends[1])
        self._target_length = _norm(self._targets[0] - self._targets[1])

    def observe(self) -> Floats:
        """Return joints, pen, velocities, directions, and what is missing."""
        shown, pen = self._shown, self._pen
        shown[:24] = self._qpos[:24]
        shown[24:27] = pen
        shown[27:33] = self._qvel[24:]
        shown[33:36] = (self._ends[0] - self._ends[1]) / self._length
        shown[36:39] = (self._targets[0] - self._targets[1]) / self._target_length
        shown[39:42] = pen - self._place
        shown[42:45] = shown[33:36] - shown[36:39]
        return shown

    def judge(self) -> tuple[float, bool, bool]:
        """Judge the observation last returned."""
        distance = _norm(self._shown[39:42])
        cosine = float(self._shown[33:36] @ self._shown[36:39])
        near, reward = distance < 0.075, cosine - distance
        if near and cosine > 0.9:
            reward += 10.0
        if near and cosine > 0.95:
            reward += 50.0
        dropped = bool(self._pen[2] < 0.075)
        return reward - 5.0 * dropped, dropped, near and cosine > 0.95


class Door(Scene):
    """Reward: -0.1 |palm - handle| - 0.1 (θ - 1.57)² - 1e-5 |q̇|², with the angle θ of the door.

    2 more for θ > 0.2, 8 more for θ > 1, 10 more for θ > 1.35.
    """

    def __init__(self, model: Any, data: Any, size: int) -> None:  # noqa: ANN401
        super().__init__(model, data, size)
        self.places["door_body_pos"] = model.body("frame").pos
        self._handle = data.site("S_handle").xpos

    def draw(self, random: np.random.Generator) -> dict[str, Floats]:
        """Put the door somewhere in a box of 10 cm."""
        sides = ((-0.3, -0.2), (0.25, 0.35), (0.252, 0.35))
        return {"door_body_pos": np.array([random.uniform(*side) for side in sides])}

    def observe(self) -> Floats:
        """Return joints, latch, door, palm, handle, and whether it is open."""
        shown = self._shown
        shown[:27] = self._qpos[1:28]
        shown[27], shown[28] = self._qpos[29], self._qpos[28]
        shown[29:32], shown[32:35] = self._palm, self._handle
        np.subtract(self._palm, self._handle, out=shown[35:38])
        shown[38] = 1.0 if shown[28] > 1.0 else -1.0
        return shown

    def judge(self) -> tuple[float, bool, bool]:
        """Judge the observation last returned."""
        angle = float(self._shown[28])
        reward = -0.1 * _norm(self._shown[35:38]) - 0.1 * (angle - 1.57) ** 2
        reward -= 1e-5 * float(self._qvel @ self._qvel)
        for threshold, bonus in ((0.2, 2.0), (1.0, 8.0), (1.35, 10.0)):
            if angle > threshold:
                reward += bonus
        return reward, False, angle >= 1.35


class Hammer(Scene):
    """Reward: -0.1 |palm - hammer| - |head - nail| - 10 |nail - goal| - 0.01 |q̇|.

    2 more while hammer and head are above 4 cm; 25 more for a nail within 2 cm of its goal, and
    75 more within 1 cm.
    """

    def __init__(self, model: Any, data: Any, size: int) -> None:  # noqa: ANN401
        super().__init__(model, data, size)
        self.places["board_pos"] = model.body("nail_board").pos
        hammer = data.body("Object")
        self._hammer, self._turned = hammer.xpos, hammer.xmat
        self._head, self._nail = data.site("tool").xpos, data.site("S_target").xpos
        self._goal, self._impact = data.site("nail_goal").xpos, data.sensor("S_nail").data

    def draw(self, random: np.random.Generator) -> dict[str, Floats]:
        """Lift the board to between 10 and 25 cm."""
        x, y, _ = self.places["board_pos"]
        return {"board_pos": np.array([x, y, random.uniform(0.1, 0.25)])}

    def observe(self) -> Floats:
        """Return joints, velocities of the hammer, palm, hammer, nail, and force on it."""
        shown = self._shown
        shown[:27] = self._qpos[:27]
        np.minimum(np.maximum(self._qvel[27:], -1.0), 1.0, out=shown[27:33])
        shown[33:36], shown[36:39] = self._palm, self._hammer
        shown[39:42] = euler(self._turned)
        shown[42:45] = self._nail
        shown[45] = min(max(float(self._impact[0]), -1.0), 1.0)
        return shown

    def judge(self) -> tuple[float, bool, bool]:
        """Judge the present state."""
        missing = _norm(self._nail - self._goal)
        reward = -0.1 * _norm(self._palm - self._hammer) - _norm(self._head - self._nail)
        reward -= 10.0 * missing + 0.01 * _norm(self._qvel)
        if self._hammer[2] > 0.04 and self._head[2] > 0.04:
            reward += 2.0
        if missing < 0.02:
            reward += 25.0
        if missing < 0.01:
            reward += 75.0
        return reward, False, missing < 0.01


class Relocate(Scene):
    """Reward: -0.1 |palm - ball|.

    Above 4 cm, 1 - 0.5 |palm - target| - 0.5 |ball - target| more; 10 more for a ball within
    10 cm of the target, and 20 more within 5 cm.
    """

    def __init__(self, model: Any, data: Any, size: int) -> None:  # noqa: ANN401
        super().__init__(model, data, size)
        self.places["obj_pos"] = model.body("Object").pos
        self.places["target_pos"] = model.site("target").pos
        self._ball, self._target = data.body("Object").xpos, data.site("target").xpos

    def draw(self, random: np.random.Generator) -> dict[str, Floats]:
        """Put the ball on the table and the target above it."""
        ball = [random.uniform(-0.15, high) for high in (0.15, 0.3)]
        sides = ((-0.2, 0.2), (-0.2, 0.2), (0.15, 0.35))
        target = np.array([random.uniform(*side) for side in sides])
        return {"obj_pos": np.array([*ball, self.places["obj_pos"][2]]), "target_pos": target}

    def observe(self) -> Floats:
        """Return joints, and the offsets between palm, ball and target."""
        shown = self._shown
        shown[:30] = self._qpos[:30]
        np.subtract(self._palm, self._ball, out=shown[30:33])
        np.subtract(self._palm, self._target, out=shown[33:36])
        np.subtract(self._ball, self._target, out=shown[36:39])
        return shown

    def judge(self) -> tuple[float, bool, bool]:
        """Judge the observation last returned."""
        shown = self._shown
        missing = _norm(shown[36:39])
        reward = -0.1 * _norm(shown[30:33])
        if self._ball[2] > 0.04:
            reward += 1.0 - 0.5 * _norm(shown[33:36]) - 0.5 * missing
        if missing < 0.1:
            reward += 10.0
        if missing < 0.05:
            reward += 20.0
        return reward, False, missing < 0.1


SCENES: dict[str, Callable[[Any, Any, int], Scene]] = {
    "pen": Pen,
    "door": Door,
    "hammer": Hammer,
    "relocate": Relocate,
}


def euler(matrix: Floats) -> tuple[float, float, float]:
    """Return the angles (3,) of D4RL's ``quat2euler``, from the rotation matrix (9,), row by row.

    The rotation is Rx(a) Ry(b) Rz(c). Within 1e-15 of b = ±π/2, a is 0.
    """
    xx, xy, xz, yx, yy, yz, _, _, zz = matrix.tolist()
    upright = math.hypot(zz, yz)
    b = math.atan2(xz, upright)
    if upright > 4.0 * np.finfo(np.float64).eps:
        return -math.atan2(yz, zz), b, -math.atan2(xy, xx)
    return 0.0, b, math.atan2(yx, yy)


def _norm(x: Floats) -> float:
    return math.sqrt(x @ x)
