import dataclasses

import numpy as np
import pytest

from controller.dataset_report import describe_data
from controller.transitions import Transitions


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((6, 3))
    return Transitions(
        observations=observations,
        actions=rng.standard_normal((6, 2)),
        rewards=np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0]),
        next_observations=np.roll(observations, -1, axis=0),
        terminals=np.array([0, 0, 1, 0, 0, 0], bool),
        timeouts=np.array([0, 0, 0, 0, 0, 1], bool),
        layout=(("position", 2), ("speed", 1)),
        task="toy",
    )


def test_facts_of_two_episodes_by_hand(data):
    facts = describe_data(data, "toy.hdf5", (0.0, 66.0))
    assert (facts["steps"], facts["episodes"]) == (6, 2)
    assert (facts["terminals"], facts["timeouts"]) == (1, 1)
    assert facts["return"] == {"min": 6.0, "mean": 33.0, "max": 60.0}
    assert facts["episode_steps"] == {"min": 3.0, "mean": 3.0, "max": 3.0}
    assert facts["score"] == pytest.approx(50.0)
    assert facts["observation"] == {"position": 2, "speed": 1}
    assert facts["warnings"] == []
    assert describe_data(data, "toy.hdf5", None)["score"] is None


def test_warnings_name_what_a_careful_person_would_look_at(data):
    observations = data.observations.copy()
    observations[:, 2] = 5.0
    observations[3] = observations[0]
    observations[4, 0] = np.nan
    bad = dataclasses.replace(data, observations=observations)
    text = "\n".join(describe_data(bad, "toy.hdf5", (0.0, 1.0))["warnings"])
    assert "observations: not finite in 1 rows, first 4" in text
    assert "1 observation elements never change, in ['speed']" in text
    assert "1 episodes begin exactly like another one" in text
    assert "not the task's return" in text
