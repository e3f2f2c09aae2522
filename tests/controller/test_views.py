"""n-step returns and action chunks: by hand, and against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.controller.test_transitions import rows

KINDS = st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=30)


def of_kinds(kinds):
    return rows([k == 1 for k in kinds], [k == 2 for k in kinds])


def test_two_steps_by_hand():
    # Rewards 1 2 | 4 8 16 | 32 64; row 1 is terminal, row 4 cut by time, row 6 unfinished.
    data = rows([0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0])
    view = data.n_step(2, 0.5)
    assert view.rewards.tolist() == [2.0, 2.0, 8.0, 16.0, 16.0, 64.0, 64.0]
    assert view.last.tolist() == [1, 1, 3, 4, 4, 6, 6]
    assert view.discounts.tolist() == [0.0, 0.0, 0.25, 0.25, 0.5, 0.25, 0.5]


def test_one_step_is_the_transition_itself():
    data = rows([0, 1, 0], [0, 0, 1])
    view = data.n_step(1, 0.9)
    assert np.array_equal(view.rewards, data.rewards)
    assert view.last.tolist() == [0, 1, 2]
    assert view.discounts == pytest.approx([0.9, 0.0, 0.9])


@given(KINDS, st.integers(1, 35), st.floats(0.0, 1.0))
def test_n_steps_are_what_a_loop_gives(kinds, n, discount):
    data = of_kinds(kinds)
    view = data.n_step(n, discount)
    ends = data.terminals | data.timeouts
    for row in range(len(data)):
        total, last, taken = 0.0, row, 0
        while True:
            total += discount**taken * float(data.rewards[last])
            taken += 1
            if taken == n or ends[last] or last == len(data) - 1:
                break
            last += 1
        assert view.last[row] == last
        assert view.rewards[row] == pytest.approx(total, rel=1e-12)
        expected = 0.0 if data.terminals[last] else discount**taken
        assert view.discounts[row] == pytest.approx(expected, rel=1e-12)


def test_chunks_by_hand():
    data = rows([0, 0, 1, 0, 0], [0, 0, 0, 0, 1])
    view = data.chunks(2)
    assert view.whole.tolist() == [0, 1, 3]
    assert (view.windows[view.whole, :, 0] * 8).tolist() == [[0, 1], [1, 2], [3, 4]]
    actions, valid = view.take(np.arange(5))
    assert (actions[..., 0] * 8).tolist() == [[0, 1], [1, 2], [2, 2], [3, 4], [4, 4]]
    assert valid.tolist() == [[1, 1], [1, 1], [1, 0], [1, 1], [1, 0]]


def test_chunks_copy_nothing():
    data = rows([0] * 6, [0] * 6)
    view = data.chunks(3)
    assert np.shares_memory(view.windows, data.actions)
    assert view.windows.shape == (4, 3, 1)
    assert not view.windows.flags.writeable


@given(KINDS, st.integers(1, 12))
def test_chunks_never_cross_an_episode(kinds, horizon):
    data = of_kinds(kinds)
    view = data.chunks(horizon)
    every = np.arange(len(data))
    actions, valid = view.take(every)
    for row in every:
        own = data.actions[row : int(data.last_rows[row]) + 1][:horizon]
        assert valid[row].sum() == len(own)
        assert np.array_equal(actions[row][: len(own)], own)
        assert (actions[row][len(own) :] == own[-1]).all()
    assert view.whole.tolist() == np.flatnonzero(valid.all(axis=1)).tolist()
    assert np.array_equal(view.windows[view.whole], actions[view.whole])


@pytest.mark.parametrize("call", [lambda d: d.n_step(0, 0.9), lambda d: d.chunks(0)])
def test_looking_nowhere_is_refused(call):
    with pytest.raises(ValueError, match="is 0, expected at least 1"):
        call(rows([1], [0]))
