"""Episode ends in files that do not say them: every quirk on rows made by hand."""

import h5py
import numpy as np
import pytest

from policies.data.d4rl import load_d4rl, read_d4rl

GYM = "hopper_medium.hdf5"
ANT = "Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse.hdf5"
MAZE = "maze2d-umaze-v1.hdf5"
ANKLES = np.radians([0, 40, 0, -40, 0, -40, 0, 40])


def write(path, observations, **columns):
    rows = len(observations)
    base = {
        "observations": observations,
        "actions": np.zeros((rows, 2), np.float32),
        "rewards": np.arange(rows, dtype=np.float32),
        "terminals": np.zeros(rows, bool),
    } | columns
    with h5py.File(path, "w") as file:
        for name, column in base.items():
            file[name] = column
    return path


def marks(rows, *at):
    column = np.zeros(rows, bool)
    column[list(at)] = True
    return column


def numbered(rows, width=3):
    return np.arange(rows, dtype=np.float32)[:, None] * np.ones(width, np.float32)


def ant(rows, *resets):
    """Rows of a walking ant, which stands in the reset pose in the given ones."""
    rng = np.random.default_rng(0)
    observations = np.zeros((rows, 29), np.float32)
    observations[:, 0] = np.arange(rows)
    observations[:, 7:15] = ANKLES + rng.uniform(-0.1, 0.1, (rows, 8))
    observations[list(resets), 7:15] = rng.uniform(-0.1, 0.1, (len(resets), 8))
    return observations


def test_gym_without_timeouts_is_cut_after_a_thousand_rows_since_the_last_end(tmp_path):
    # A terminal in row 499 begins the count anew: cuts in rows 1499 and, after it, 2499.
    path = write(tmp_path / GYM, numbered(2600), terminals=marks(2600, 499))
    dataset = load_d4rl(path)
    data = dataset.transitions
    assert np.setdiff1d(np.arange(2600), data.rewards).tolist() == [1499, 2499, 2599]
    assert data.rewards[data.timeouts].tolist() == [1498, 2498, 2598]
    assert data.lengths().tolist() == [500, 999, 999, 99]
    assert dataset.notes[0].startswith("no timeouts column: episodes of hopper-medium-v0")
    assert data.task == "hopper"


def test_a_terminal_in_the_thousandth_row_stays_a_terminal(tmp_path):
    path = write(tmp_path / GYM, numbered(1500), terminals=marks(1500, 999))
    data = read_d4rl(path)
    assert data.terminals[data.rewards == 999].all()
    assert data.lengths().tolist() == [1000, 499]


def test_another_file_without_timeouts_is_cut_nowhere(tmp_path):
    data = read_d4rl(write(tmp_path / "mine.hdf5", numbered(2600)))
    assert len(data.starts) == 1


def test_wrong_timeouts_of_antmaze_are_put_where_the_ant_was_reset(tmp_path):
    # Episodes 0-4, 5-9, 10-11; the file marks row 2 and row 9.
    path = write(tmp_path / ANT, ant(12, 0, 5, 10), timeouts=marks(12, 2, 9))
    dataset = load_d4rl(path)
    data = dataset.transitions
    assert data.rewards.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10]
    assert data.rewards[data.timeouts].tolist() == [3, 8, 10]
    assert "1 resets unmarked, 1 marks elsewhere" in dataset.notes[0]
    steps = data.next_observations[:, 0] - data.observations[:, 0]
    assert (steps == 1).all()


def test_right_timeouts_of_antmaze_are_left_alone(tmp_path):
    path = write(tmp_path / ANT, ant(12, 0, 5, 10), timeouts=marks(12, 4, 9, 11))
    dataset = load_d4rl(path)
    assert dataset.transitions.lengths().tolist() == [4, 4, 1]
    assert dataset.notes == ()


def test_a_reward_for_the_next_episodes_start_is_void(tmp_path):
    # Relabelling looked at the next row, which after a reset is another episode's.
    terminals = marks(12, 4, 7, 8)
    path = write(tmp_path / ANT, ant(12, 0, 5, 10), timeouts=marks(12, 4, 9), terminals=terminals)
    data = read_d4rl(path)
    assert data.rewards[data.terminals].tolist() == [7, 8]
    assert 4 not in data.rewards


def test_antmaze_with_successors_of_its_own_is_believed(tmp_path):
    path = write(tmp_path / ANT, ant(8, 0, 5), next_observations=ant(8), timeouts=marks(8, 2, 7))
    assert read_d4rl(path).lengths().tolist() == [3, 5]


def test_maze2d_without_timeouts_is_cut_where_the_goal_moves(tmp_path):
    goal = np.repeat([[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]], [3, 4, 3], axis=0)
    path = write(tmp_path / MAZE, numbered(10, 4), **{"infos/goal": goal})
    dataset = load_d4rl(path)
    data = dataset.transitions
    assert data.rewards.tolist() == [0, 1, 3, 4, 5, 7, 8]
    assert data.lengths().tolist() == [2, 3, 2]
    assert data.info["goal"][data.starts].tolist() == [[1, 1], [3, 1], [1, 1]]
    assert dataset.notes == ("no timeouts column: cut at 2 rows after which the goal moves",)


def test_maze2d_with_timeouts_is_believed(tmp_path):
    goal = np.arange(10)[:, None] * np.ones(2)
    path = write(tmp_path / MAZE, numbered(10, 4), timeouts=marks(10, 4), **{"infos/goal": goal})
    assert read_d4rl(path).lengths().tolist() == [4, 4]


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_real_numbers_come_in_float32_whatever_the_file_has(tmp_path, kind):
    observations = np.linspace(0, 1, 18).reshape(6, 3).astype(kind)
    path = write(
        tmp_path / "a.hdf5",
        observations,
        rewards=np.arange(6, dtype=kind),
        terminals=np.array([0, 0, 1, 0, 0, 0], np.float32),
        timeouts=np.array([0, 0, 0, 0, 0, 1], np.uint8),
    )
    data = read_d4rl(path)
    for name in ("observations", "actions", "rewards", "next_observations"):
        assert getattr(data, name).dtype == np.float32
    assert np.array_equal(data.observations, observations[:5].astype(np.float32))
    assert data.terminals.tolist() == [False, False, True, False, False]


def test_infos_go_along_and_those_of_other_lengths_stay_behind(tmp_path):
    path = write(
        tmp_path / "a.hdf5",
        numbered(6),
        timeouts=marks(6, 2),
        **{"infos/qpos": numbered(6, 2), "infos/init_qpos": np.zeros((2, 2))},
    )
    data = read_d4rl(path)
    assert set(data.info) == {"qpos"}
    assert data.info["qpos"][:, 0].tolist() == data.rewards.tolist() == [0, 1, 3, 4]


def test_a_task_is_known_by_the_name_of_the_file(tmp_path):
    for name, task in (("kitchen-complete-v0", "kitchen-complete"), ("x", "")):
        path = write(tmp_path / f"{name}.hdf5", numbered(3))
        assert read_d4rl(path).task == task
