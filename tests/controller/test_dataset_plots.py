"""Pictures of datasets: what is drawn where, by looking at the figure, and that a PNG comes out."""

import dataclasses
import struct

import numpy as np
import pytest

from controller import dataset_plots
from controller.dataset_warnings import Expected
from tests.controller.test_dataset_warnings import episodes

pytest.importorskip("matplotlib")


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("task", ["hopper", "antmaze-umaze"])
def test_a_picture_comes_out(task):
    data = dataclasses.replace(episodes(5), task=task)
    limits = Expected(low=np.full(2, -1.0), high=np.full(2, 1.0))
    width, height = size(dataset_plots.dataset_png(data, "five episodes", limits))
    assert width > height > 400


def test_a_picture_of_bad_numbers_comes_out():
    data = episodes(2)
    data.observations[3, 1], data.actions[4], data.rewards[5] = np.nan, np.inf, np.nan
    assert size(dataset_plots.dataset_png(data, "bad"))
    data.observations[:, 0], data.rewards[:] = np.nan, np.nan
    assert size(dataset_plots.dataset_png(data, "worse"))


@pytest.mark.parametrize(
    ("task", "layout", "place"),
    [
        ("antmaze-umaze", (("observations", 4),), 0),
        ("pointmaze-medium", (("desired_goal", 2), ("observation", 2)), 2),
        ("maze2d-large", (("state", 4),), 0),
        ("hopper", (("observation", 4),), None),
    ],
)
def test_where_the_path_of_a_maze_is(task, layout, place):
    observations = np.zeros((30, 4), np.float32)
    data = dataclasses.replace(episodes(3), observations=observations, layout=layout, task=task)
    assert dataset_plots._position(data) == place


def test_the_mean_reward_by_step_by_hand():
    from matplotlib.figure import Figure

    data = episodes(2, steps=3)
    data.rewards[:] = [1, 2, 3, 3, 4, 9]
    axes = Figure().add_subplot()
    dataset_plots._mean_reward(axes, data)
    assert axes.lines[0].get_ydata().tolist() == [2.0, 3.0, 6.0]
