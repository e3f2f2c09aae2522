"""What stands beside the columns of a D4RL file."""

import h5py
import numpy as np
import pytest

from controller.errors import DataError
from policies.data.d4rl import load_d4rl, read_attributes, write_d4rl
from tests.policies.robots import SPEC, toy_data

FACTS = {"name": "toy-medium-regen", "seed": 7, "return_mean": 12.5, "policy_digest": "ab" * 32}


def test_attributes_come_back_as_they_were(tmp_path):
    path = tmp_path / "a.hdf5"
    write_d4rl(path, toy_data(), SPEC, FACTS)
    assert read_attributes(path) == FACTS
    assert load_d4rl(path).attributes == FACTS
    assert [type(value) for value in read_attributes(path).values()].count(str) == 2
    with h5py.File(path) as file:
        assert file.attrs["onebeat_seed"] == 7


def test_without_attributes_there_are_none(tmp_path):
    write_d4rl(tmp_path / "a.hdf5", toy_data(), SPEC)
    assert read_attributes(tmp_path / "a.hdf5") == {}


@pytest.mark.parametrize("name", ["spec", "task", "layout"])
def test_names_that_are_taken_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"onebeat_{name}"):
        write_d4rl(tmp_path / "a.hdf5", toy_data(), SPEC, {name: "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.hdf5"
    write_d4rl(path, toy_data(), SPEC)
    before = path.read_bytes()
    bad = toy_data()
    bad.info["odd"] = np.array([object()] * len(bad))
    with pytest.raises(TypeError):
        write_d4rl(path, bad, SPEC)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.hdf5"]


def test_a_damaged_layout_is_told(tmp_path):
    path = tmp_path / "a.hdf5"
    write_d4rl(path, toy_data(), SPEC)
    with h5py.File(path, "a") as file:
        file.attrs["onebeat_layout"] = "["
    with pytest.raises(DataError, match="onebeat_layout is damaged"):
        load_d4rl(path)
