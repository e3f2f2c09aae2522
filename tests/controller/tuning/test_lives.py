import numpy as np
import pytest

from controller.status import StatusBoard
from controller.tuning.lives import EPISODES, LIVES, Life, begin_life


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_no_episode_belongs_to_two_lives(seed):
    starts = [Life(life).seed(seed, index) for index in range(1024) for life in range(LIVES)]
    apart = np.diff(np.sort(starts))
    # With as many starts as fit, EPISODES apart, the circle of 2^32 is full.
    assert len(starts) * EPISODES == 2**32
    assert set(apart.tolist()) == {EPISODES}


def test_neighbouring_seeds_of_a_fine_tuning_are_far_apart():
    starts = np.array([Life().seed(seed, 0) for seed in range(10)])
    apart = np.abs(starts[:, None] - starts)[np.triu_indices(10, 1)]
    assert np.minimum(apart, 2**32 - apart).min() > 1000 * EPISODES


def test_each_life_counts_on_from_those_before(tmp_path):
    out = tmp_path / "actor"
    assert begin_life(out) == Life(0, 0)
    for ticks in (300, 0, 50):
        with StatusBoard(out / "status.bin", create=True) as board:
            board.write(ticks=ticks)
        life = begin_life(out)
    assert life == Life(3, 350)
    # The counters begin anew with the life, so that one without a tick adds nothing.
    assert begin_life(out) == Life(4, 350)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"number": "x"}'])
def test_a_damaged_note_begins_anew(tmp_path, damage):
    (tmp_path / "life.json").write_bytes(damage)
    assert begin_life(tmp_path) == Life()
