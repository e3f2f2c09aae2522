"""A random walk that ends where it leaves a corridor: an environment for tests."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from controller.spec import ArraySpec, Spec

SPEC = Spec(
    "walk",
    (ArraySpec("place", (2,)), ArraySpec("goal", (1,))),
    ArraySpec("action", (2,), "float64", low=(-1.0, -0.5), high=(1.0, 0.5)),
    10.0,
)
WIDTH = 3.0


class Walk:
    """Moves by the action and by noise of its own; ends where |x| > 3; succeeds where y > 1."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.model = SimpleNamespace()
        warning = SimpleNamespace(number=np.zeros(8, np.int32))
        self.data = SimpleNamespace(qpos=np.zeros(2), qvel=np.zeros(2), warning=warning)
        self.seen: list[np.ndarray] = []
        self._broken_at = broken_at

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.steps = 0
        self.data.qpos = self.random.uniform(-1, 1, 2)
        self.data.qvel = np.zeros(2)
        return self._observe(), {}

    def step(self, action):
        assert action.shape == (2,)
        assert action.dtype == np.float64
        self.seen.append(action)
        self.steps += 1
        self.data.qvel[:] = action + 0.3 * self.random.standard_normal(2)
        self.data.qpos += self.data.qvel
        reward = float("nan") if self.steps == self._broken_at else self.data.qpos.sum()
        ended = bool(abs(self.data.qpos[0]) > WIDTH)
        return self._observe(), reward, ended, False, {"success": self.data.qpos[1] > 1}

    def close(self):
        pass

    def _observe(self):
        return {"goal": np.array([WIDTH]), "place": self.data.qpos}
