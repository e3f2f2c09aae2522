"""Watching a simulation for the moment it breaks down, and keeping what led there.

MuJoCo does not raise when a state becomes NaN or larger than 1e10: it prints a warning, resets
the state to the model's initial one and goes on, so that an episode continues with a jump. Here
its warning counters are looked at after every step, beside the observation and the reward.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from controller.safety import is_finite
from controller.spec import ArraySpec
from controller.types import Array
from sim.env import Env, Simulated

logger = logging.getLogger(__name__)

KEPT = 200
"""Control steps of which the states are kept."""

SHORT = 16
"""Length up to which Python's sum is cheaper than a dot product."""


class StabilityWatch:
    """The last states of one environment, and whether its physics still holds.

    Both calls of a step together cost 0.6 µs, 1.0 µs between two steps of physics: the state is
    kept as bytes, which is half the price of writing rows of an array, and one sum is taken.

    Args:
        env: the environment; one that is ``Simulated`` has its state recorded and its warnings
            watched, of any other the actions are kept.
        observation: what it observes.
    """

    def __init__(self, env: Env, observation: Sequence[ArraySpec]) -> None:
        self._env = env
        self._simulated: bool | None = None
        self._data: Any = None
        self._warnings: Any = [0, 0, 0]
        self._qpos: Callable[[], bytes] = bytes
        self._qvel: Callable[[], bytes] = bytes
        self._kept: deque[tuple[bytes, bytes, Array]] = deque(maxlen=KEPT)
        flat = all(len(array.shape) == 1 and array.dtype != "uint8" for array in observation)
        self._short = flat and all(array.size <= SHORT for array in observation)
        self._long = flat and not self._short

    def begin(self) -> None:
        """Forget the episode before; to be called after each reset."""
        self._kept.clear()
        if self._simulated is None:
            self._simulated = isinstance(self._env, Simulated)
        if self._simulated:
            self._attach(cast("Simulated", self._env).data)

    def note(self, action: Array) -> None:
        """Keep the state as it is and the action that it meets; to be called before each step.

        The action is kept by reference: it must not be written to afterwards.
        """
        self._kept.append((self._qpos(), self._qvel(), action))

    def trouble(self, arrays: tuple[Array, ...], reward: float) -> bool:
        """Return whether the step that was just made broke the simulation."""
        bad = self._warnings
        if bad[0] or bad[1] or bad[2]:
            return True
        total = reward
        if self._short:
            for array in arrays:
                total = sum(array.tolist(), total)
        elif self._long:
            for array in arrays:
                total += float(array.dot(array))
        else:
            total = math.nan
        # A sum may overflow where all is well.
        return not math.isfinite(total) and not (
            math.isfinite(reward) and all(map(is_finite, arrays))
        )

    @property
    def given_up(self) -> bool:
        """Whether MuJoCo gave the state up and went on from the model's initial one."""
        return any(self._warnings)

    def why(self) -> str:
        """Return in words what broke."""
        names = zip(("qpos", "qvel", "qacc"), self._warnings, strict=True)
        bad = [name for name, count in names if count]
        if bad:
            return f"NaN, infinite or huge {' and '.join(bad)}"
        return "the observation or the reward is not finite"

    def states(self, step: int) -> dict[str, Array]:
        """Return the kept rows, oldest first; the last action is the one that did it.

        Column ``step`` is the number of control steps since the reset at which a row was kept.

        Args:
            step: number of the step that did it, from 1.
        """
        columns: dict[str, Array] = {
            "step": np.arange(step - len(self._kept), step),
            "action": np.array([action for _, _, action in self._kept]),
        }
        if self._data is not None:
            columns["qpos"] = np.array([np.frombuffer(qpos) for qpos, _, _ in self._kept])
            columns["qvel"] = np.array([np.frombuffer(qvel) for _, qvel, _ in self._kept])
        return columns

    def _attach(self, data: Any) -> None:  # noqa: ANN401
        if data is not self._data:
            import mujoco

            kinds = mujoco.mjtWarning
            first = int(kinds.mjWARN_BADQPOS)
            assert (int(kinds.mjWARN_BADQVEL), int(kinds.mjWARN_BADQACC)) == (first + 1, first + 2)
            # Else the library prints, and writes MUJOCO_LOG.TXT into the working directory.
            mujoco.set_mju_user_warning(logger.debug)
            self._data = data
            self._qpos, self._qvel = data.qpos.tobytes, data.qvel.tobytes
            self._warnings = memoryview(data.warning.number[first : first + 3])
        # An environment may reset without clearing them.
        self._warnings[0] = self._warnings[1] = self._warnings[2] = 0


def dump(columns: Mapping[str, Array], directory: Path, name: str) -> str:
    """Write columns to ``directory/unstable-NAME.npz`` under a free name; say where they are.

    Returns:
        One phrase: where the states are, or why they are nowhere.
    """
    stem = "unstable-" + re.sub(r"[^\w.-]+", "-", name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = directory / (f"{stem}-{number}.npz" if number > 1 else f"{stem}.npz")
            try:
                with path.open("xb") as file:
                    np.savez(file, **columns)  # type: ignore[arg-type]
            except FileExistsError:
                continue
            count = len(columns["step"])
            return f"the {count} states before it are in {path}"
    except OSError as error:
        return f"the states before it could not be written: {error}"
    return f"the states before it were not written: {directory} is full of {stem}-*.npz"
