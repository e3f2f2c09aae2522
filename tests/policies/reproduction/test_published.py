"""The transcribed tables against the averages that the paper prints."""

import numpy as np
import pytest

from policies.presets import TASKS
from policies.reproduction import published
from policies.reproduction.published import Figure

GYM = ("halfcheetah", "hopper", "walker2d")


def average(table, column, families, what="mean"):
    rows = [row for task, row in table.items() if task.startswith(families)]
    return np.mean([getattr(row[column], what) for row in rows])


@pytest.mark.parametrize(
    ("table", "column", "families", "mean", "online"),
    [
        ("TABLE_1", "bc", GYM, 51.9, None),
        ("TABLE_1", "td3_bc", GYM, 75.3, None),
        ("TABLE_1", "consistency_bc", GYM, 69.7, 75.9),
        ("TABLE_1", "diffusion_bc", GYM, 76.3, 82.4),
        ("TABLE_1", "consistency_bc", "antmaze", 44.1, 57.0),
        # The paper prints 53.3 for the latter, its cells give 56.2.
        ("TABLE_1", "diffusion_bc", "antmaze", 41.2, 56.2),
        ("TABLE_1", "consistency_bc", "pen", 42.9, 57.8),
        ("TABLE_1", "diffusion_bc", "pen", 59.4, 64.7),
        ("TABLE_1", "consistency_bc", "kitchen", 30.4, 33.0),
        ("TABLE_1", "diffusion_bc", "kitchen", 61.1, None),
        ("TABLE_2", "diffusion_ql", GYM, 87.9, 89.3),
        ("TABLE_2", "consistency_ac", GYM, 85.1, 89.8),
        ("TABLE_2", "iql", GYM, 77.0, None),
        ("TABLE_2", "diffusion_ql", "", 80.3, 83.2),
        ("TABLE_2", "consistency_ac", "", 72.1, 77.9),
        ("TABLE_A1", "diffusion_bc", GYM, 66.12, None),
        ("TABLE_A1", "consistency_bc", GYM, 41.57, None),
        ("TABLE_A1", "diffusion_bc", "", 86.08, None),
        ("TABLE_A1", "consistency_bc", "", 49.09, None),
        ("TABLE_A2", "unscaled", "", 40.1, 54.1),
        # The paper prints 64.5, its cells give 65.1.
        ("TABLE_A2", "scaled", "", 65.1, 72.5),
        ("TABLE_A2", "ln_resnet", "", 56.8, 65.0),
    ],
)
def test_the_cells_give_the_printed_averages(table, column, families, mean, online):
    cells = getattr(published, table)
    digits = 0.01 if "A1" in table else 0.06
    assert average(cells, column, families) == pytest.approx(mean, abs=digits)
    if online is not None:
        # Diffusion-QL's are quoted there, and cut instead of rounded.
        assert average(cells, column, families, "online") == pytest.approx(online, abs=0.1)


def test_the_steps_cost_what_the_paper_says():
    """Default against default: 1.786 times the training, 2.04 times the inference."""
    table = published.TABLE_3
    assert set(table) == {"1", "2", "5", "10", "20", "50"}
    training = table["5"]["ql_train_ms"].mean / table["2"]["ac_train_ms"].mean
    inference = table["5"]["ql_action_ms"].mean / table["2"]["ac_action_ms"].mean
    assert (round(training, 3), round(inference, 2)) == (1.786, 2.04)
    assert "diffusion_ql" not in table["50"]


def test_every_task_of_the_presets_and_no_other_is_there():
    assert set(published.TABLE_1) == set(published.TABLE_A1) == set(TASKS)
    absent = {"antmaze-medium-diverse", "antmaze-large-play", "antmaze-large-diverse"}
    assert set(published.TABLE_2) == set(published.TABLE_A2) == set(TASKS) - absent


def quoted(*found):
    return [(one.table, one.figure.mean) for one in found]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (("hopper-medium", "consistency_bc"), [("1", 71.7)]),
        (("hopper-medium", "consistency_ac"), [("2", 80.7), ("A2", 78.0)]),
        (("antmaze-large-play", "consistency_ac"), []),
        (("hopper-medium", "rebrac"), []),
        (("door", "bc"), []),
        (("hopper-medium", "consistency_ac", "unscaled"), [("A2", 80.7)]),
        (("hopper-medium", "consistency_ac", "ln_resnet"), [("A2", 74.1)]),
        (("hopper-medium", "diffusion_ql", "ln_resnet"), []),
        (("hopper-medium", "consistency_ac", "steps_5"), []),
        (("hopper-medium-expert", "consistency_ac", "steps_5"), [("3", 101.4)]),
        (("hopper-medium-expert", "diffusion_ql", "steps_1"), [("3", 2.8)]),
        (("hopper-medium-expert", "diffusion_ql", "steps_50"), []),
        (("hopper-medium-expert", "diffusion_ql", "steps_3"), []),
    ],
)
def test_scores_of_a_cell(cell, expected):
    assert quoted(*published.scores(*cell)) == expected


@pytest.mark.parametrize(
    ("cell", "training", "action"),
    [
        (("hopper-medium-expert", "consistency_bc"), ("A1", 38.56), None),
        (("hopper-medium-expert", "consistency_ac"), ("3", 31.94), ("3", 1.84)),
        (("hopper-medium-expert", "diffusion_ql"), ("3", 57.06), ("3", 3.76)),
        (("hopper-medium-expert", "diffusion_ql", "steps_50"), ("3", 206.44), ("3", 30.65)),
        (("hopper-medium-expert", "diffusion_ql", "ln_resnet"), None, None),
        (("hopper-medium", "diffusion_ql"), None, None),
        (("hopper-medium-expert", "iql"), None, None),
    ],
)
def test_times_of_a_cell(cell, training, action):
    for found, expected in (
        (published.train_ms(*cell), training),
        (published.action_ms(*cell), action),
    ):
        assert (quoted(found) if found else [None]) == [expected]


def test_a_number_keeps_its_brackets():
    assert published.TABLE_1["kitchen-complete"]["diffusion_bc"] == Figure(76.5, 8.9, 87.3, 6.8)
    assert published.TABLE_1["kitchen-complete"]["bc"] == Figure(33.8)
