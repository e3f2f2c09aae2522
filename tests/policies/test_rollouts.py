"""Scoring: whole episodes, as many as asked, none preferred for being short."""

import numpy as np
import pytest

from controller.types import VectorStep
from policies.rollouts import roll_out


class Uneven:
    """Copy c has episodes of c + 1 steps, numbered 0, 1, ... in their return."""

    def __init__(self, num):
        self.num = num

    def reset(self, seed=None):
        self.seed = seed
        self.step_of = np.zeros(self.num, int)
        self.episode = np.zeros(self.num, int)
        return np.zeros((self.num, 1))

    def step(self, actions):
        self.step_of += 1
        over = self.step_of == np.arange(self.num) + 1
        done = VectorStep(
            observations=np.zeros((self.num, 1)),
            next_observations=np.zeros((self.num, 1)),
            rewards=np.zeros(self.num),
            terminated=over & (np.arange(self.num) % 2 == 0),
            truncated=over & (np.arange(self.num) % 2 == 1),
            success=over & (self.episode == 1),
            episode_returns=10.0 * np.arange(self.num) + self.episode,
            episode_steps=self.step_of.copy(),
        )
        self.episode += over
        self.step_of[over] = 0
        return done


@pytest.mark.parametrize("episodes", [1, 3, 7])
def test_every_copy_runs_its_share(episodes):
    plants = Uneven(3)
    got = roll_out(plants, lambda seen: np.zeros((3, 1)), episodes, seed=5)
    assert plants.seed == 5
    shares = {1: [1, 0, 0], 3: [1, 1, 1], 7: [3, 2, 2]}[episodes]
    expected = sorted(10.0 * c + k for c, share in enumerate(shares) for k in range(share))
    assert sorted(got.returns.tolist()) == expected
    assert (got.lengths == got.returns // 10 + 1).all()
    assert (got.success == (got.returns % 10 == 1)).all()
