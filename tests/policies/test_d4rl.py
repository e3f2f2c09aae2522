"""D4RL files: successors by hand, exact round trips, and what is refused."""

import logging

import h5py
import msgspec
import numpy as np
import pytest

from controller.errors import DataError, SpecMismatch
from policies.data.d4rl import read_d4rl, read_spec, write_d4rl
from tests.policies.robots import SPEC, toy_data


def write(path, rows=6, leave_out=(), **columns):
    base = {
        "observations": np.arange(rows, dtype=np.float32)[:, None] * np.ones(2, np.float32),
        "actions": np.zeros((rows, 1), np.float32),
        "rewards": np.arange(rows, dtype=np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    } | columns
    with h5py.File(path, "w") as file:
        for name, column in base.items():
            if name not in leave_out:
                file[name] = column
    return path


def marks(rows, *at):
    column = np.zeros(rows, bool)
    column[list(at)] = True
    return column


def test_successors_by_hand(tmp_path):
    # Rows 0 1 2T | 3 4 5x | 6 7 : 2 is terminal, 5 is cut by time, 7 by the end of the file.
    path = write(tmp_path / "a.hdf5", 8, terminals=marks(8, 2), timeouts=marks(8, 5))
    data = read_d4rl(path)
    assert data.observations[:, 0].tolist() == [0, 1, 2, 3, 4, 6]
    assert data.next_observations[:, 0].tolist() == [1, 2, 2, 4, 5, 7]
    assert data.terminals.tolist() == [False, False, True, False, False, False]
    assert data.timeouts.tolist() == [False, False, False, False, True, True]
    assert data.rewards.tolist() == [0, 1, 2, 3, 4, 6]


def test_a_cut_right_after_a_terminal_leaves_the_terminal_alone(tmp_path):
    path = write(tmp_path / "a.hdf5", 5, terminals=marks(5, 1, 4), timeouts=marks(5, 2, 4))
    data = read_d4rl(path)
    assert data.observations[:, 0].tolist() == [0, 1, 3, 4]
    assert data.terminals.tolist() == [False, True, False, True]
    assert not data.timeouts.any()


def test_stored_successors_are_taken_and_no_row_is_lost(tmp_path):
    following = np.full((6, 2), 9.0, np.float32)
    path = write(tmp_path / "a.hdf5", next_observations=following, timeouts=marks(6, 2))
    data = read_d4rl(path)
    assert len(data) == 6
    assert np.array_equal(data.next_observations, following)
    assert data.timeouts.tolist() == marks(6, 2).tolist()


def test_without_timeouts_it_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        data = read_d4rl(write(tmp_path / "a.hdf5", leave_out=["timeouts"]))
    assert len(data) == 5
    assert "no timeouts column" in caplog.text


def test_round_trip_is_exact(tmp_path):
    data = toy_data().single()
    data.info["policy_acted"] = np.arange(len(data)) % 3 == 0
    write_d4rl(tmp_path / "a.hdf5", data, SPEC)
    again = read_d4rl(tmp_path / "a.hdf5", SPEC)
    assert again.digest() == data.digest()
    assert (again.layout, again.task) == (data.layout, "toy")
    assert again.info["policy_acted"].tolist() == data.info["policy_acted"].tolist()
    for name in ("observations", "actions", "rewards", "terminals"):
        assert getattr(again, name).dtype == getattr(data, name).dtype
    assert read_spec(tmp_path / "a.hdf5") == SPEC
    assert not list(tmp_path.glob(".*"))


def test_a_foreign_file_has_no_spec(tmp_path):
    assert read_spec(write(tmp_path / "a.hdf5")) is None


def test_the_layout_comes_from_the_spec_asked_for(tmp_path):
    data = read_d4rl(
        write(
            tmp_path / "a.hdf5",
            observations=np.ones((6, 6), np.float32),
            actions=np.ones((6, 2), np.float32),
        ),
        SPEC,
    )
    assert data.layout == (("position", 2), ("shadow", 2), ("target", 2))
    assert data.task == "toy"


def test_data_of_another_task_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"2 wide and actions 1, toy has 6 and 2.*another task"):
        read_d4rl(write(tmp_path / "a.hdf5"), SPEC)


def test_a_file_written_for_another_robot_is_refused(tmp_path):
    write_d4rl(tmp_path / "a.hdf5", toy_data(), SPEC)
    with pytest.raises(SpecMismatch, match="50 Hz"):
        read_d4rl(tmp_path / "a.hdf5", msgspec.structs.replace(SPEC, rate_hz=50.0))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"leave_out": ["rewards"]}, "no column rewards; the file has actions, observations"),
        ({"rewards": np.zeros(4)}, "observations has 6 rows, rewards has 4"),
        ({"actions": np.full((6, 1), np.nan)}, "actions is not finite in 5 of 5 rows"),
        ({"rows": 0}, "no transitions"),
    ],
)
def test_bad_columns_are_named(tmp_path, columns, said):
    path = write(tmp_path / "a.hdf5", **columns)
    with pytest.raises(DataError, match=f"a.hdf5: {said}"):
        read_d4rl(path)


def test_a_missing_file_and_one_that_is_not_hdf5(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_d4rl(tmp_path / "a.hdf5")
    (tmp_path / "b.hdf5").write_text("not a dataset")
    with pytest.raises(DataError, match="not an HDF5 file"):
        read_d4rl(tmp_path / "b.hdf5")


def test_a_truncated_file_is_refused(tmp_path):
    write_d4rl(tmp_path / "a.hdf5", toy_data(), SPEC)
    whole = (tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "a.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.hdf5"):
        read_d4rl(tmp_path / "a.hdf5")
