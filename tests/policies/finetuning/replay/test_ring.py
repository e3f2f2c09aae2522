"""The ring: the newest rows, whole, drawn evenly, and as they were up to the slack earlier."""

import mmap
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import DataError
from policies.finetuning.replay.ring import Ring


def numbered(first, count, width=3):
    return np.arange(first, first + count, dtype=np.float32)[:, None] + np.zeros((1, width), "f")


def held(ring):
    return ring.column(0).astype(int).tolist()


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 40),
    slack=st.integers(1, 12),
    blocks=st.lists(st.integers(0, 12), max_size=20),
)
def test_holds_the_newest_rows_in_order(tmp_path_factory, capacity, slack, blocks):
    ring = Ring(tmp_path_factory.mktemp("ring") / "rows", capacity, slack, 3)
    for block in blocks:
        for part in (min(block, slack), block - min(block, slack)):
            ring.append(numbered(ring.count, min(part, slack)))
    assert held(ring) == list(range(max(0, ring.count - capacity), ring.count))
    assert len(ring) == min(capacity, ring.count)


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 30),
    before=st.integers(1, 80),
    after=st.lists(st.integers(0, 7), max_size=8),
)
def test_rows_are_as_they_were_up_to_the_slack_later(tmp_path_factory, capacity, before, after):
    file = tmp_path_factory.mktemp("ring") / "rows"
    ring = Ring(file, capacity, 7, 3)
    for first in range(0, before, 7):
        ring.append(numbered(first, min(7, before - first)))
    was, left = held(ring), 7
    for block in after:
        ring.append(numbered(-1000, min(block, left)))
        left -= min(block, left)
    again = Ring(file, capacity, 7, 3, count=before)
    assert held(again) == was


def test_draws_are_whole_and_even(tmp_path):
    ring = Ring(tmp_path / "rows", 20, 8, 3)
    for first in range(0, 56, 8):
        ring.append(numbered(first, 8))
    numbers, rows = ring.draw(4000, np.random.default_rng(0))
    assert (rows == numbers[:, None]).all()
    counts = np.bincount(numbers)
    # 4000 draws of 20 rows: 200 each, with a standard deviation of 13.8.
    assert len(counts) == 56
    assert np.flatnonzero(counts).tolist() == list(range(36, 56))
    assert abs(counts[36:] - 200).max() < 65


def test_flush_reaches_every_page_that_was_written(tmp_path, monkeypatch):
    width, flushed = 1000, []
    ring = Ring(tmp_path / "rows", 40, 10, width)

    class Seen:
        def flush(self, offset, size):
            assert offset % mmap.PAGESIZE == 0
            flushed.append((offset, offset + size))

    ring._bytes = Seen()
    row = 4 * width
    for first in range(0, 130, 10):
        ring.append(numbered(first, 10, width))
        flushed.clear()
        ring.flush(first)
        start = first % 50 * row
        assert flushed[0][0] <= start < start + 10 * row <= flushed[-1][1]
        assert flushed[-1][1] - flushed[0][0] < 10 * row + mmap.PAGESIZE
    flushed.clear()
    ring.flush(ring.count)
    assert flushed == []
    ring.flush(ring.count - 40)  # From place 40 on, over the end of the file.
    assert [(a // row, b // row) for a, b in flushed] == [(39, 50), (0, 30)]


def test_the_whole_file_is_on_the_disk_from_the_start(tmp_path):
    Ring(tmp_path / "rows", 10_000, 1_000, 9)
    assert os.stat(tmp_path / "rows").st_blocks * 512 >= 11_000 * 9 * 4


def test_a_file_that_is_gone_or_of_another_size_is_told(tmp_path):
    with pytest.raises(DataError, match="rows: is gone"):
        Ring(tmp_path / "rows", 10, 2, 3, count=0)
    Ring(tmp_path / "rows", 10, 2, 3)
    with pytest.raises(DataError, match="has 144 bytes, expected 264"):
        Ring(tmp_path / "rows", 20, 2, 3, count=5)
