"""Data for learning: what is refused, what is done to rewards, and which numbers a batch has."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import DataError
from controller.spec import ArraySpec
from policies import codec
from policies.learning import RewardSettings
from policies.table import Table, require_fit, tuned
from tests.policies.robots import SPEC, toy_data

NONE = RewardSettings()


def table_of(data, reward=NONE, **options):
    return Table(data, codec.fit(data, SPEC, **options), reward)


def test_a_batch_has_the_encoded_rows_that_were_asked_for():
    data = toy_data(200)
    made = codec.fit(data, SPEC, ("position", "target"))
    table = Table(data, made, NONE)
    assert len(table) == 200
    rows = np.array([[3, 49, 98, 99], [0, 199, 7, 7]])
    batch = table.take(torch.from_numpy(rows))
    for run, chosen in enumerate(rows):
        expected = {
            "condition": made.encode_observation(data.observations[chosen]),
            "next_condition": made.encode_observation(data.next_observations[chosen]),
            "action": made.encode_action(data.actions[chosen]),
            "reward": data.rewards[chosen].astype(np.float32),
            "alive": ~data.terminals[chosen],
        }
        for name, column in expected.items():
            assert np.array_equal(getattr(batch, name)[run].numpy(), column), name
    # Episodes of 50 rows: the first ends in a terminal, the next in a timeout.
    assert batch.alive[0].tolist() == [1, 0, 1, 1]
    following = made.encode_action(data.actions[[4, 99]])
    assert np.array_equal(batch.next_action[0, [0, 2]].numpy(), following)
    assert not batch.next_action[0, [1, 3]].any()
    assert not batch.next_action[1, 1].any()


def test_one_run_gives_the_same_numbers_as_several():
    table = table_of(toy_data(100))
    rows = torch.arange(12).view(3, 4)
    together = table.take(rows)
    for run in range(3):
        alone = table.take(rows[run : run + 1])
        for name, column in vars(alone).items():
            assert torch.equal(column[0], getattr(together, name)[run]), name


def test_chunks_by_hand():
    # Row r has the action r / 100, in episodes of 50, 50 and 20 rows.
    data = toy_data(120)
    data.actions[:] = np.arange(120)[:, None] / 100
    made = codec.fit(data, SPEC)
    table = Table(data, made, NONE, horizon=4)
    rows = torch.tensor([[0, 47], [48, 49], [50, 118]])
    got = made.decode_chunk(table.take(rows).action.reshape(6, 8).numpy())
    expected = np.array(
        [[0, 1, 2, 3], [47, 48, 49, 49], [48, 49, 49, 49], [49] * 4, [50, 51, 52, 53],
         [118, 119, 119, 119]]
    )  # fmt: skip
    assert np.allclose(got, expected[..., None] / 100)


@given(st.integers(1, 60), st.integers(1, 130))
def test_a_chunk_is_the_view_of_the_transitions_encoded(horizon, rows):
    data = toy_data(rows)
    made = codec.fit(data, SPEC)
    every = np.arange(rows)
    chunks, _ = data.chunks(horizon).take(every)
    got = Table(data, made, NONE, horizon=horizon).take(torch.from_numpy(every[None]))
    assert got.action.shape == (1, rows, 2 * horizon)
    assert np.array_equal(got.action[0].numpy(), made.encode_chunk(chunks))
    alone = Table(data, made, NONE).take(torch.from_numpy(every[None]))
    for name in vars(alone).keys() - {"action"}:
        assert torch.equal(getattr(got, name), getattr(alone, name)), name


def test_observations_stay_as_they_are_where_that_is_asked_for():
    data = toy_data(100)
    batch = table_of(data, normalise=False).take(torch.arange(100)[None])
    assert np.array_equal(batch.condition[0].numpy(), data.observations.astype(np.float32))


def test_rewards_as_they_are():
    data = toy_data(60)
    assert np.array_equal(tuned(data, NONE), data.rewards.astype(np.float32))


def test_normalised_rewards_have_mean_0_and_deviation_1():
    got = tuned(toy_data(600), RewardSettings("normalise")).astype(np.float64)
    assert got.mean() == pytest.approx(0.0, abs=1e-6)
    assert got.std() == pytest.approx(1.0, abs=1e-6)


def test_locomotion_rewards_by_hand():
    # Episodes of 50 rows with returns 50, 150 and 100: the spread is 100.
    rewards = np.repeat([1.0, 3.0, 2.0], 50)
    got = tuned(replace(toy_data(150), rewards=rewards), RewardSettings("locomotion"))
    assert got[[0, 50, 100]].tolist() == [10.0, 30.0, 20.0]


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [(4.0, -2.0, [-2.0, 2.0]), (1.0, -1.0, [-1.0, 0.0]), (2.0, -0.5, [-0.5, 1.5])],
)
def test_the_mazes_rewards_by_hand(scale, shift, expected):
    data = replace(toy_data(50), rewards=np.arange(50) % 2.0)
    got = tuned(data, RewardSettings("linear", scale=scale, shift=shift))
    assert got[:2].tolist() == expected


@pytest.mark.parametrize(
    ("tune", "named"), [("normalise", "rewards"), ("locomotion", "returns of the episodes")]
)
def test_rewards_that_never_differ_cannot_be_scaled(tune, named):
    data = replace(toy_data(100), rewards=np.ones(100))
    with pytest.raises(DataError, match=f"the {named} are all the same"):
        tuned(data, RewardSettings(tune))


def test_numbers_beyond_float32_are_named():
    data = toy_data(100)
    rewards = data.rewards.copy()
    rewards[7] = 1e300
    with pytest.raises(DataError, match="1 of 100 rows, first row 7, have numbers too large"):
        table_of(replace(data, rewards=rewards))
    with pytest.raises(DataError, match="too large for float32"):
        table_of(data, RewardSettings("linear", scale=1e40))


def test_fewer_rows_than_a_batch():
    with pytest.raises(DataError, match=r"31 rows, fewer than a batch of 32: lower optimiser"):
        require_fit(toy_data(31), SPEC, 32, clip=False)
    assert len(require_fit(toy_data(32), SPEC, 32, clip=False)) == 32


def test_data_of_another_robot():
    other = msgspec.structs.replace(SPEC, observation=SPEC.observation[:2])
    with pytest.raises(DataError, match="expected those of toy: position"):
        require_fit(toy_data(), other, 32, clip=False)
    wide = msgspec.structs.replace(SPEC, action=ArraySpec("force", (3,)))
    with pytest.raises(DataError, match="2 actions, expected those of toy"):
        require_fit(toy_data(), wide, 32, clip=False)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named_with_their_row(name, value):
    data = toy_data(100)
    column = getattr(data, name).copy()
    column[12] = value
    with pytest.raises(
        DataError, match=f"toy: {name} is not finite in 1 of 100 rows, first in row 12"
    ):
        require_fit(replace(data, **{name: column}), SPEC, 32, clip=True)


def test_actions_that_never_change_teach_nothing():
    data = replace(toy_data(100), actions=np.full((100, 2), 0.5, np.float32))
    with pytest.raises(DataError, match="the same in every row"):
        require_fit(data, SPEC, 32, clip=False)


def test_one_action_that_never_changes_is_learned_as_it_is():
    data = toy_data(100)
    actions = data.actions.copy()
    actions[:, 1] = 0.5
    data = require_fit(replace(data, actions=actions), SPEC, 32, clip=False)
    batch = table_of(data).take(torch.arange(100)[None])
    assert torch.equal(batch.action[0, :, 1], torch.full((100,), 0.25))


def test_an_observation_that_never_changes_encodes_to_a_finite_number():
    data = toy_data(100)
    observations, ahead = data.observations.copy(), data.next_observations.copy()
    observations[:, 0] = ahead[:, 0] = 3.0
    data = replace(data, observations=observations, next_observations=ahead)
    batch = table_of(data).take(torch.arange(100)[None])
    assert not batch.condition[..., 0].any()
    assert batch.condition.abs().max() < 10.0


def test_actions_beyond_their_limits_are_refused_or_clipped():
    data = toy_data(100)
    actions = data.actions.copy()
    actions[[3, 5], 1] = 2.5, -9.0
    wild = replace(data, actions=actions)
    expected = (
        r"2 of 100 rows have actions beyond their limits: force\[1\] from -9 to 2.5, "
        r"expected -2 to 2; clip_actions=true clips them"
    )
    with pytest.raises(DataError, match=expected):
        require_fit(wild, SPEC, 32, clip=False)
    clipped = require_fit(wild, SPEC, 32, clip=True)
    assert clipped.actions[[3, 5], 1].tolist() == [2.0, -2.0]
    others = np.delete(np.arange(100), [3, 5])
    assert np.array_equal(clipped.actions[others], data.actions[others])
    assert clipped.actions.dtype == data.actions.dtype
    assert wild.actions[3, 1] == 2.5


@given(st.floats(-2.0, 2.0, width=32), st.booleans())
def test_what_rounding_does_to_a_limit_is_no_fault(action, outside):
    data = toy_data(60)
    actions = data.actions.copy()
    actions[0, 0] = action + (np.sign(action) * 1e-3 if outside else 0.0)
    kept = require_fit(replace(data, actions=actions), SPEC, 32, clip=True)
    assert np.array_equal(kept.actions, actions)


def test_a_robot_without_limits_takes_any_action():
    free = msgspec.structs.replace(SPEC, action=ArraySpec("force", (2,)))
    data = toy_data(100)
    data = replace(data, actions=data.actions * 1e6)
    assert require_fit(data, free, 32, clip=False) is data
