"""Reference returns and normalised scores."""

import pytest

from sim.registry import tasks
from sim.scores import normalised, reference, references


def test_there_are_the_115_references_of_d4rl():
    assert len(references()) == 115
    assert all(low < high for low, high in references().values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hopper-medium-replay-v2", (-20.272305, 3234.3)),
        ("maze2d-medium-v1", (13.13, 277.39)),
        ("maze2d-medium", (13.13, 277.39)),
        ("maze2d-medium-dense-v1", (44.264742, 297.4552547777125)),
        ("pointmaze-medium", (13.13, 277.39)),
        ("pointmaze-large", (6.7, 273.99)),
        ("maze2d-umaze", (23.85, 161.86)),
        ("kitchen-mixed", (0.0, 4.0)),
        ("halfcheetah-random", (-280.178953, 12135.0)),
        ("hopper", None),
        ("nonsense-v1", None),
        ("", None),
    ],
)
def test_reference(name, expected):
    assert reference(name) == expected


def test_normalised_by_hand():
    assert normalised("kitchen-complete", 3.0) == 75.0
    assert normalised("pointmaze-medium", 13.13 + 0.5 * (277.39 - 13.13)) == pytest.approx(50.0)
    assert normalised("nonsense", 1.0) is None


def test_the_references_score_0_and_100():
    for name, (low, high) in references().items():
        assert normalised(name, low) == 0.0
        assert normalised(name, high) == pytest.approx(100.0)


def test_every_task_has_a_reference():
    assert all(task.reference is not None for task in tasks().values())
