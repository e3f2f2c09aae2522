"""Episodes against the environment they come from."""

import numpy as np
import pytest

from sim.errors import SimulationUnstable
from sim.generate.actors import RandomActor
from sim.generate.rollout import Job, Rollout, reset_seed
from tests.sim.generate.walker import SPEC, Walk

JOB = Job("walk", "random", seed=7, stream=2, episode_steps=12)


class Overdrive(RandomActor):
    """Asks for three times what is allowed, and says how likely that was."""

    def begin(self, env, observation, rng):
        self.began, self.asked = (env, observation.copy(), rng), []

    def act(self, observation, rng):
        self.asked.append(3 * super().act(observation, rng))
        return self.asked[-1]

    def log_probs(self):
        return np.array(self.asked).sum(1)


def rollout(actor=None, env=None, job=JOB):
    return Rollout(env or Walk(), SPEC, actor or RandomActor(SPEC), job)


def episodes(numbers, **kwargs):
    made = rollout(**kwargs)
    return {number: made.run(number) for number in numbers}


def same(one, other):
    assert one.columns.keys() == other.columns.keys()
    columns = all(np.array_equal(one.columns[name], other.columns[name]) for name in one.columns)
    return columns and one.success == other.success


def test_an_episode_depends_on_its_number_alone():
    forward, backward = episodes(range(20)), episodes(reversed(range(20)))
    assert all(same(forward[number], backward[number]) for number in range(20))
    assert not same(forward[0], forward[1])
    for job in (Job("walk", "random", 8, 2), Job("walk", "random", 7, 3)):
        assert not same(forward[0], rollout(job=job).run(0))


def test_columns_are_what_the_environment_said():
    for number in range(20):
        columns = rollout().run(number).columns
        env, rows = Walk(), len(columns["rewards"])
        observation, _ = env.reset(seed=reset_seed(7, 2, number))
        for row in range(rows):
            seen = np.array([*observation["place"], *observation["goal"]], np.float32)
            assert np.array_equal(columns["observations"][row], seen)
            assert np.array_equal(columns["infos/qpos"][row], env.data.qpos.astype(np.float32))
            assert np.array_equal(columns["infos/qvel"][row], env.data.qvel.astype(np.float32))
            action = columns["actions"][row].astype(np.float64)
            observation, reward, ended, _, _ = env.step(action)
            assert columns["rewards"][row] == np.float32(reward)
            following = np.array([*observation["place"], *observation["goal"]], np.float32)
            assert np.array_equal(columns["next_observations"][row], following)
            assert columns["terminals"][row] == ended
            assert columns["timeouts"][row] == (row == 11 and not ended)
        assert ended or rows == 12


def test_both_ends_occur():
    ends = [episode.columns for episode in episodes(range(40)).values()]
    assert any(columns["terminals"][-1] for columns in ends)
    assert any(columns["timeouts"][-1] for columns in ends)
    assert all(columns["terminals"][-1] ^ columns["timeouts"][-1] for columns in ends)


def test_success_at_any_step_counts():
    for episode in episodes(range(20)).values():
        assert episode.success == bool((episode.columns["next_observations"][:, 1] > 1).any())


def test_actions_are_clipped_and_recorded_as_executed():
    env, actor = Walk(), Overdrive(SPEC)
    columns = rollout(actor, env).run(0).columns
    assert np.abs(columns["actions"]).max(0).tolist() == [1.0, 0.5]
    assert np.array_equal(np.array(env.seen, np.float32), columns["actions"])
    assert np.array_equal(np.array(env.seen), columns["actions"].astype(np.float64))
    assert columns["infos/action_log_probs"].tolist() == actor.log_probs().astype("f4").tolist()
    began, observation, _ = actor.began
    assert began is env
    assert np.array_equal(observation.astype(np.float32), columns["observations"][0])


def test_random_actions_fill_the_limits():
    columns = [e.columns["actions"] for e in episodes(range(200)).values()]
    scaled = np.concatenate(columns) / [1.0, 0.5]
    assert np.abs(scaled).max() <= 1
    assert np.allclose(scaled.mean(0), 0.0, atol=0.06)
    assert np.allclose(scaled.std(0), 1 / np.sqrt(3), atol=0.02)


def test_without_a_state_there_is_none():
    job = Job("walk", "random", seed=7, episode_steps=12, state=False)
    assert not any(name.startswith("infos") for name in rollout(job=job).run(0).columns)


def test_numbers_that_are_not_finite_stop_the_recording():
    expected = "walk: episode 0 of seed 7, stream 2, broke down .* reward is not finite"
    with pytest.raises(SimulationUnstable, match=expected):
        rollout(env=Walk(broken_at=2)).run(0)


def test_resets_of_a_stream_never_share_a_seed():
    assert len({reset_seed(3, 1, number) for number in range(100_000)}) == 100_000
    assert all(0 <= reset_seed(2**32 - 1, 0, number) < 2**32 for number in (0, 1, 2**32 - 1))
    assert reset_seed(3, 1, 0) != reset_seed(3, 2, 0) != reset_seed(4, 2, 0)
