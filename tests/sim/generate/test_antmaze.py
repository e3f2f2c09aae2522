"""The environment data is recorded in, the policy's input, and D4RL's labels by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from controller.errors import ConfigError
from controller.transitions import Transitions
from sim.d4rl.antmaze import EVALUATION, GENERATION
from sim.generate.antmaze import NavigationActor, generation_env, label, relabelled
from sim.registry import task_named


class Recorder:
    """Stands still and remembers what it saw."""

    source, observation_size, action_size = "recorder", 29, 8

    def act(self, observation, rng):
        self.seen = observation.copy()
        return np.zeros(8)


def test_the_policy_sees_the_ant_and_ten_times_the_way():
    behaviour = Recorder()
    actor = NavigationActor(behaviour, noise=0.2)
    env = SimpleNamespace(goal=np.array([0.7, 8.9]), maze=GENERATION["umaze"])
    observation, rng = np.arange(29.0), np.random.default_rng(0)
    observation[:2] = 3.7, 4.9 + 4.0
    actor.begin(env, observation, rng)
    actions = np.array([actor.act(observation, rng) for _ in range(2000)])
    assert behaviour.seen[:27].tolist() == list(range(2, 29))
    # The goal lies 3 m to the left.
    assert behaviour.seen[27:] == pytest.approx([-10.0, 0.0])
    assert actions.std() == pytest.approx(0.2, rel=0.03)


def test_a_policy_without_a_way_is_refused():
    behaviour = Recorder()
    behaviour.observation_size = 27
    with pytest.raises(ConfigError, match=r"recorder: takes 27 numbers .* 2 of the way"):
        NavigationActor(behaviour, 0.0)


@pytest.mark.parametrize("multistart", [False, True])
def test_recording_goes_on_at_the_goals_of_the_generation_layout(multistart):
    env = generation_env("antmaze-large-play", multistart=multistart)
    goals, starts = set(), set()
    for seed in range(60):
        observation, _ = env.reset(seed=seed)
        starts.add(tuple((observation[:2] // 4).tolist()))
        goals.add(tuple((env.goal // 4).tolist()))
    assert len(goals) == len(GENERATION["large"].goals) > len(EVALUATION["large"].goals)
    assert (len(starts) > 10) == multistart
    env.goal = env.data.qpos[:2].copy()
    _, reward, terminated, _, info = env.step(np.zeros(8))
    assert (reward, terminated, info["success"]) == (1.0, False, True)


def test_labels_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    following = np.stack([x + 1, np.zeros(5)], axis=1).astype(np.float32)
    data = Transitions(
        observations=np.stack([x, np.zeros(5)], axis=1).astype(np.float32),
        actions=np.zeros((5, 1), np.float32),
        rewards=np.full(5, 9.0, np.float32),
        next_observations=following,
        terminals=np.zeros(5, bool),
        timeouts=np.array([False, False, True, False, True]),
        layout=(("observations", 2),),
    )
    # Successors lie at 1, 2, 3, 4, 5: within 0.5 of 2.5 are those of rows 1 and 2.
    labelled = label(data, np.array([2.5, 0.0]))
    assert labelled.rewards.tolist() == [0, 1, 1, 0, 0]
    assert labelled.terminals.tolist() == [False, True, True, False, False]
    assert labelled.timeouts.tolist() == [False, False, False, False, True]
    labelled.validate("labelled")
    assert data.rewards[0] == 9.0


def test_the_goal_to_label_for_is_drawn_in_the_evaluation_maze():
    data = Transitions(
        observations=np.zeros((2, 29), np.float32),
        actions=np.zeros((2, 8), np.float32),
        rewards=np.zeros(2, np.float32),
        next_observations=np.full((2, 29), 99.0, np.float32),
        terminals=np.zeros(2, bool),
        timeouts=np.array([True, True]),
        layout=(("observations", 29),),
    )
    task, goals = task_named("antmaze-medium-play"), set()
    for seed, stream in ((0, 0), (0, 1), (1, 0)):
        _, facts = relabelled(data, task, seed, stream)
        assert facts["success_rate"] == 0.0
        # Cell (6, 6), and up to 1.5 m beyond its centre.
        goals.add((facts["goal_x"], facts["goal_y"]))
        assert all(20.0 <= facts[name] < 21.5 for name in ("goal_x", "goal_y"))
    assert len(goals) == 3
    assert relabelled(data, task, 0)[1] == relabelled(data, task, 0)[1]
