"""Reference returns and normalised scores."""

import pytest

from sim.d4rl.scores import references, versions_of
from sim.registry import reference, tasks


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
        ("hopper", (-20.272305, 3234.3)),
        ("dmc-cheetah-run", None),
        ("nonsense-v1", None),
        ("", None),
    ],
)
def test_reference(name, expected):
    assert reference(name) == expected


def test_versions_are_listed_oldest_first():
    assert versions_of("hopper-medium", "kitchen-mixed") == (
        "hopper-medium-v0",
        "hopper-medium-v1",
        "hopper-medium-v2",
        "kitchen-mixed-v0",
    )
    assert versions_of("hopper") == ()


def test_every_dataset_of_a_task_has_the_references_of_the_task():
    for task in tasks().values():
        assert all(reference(dataset) == task.reference for dataset in task.datasets)
