"""Copies of robots so simple that the best policy is known in closed form."""

from __future__ import annotations

import numpy as np

from controller.spec import ArraySpec, Spec
from controller.types import VectorStep


class AnalyticVector:
    """Copies of a point on a line; see the subclasses for what it does.

    Args:
        num: N.
        length: steps of an episode.
        limit: of the action, to both sides.
    """

    name = "line"
    ends = False

    def __init__(self, num=4, length=20, limit=1.0):
        self.num, self.length = num, length
        self.spec = Spec(
            task=self.name,
            observation=(ArraySpec("x", (1,)), ArraySpec("one", ())),
            action=ArraySpec("u", (1,), "float32", "", (-limit,), (limit,)),
            rate_hz=10.0,
        )
        self.resets = []
        self.actions = []
        self.closed = False
        self._rng = np.random.default_rng(0)

    def reset(self, seed=None):
        self.resets.append(seed)
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.x = self._rng.uniform(-1, 1, self.num)
        self.steps = np.zeros(self.num, np.int64)
        self.returns = np.zeros(self.num)
        return self._observe(self.x)

    def step(self, actions):
        assert actions.shape == (self.num, 1)
        assert actions.dtype == np.float32
        self.actions.append(actions)
        u = actions[:, 0].astype(np.float64)
        rewards = self.reward(self.x, u)
        after = self.move(self.x, u)
        self.steps += 1
        self.returns += rewards
        over = self.steps == self.length
        done = VectorStep(
            observations=self._observe(np.where(over, 0.0, after)),
            next_observations=self._observe(after),
            rewards=rewards,
            terminated=over & self.ends,
            truncated=over & (not self.ends),
            success=np.zeros(self.num, np.bool_),
            episode_returns=self.returns.copy(),
            episode_steps=self.steps.copy(),
        )
        self.x = np.where(over, self._rng.uniform(-1, 1, self.num), after)
        done.observations[:, 0] = self.x
        self.steps[over] = 0
        self.returns[over] = 0.0
        return done

    def close(self):
        self.closed = True

    def _observe(self, x):
        return np.stack([x, np.ones(self.num)], 1)


class OneStep(AnalyticVector):
    """One step: reward -(u/2 - x/2)², where u/2 is the action in network units.

    With temperature α the soft optimum is π(a|x) ~ exp(-(a - x/2)²/α): a Gaussian around x/2
    with variance α/2, as long as that is well within [-1, 1].
    """

    name = "one-step"
    ends = True

    def __init__(self, num=4):
        super().__init__(num, length=1, limit=2.0)

    def reward(self, x, u):
        return -np.square(u / 2.0 - x / 2.0)

    def move(self, x, u):
        return x


class Regulator(AnalyticVector):
    """x' = x + 0.5 u, reward -(x² + 0.1 u²), cut by time: the best action is -k x."""

    name = "regulator"
    B, R = 0.5, 0.1

    def reward(self, x, u):
        return -(np.square(x) + self.R * np.square(u))

    def move(self, x, u):
        return x + self.B * u

    def gain(self, discount):
        """Return k, from the discounted Riccati equation iterated to its fixed point."""
        p = 1.0
        for _ in range(1000):
            k = discount * p * self.B / (self.R + discount * p * self.B**2)
            p = 1.0 + self.R * k**2 + discount * p * (1.0 - self.B * k) ** 2
        return k
