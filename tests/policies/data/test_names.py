"""The table of published datasets against facts that were written down elsewhere."""

import pytest

from controller.errors import ConfigError
from policies.data.names import dataset_named, file_names, published, recognise
from sim.d4rl.scores import references


def test_every_dataset_with_a_reference_score_is_there_and_no_other():
    assert set(published()) == set(references())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("hopper-medium-v2", "gym_mujoco_v2/hopper_medium-v2.hdf5"),
        ("walker2d-medium-replay-v2", "gym_mujoco_v2/walker2d_medium_replay-v2.hdf5"),
        ("walker2d-medium-replay-v0", "gym_mujoco/walker_mixed.hdf5"),
        ("hopper-medium-replay-v0", "gym_mujoco/hopper_mixed.hdf5"),
        ("halfcheetah-medium-expert-v0", "gym_mujoco/halfcheetah_medium_expert.hdf5"),
        ("pen-human-v1", "hand_dapg_v1/pen-human-v1.hdf5"),
        ("pen-human-v0", "hand_dapg/pen-v0_demos_clipped.hdf5"),
        ("door-cloned-v0", "hand_dapg/door-demos-v0-bc-combined.hdf5"),
        ("maze2d-umaze-v1", "maze2d/maze2d-umaze-sparse-v1.hdf5"),
        ("maze2d-open-v0", "maze2d/maze2d-open-sparse.hdf5"),
        ("maze2d-large-dense-v1", "maze2d/maze2d-large-dense-v1.hdf5"),
        (
            "kitchen-complete-v0",
            "kitchen/mini_kitchen_microwave_kettle_light_slider-v0.hdf5",
        ),
        (
            "antmaze-large-diverse-v2",
            "ant_maze_v2/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed"
            ".hdf5",
        ),
    ],
)
def test_files_are_where_d4rl_has_them(name, path):
    assert published()[name].path == path


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hopper-medium-v2", "hopper-medium-v2"),
        ("/data/hopper_medium-v2.hdf5", "hopper-medium-v2"),
        ("Hopper-Medium-v2.h5", "hopper-medium-v2"),
        ("hopper-medium", "hopper-medium-v2"),
        ("hopper-medium.hdf5", "hopper-medium-v2"),
        ("hopper_medium.hdf5", "hopper-medium-v0"),
        ("pen-human", "pen-human-v1"),
        ("walker_mixed.hdf5", "walker2d-medium-replay-v0"),
        (
            "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5",
            "antmaze-umaze-v0",
        ),
        (
            "Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5",
            "antmaze-medium-play-v2",
        ),
        ("maze2d-umaze-sparse-v1.hdf5", "maze2d-umaze-v1"),
        ("kitchen_microwave_kettle_light_slider-v0.hdf5", "kitchen-partial-v0"),
    ],
)
def test_names_and_files_are_recognised(source, name):
    found = recognise(source)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("source", ["hopper-medium-regen.hdf5", "hopper", "data.hdf5", ""])
def test_what_only_looks_alike_is_not(source):
    assert recognise(source) is None


@pytest.mark.parametrize("name", published())
def test_each_is_recognised_by_both_its_names(name):
    dataset = published()[name]
    for file in file_names(dataset):
        assert recognise(file) == dataset


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean hopper-medium-v2"):
        dataset_named("hoper-medium-v2")
