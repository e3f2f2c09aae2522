"""The reward of the arm."""

import mujoco
import numpy as np

REACHED_M = 0.02


def reach(
    model: mujoco.MjModel, data: mujoco.MjData, action: np.ndarray
) -> tuple[float, bool, bool]:
    """Return (reward, terminated, success): the nearer the hand to the target, the better."""
    distance = float(np.linalg.norm(data.site("hand").xpos - data.body("target").xpos))
    effort = 0.1 * float(action @ action)
    return -distance - effort, False, distance < REACHED_M
