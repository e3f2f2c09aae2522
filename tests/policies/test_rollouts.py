"""Scoring: whole episodes, as many as asked, none preferred for being short."""

import numpy as np
import pytest

from controller.types import VectorStep
from policies.rollouts import Executor, roll_out


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


class Numbered:
    """Answers with chunks whose rows say: which answer it is, which row, for which observation."""

    def __init__(self, horizon):
        self.horizon, self.calls = horizon, []

    def __call__(self, observations):
        self.calls.append(observations[:, 0].tolist())
        rows = [
            [[len(self.calls), row, seen] for row in range(self.horizon)]
            for seen in observations[:, 0]
        ]
        return np.array(rows, float)


def test_rows_are_executed_in_their_order_and_then_the_next_answer():
    ask = Numbered(4)
    act = Executor(ask, 2, execute=3)
    seen = [np.array([[float(t)], [10.0 + t]]) for t in range(5)]
    got = [act(each).tolist() for each in seen]
    assert ask.calls == [[0.0, 10.0], [3.0, 13.0]]
    assert [first[:2] for first, _ in got] == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]
    assert [second[2] for _, second in got] == [10, 10, 10, 13, 13]


def test_an_episode_begins_with_an_answer_of_its_own():
    ask = Numbered(4)
    act = Executor(ask, 3, execute=4)
    act(np.zeros((3, 1)))
    act.begin(np.array([False, True, False]))
    got = act(np.array([[5.0], [6.0], [7.0]]))
    assert ask.calls == [[0.0, 0.0, 0.0], [6.0]]
    assert got.tolist() == [[1, 1, 0], [2, 0, 6], [1, 1, 0]]
    # Copy 1 is one row behind from now on, and asks one step later.
    for step in range(2):
        act(np.full((3, 1), 10.0 + step))
    act(np.full((3, 1), 20.0))
    assert ask.calls[2:] == [[20.0, 20.0]]
    act(np.full((3, 1), 21.0))
    assert ask.calls[3:] == [[21.0]]


@pytest.mark.parametrize("execute", [1, 2, 5])
def test_what_was_handed_out_is_not_written_over(execute):
    act = Executor(Numbered(5), 2, execute)
    first = act(np.zeros((2, 1)))
    before = first.copy()
    for step in range(7):
        act(np.full((2, 1), float(step)))
    assert np.array_equal(first, before)


def test_every_episode_of_a_roll_out_begins_with_an_answer_of_its_own():
    plants, ask = Uneven(3), Numbered(100)
    act = Executor(ask, 3, execute=100)
    taken = []

    def watched(observations):
        # What a copy is given in step k of an episode is row k of an answer.
        taken.append((act(observations)[:, 1] == plants.step_of).all())
        return np.zeros((3, 1))

    roll_out(plants, watched, 7, seed=0, on_begin=act.begin)
    assert all(taken)
    # Copy 0 begins an episode in each step, so that somebody asks in each.
    assert len(ask.calls) == len(taken)
