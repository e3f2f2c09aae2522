"""Facts of a dataset by hand, and how they are shown."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from controller.dataset_report import describe_data, histogram, print_data
from controller.transitions import Transitions

FIRST = [
    "task",
    "episodes",
    "steps",
    "return_mean",
    "return_std",
    "length_mean",
    "score_mean",
    "warnings",
]


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
    assert list(facts)[:8] == FIRST
    assert (facts["steps"], facts["episodes"]) == (6, 2)
    assert (facts["terminals"], facts["timeouts"]) == (1, 1)
    assert (facts["return_min"], facts["return_mean"], facts["return_max"]) == (6.0, 33.0, 60.0)
    assert facts["return_std"] == 27.0
    assert (facts["length_min"], facts["length_mean"], facts["length_max"]) == (3, 3.0, 3)
    assert facts["score_mean"] == pytest.approx(50.0)
    assert facts["observation"] == {"position": 2, "speed": 1}
    assert facts["warnings"] == []
    assert describe_data(data, "toy.hdf5", None)["score_mean"] is None


def test_doubts_about_the_file_and_an_incredible_score_are_warnings(data):
    facts = describe_data(data, "toy.hdf5", (0.0, 1.0), notes=["no timeouts column"])
    assert facts["warnings"][0] == "no timeouts column"
    assert "not the task's return" in facts["warnings"][-1]


def test_numbers_that_are_not_finite_are_told_not_refused(data):
    data.rewards[4] = np.nan
    facts = describe_data(data, "toy.hdf5", (0.0, 66.0))
    assert facts["warnings"] == ["rewards: not finite in 1 rows, first 4"]
    assert facts["return_min"] != facts["return_min"]
    assert shown(data, facts)


def test_a_histogram_by_hand():
    lines = histogram(np.array([0.0, 1.0, 1.5, 4.0, np.nan]), bins=2, width=3)
    assert lines == ["0 … 2  ███ 3", "2 … 4  █   1"]
    assert histogram(np.array([5.0, 5.0]), width=2)[0].endswith("██ 2")
    assert histogram(np.array([np.nan])) == ["none"]


def test_a_bar_is_to_an_eighth_and_never_lost():
    lines = histogram(np.array([0.0] * 1000 + [1.0]), bins=2, width=1)
    assert lines[0].endswith("█ 1,000")
    assert lines[1].endswith("▏ 1")


def shown(data, facts):
    stream = io.StringIO()
    print_data(facts, data.returns(), Console(file=stream, width=120))
    return stream.getvalue()


def test_people_get_the_figures_a_histogram_and_the_warnings(data):
    noisy = dataclasses.replace(data, actions=np.zeros((6, 2)))
    facts = describe_data(
        noisy, "toy.hdf5", (0.0, 66.0), attributes={"policy_digest": "ab[c]"}, notes=["odd"]
    )
    text = shown(noisy, facts)
    assert "33 ± 27, 6 to 60" in text
    assert "policy digest  ab[c]" in text
    assert "█" in text
    assert "! odd" in text
    assert "! action elements [0, 1] never change" in text
