"""Each warning on data made to deserve it, and silence on data that does not."""

import dataclasses

import numpy as np
import pytest

from controller.dataset_warnings import Expected, warnings
from controller.transitions import Transitions, concatenate

LIMITS = Expected(low=np.full(2, -1.0), high=np.full(2, 1.0), rewards=(0.0, 1.0), episode_steps=10)


def episodes(count, steps=10, seed=0, terminal=False):
    rng = np.random.default_rng(seed)
    rows = count * steps
    ends = np.arange(1, rows + 1) % steps == 0
    return Transitions(
        observations=rng.standard_normal((rows, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rewards=rng.random(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 3)).astype(np.float32),
        terminals=ends & terminal,
        timeouts=ends & (not terminal),
        layout=(("position", 2), ("speed", 1)),
    )


def only(found):
    assert len(found) == 1, found
    return found[0]


def test_good_data_gives_none():
    assert warnings(episodes(20), LIMITS) == []
    assert warnings(episodes(20)) == []


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations"])
def test_not_finite(name):
    data = episodes(2)
    getattr(data, name)[[4, 7]] = np.inf
    assert f"{name}: not finite in 2 rows, first 4" in warnings(data)


def test_constant_elements_are_named():
    data = episodes(2)
    data.observations[:, 2] = 5.0
    data.actions[:, 1] = 0.5
    assert warnings(data) == [
        "1 observation elements never change, in ['speed']",
        "action elements [1] never change",
    ]


def test_actions_outside_their_limits():
    data = episodes(2)
    data.actions[3, 1], data.actions[5, 1] = 1.5, -2.0
    assert only(warnings(data, LIMITS)) == (
        "actions: outside their limits in 2 rows, first 3; element 1 is -2, allowed -1 to 1"
    )


def test_rounding_to_float32_is_within_the_limits():
    data = episodes(2)
    data.actions[3, 1] = np.nextafter(np.float32(1), np.float32(2))
    assert warnings(data, LIMITS) == []


def test_rewards_outside_their_range():
    data = episodes(2)
    data.rewards[8] = 3.0
    assert only(warnings(data, LIMITS)) == "rewards: outside 0 to 1 in 1 rows, first 8: 3"


def test_episodes_longer_than_the_task_allows():
    assert only(warnings(episodes(3, steps=12), LIMITS)) == (
        "3 episodes are longer than the task's 10 steps, up to 12: not every end is marked"
    )


def test_terminals_in_the_middle_of_an_episode():
    data = episodes(3)
    data.terminals[4:7] = True
    assert "2 episodes are a single terminal row after a terminal row, first row 5" in only(
        warnings(data)
    )


def test_single_step_episodes_that_end_by_terminals_of_their_own_are_not_told():
    data = episodes(3)
    data.terminals[10] = True
    assert warnings(data) == []


def test_copies_of_episodes():
    data = episodes(4)
    doubled = concatenate([data, data.select(slice(10, 30))])
    assert only(warnings(doubled)) == (
        "2 episodes are copies of another one: episode 4 of episode 1"
    )


def test_overlapping_episodes():
    data = episodes(4)
    data.observations[32:36] = data.observations[12:16]
    data.actions[32:36] = data.actions[12:16]
    assert only(warnings(data)) == (
        "1 pairs of episodes overlap: 4 of their rows are the same, the first pair is episodes "
        "1 and 3"
    )


def test_rows_that_repeat_within_an_episode_are_no_overlap():
    data = episodes(3)
    data.observations[2:6], data.actions[2:6] = 0.0, 0.0
    assert warnings(data) == []


def test_the_same_observation_with_another_action_is_only_a_common_start():
    data = episodes(3)
    data.observations[[10, 20]] = data.observations[0]
    assert only(warnings(data)) == "2 episodes begin exactly like another one"


def test_zeros_of_either_sign_are_the_same():
    data = episodes(2)
    copy = data.select(slice(0, 10))
    data.observations[:10, 0], copy.observations[:, 0] = 0.0, -0.0
    assert "copies" in only(warnings(concatenate([data, copy])))


def test_in_double_precision_nearly_equal_rows_are_not_equal():
    data = episodes(2)
    double = dataclasses.replace(data, observations=data.observations.astype(np.float64))
    near = dataclasses.replace(double, observations=double.observations + 1e-12)
    assert warnings(concatenate([double, near])) == []
