"""Episodes, returns, digest and precision of transitions, by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import DataError
from controller.transitions import Transitions, concatenate


def rows(terminals, timeouts, dtype=np.float32):
    count = len(terminals)
    observations = np.arange(2 * count, dtype=dtype).reshape(count, 2)
    return Transitions(
        observations=observations,
        actions=np.arange(count, dtype=dtype)[:, None] / 8,
        rewards=2.0 ** np.arange(count, dtype=dtype),
        next_observations=observations + 2,
        terminals=np.array(terminals, bool),
        timeouts=np.array(timeouts, bool),
        layout=(("x", 2),),
        task="toy",
    )


def test_episodes_by_hand():
    # Rows 0 1T | 2 3 4x | 5 6 unfinished.
    data = rows([0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0])
    assert data.starts.tolist() == [0, 2, 5]
    assert data.lengths().tolist() == [2, 3, 2]
    assert data.episode.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert data.last_rows.tolist() == [1, 1, 4, 4, 4, 6, 6]
    assert data.episodes() == [slice(0, 2), slice(2, 5), slice(5, 7)]
    assert data.returns().tolist() == [3.0, 28.0, 96.0]


def test_an_end_in_the_last_row_begins_no_empty_episode():
    data = rows([0, 1], [0, 0])
    assert (data.starts.tolist(), data.lengths().tolist()) == ([0], [2])
    nothing = data.select(slice(0, 0))
    assert (len(nothing.starts), len(nothing.returns()), nothing.episodes()) == (0, 0, [])


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=40))
def test_episodes_partition_the_rows(kinds):
    data = rows([k == 1 for k in kinds], [k == 2 for k in kinds])
    covered = [row for place in data.episodes() for row in range(place.start, place.stop)]
    assert covered == list(range(len(kinds)))
    ends = data.terminals | data.timeouts
    for place in data.episodes():
        assert not ends[place.start : place.stop - 1].any()
        assert ends[place.stop - 1] or place.stop == len(kinds)
    assert data.returns() == pytest.approx([data.rewards[p].sum() for p in data.episodes()])


def test_returns_are_summed_in_double_precision():
    data = rows([0] * 3, [0] * 3)
    data.rewards[:] = [2.0**24, 1.0, 1.0]
    assert data.returns().tolist() == [2.0**24 + 2]


def test_the_digest_sees_every_column_and_no_memory_layout():
    data = rows([0, 1, 0], [0, 0, 1])
    turned = dataclasses.replace(data, observations=np.asfortranarray(data.observations))
    assert turned.digest() == data.digest()
    for name in ("observations", "actions", "rewards", "next_observations"):
        changed = dataclasses.replace(data, **{name: getattr(data, name) + 1})
        assert changed.digest() != data.digest(), name
    for name in ("terminals", "timeouts"):
        changed = dataclasses.replace(data, **{name: ~getattr(data, name)})
        assert changed.digest() != data.digest(), name
    # Computed once by hand: sha256 over the columns' bytes, in their order.
    assert data.digest() == "129b668aecc24501"


def test_single_precision_shares_what_is_so_already():
    double = rows([0, 1], [0, 0], np.float64)
    single = double.single()
    assert {getattr(single, n).dtype for n in ("observations", "actions", "rewards")} == {
        np.dtype(np.float32)
    }
    assert single.terminals is double.terminals
    assert single.single().observations is single.observations


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations"])
def test_values_that_are_not_finite_are_refused_unless_they_are_asked_for(name, value):
    data = rows([0, 0, 1], [0, 0, 0])
    getattr(data, name)[1] = value
    with pytest.raises(DataError, match=f"here: {name} is not finite in 1 of 3 rows, .* row 1"):
        data.validate("here")
    assert data.validate("here", finite=False) is data


def test_joining_closes_what_was_unfinished():
    joined = concatenate([rows([0, 0], [0, 0]), rows([0, 1], [0, 0])])
    assert joined.starts.tolist() == [0, 2]
    assert joined.timeouts.tolist() == [False, True, False, False]
