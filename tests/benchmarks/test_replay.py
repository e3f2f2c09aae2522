"""The benchmark of the replay service runs; its times are nobody's test."""

import pytest

from tests.benchmarks import replay
from tests.benchmarks.replay import BATCHES, BLOCKS, crowd, figures, kept, wire


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(replay, "TURNS", 2)
    monkeypatch.setattr(replay, "TURN_S", 0.0)


@pytest.mark.parametrize("measure", [kept, wire])
def test_a_row_for_each_block_and_each_draw(tmp_path, measure):
    rows = measure("hopper", tmp_path, 2000)
    assert [row["rows"] for row in rows] == [*BLOCKS, *(256 * count for count in BATCHES)]
    assert [row["work"] for row in rows] == ["insert"] * 3 + ["draw"] * 2
    assert all(row["us"] > 0 < row["floor_us"] for row in rows)


def test_a_crowd_inserts(tmp_path):
    row = crowd("hopper", tmp_path, 2, 0.1)
    assert row["clients"] == 2
    assert row["rows_per_s"] > 0


def test_the_ratio_is_to_the_floor():
    row = figures("kept", "hopper", "insert", 16, 32.0, 8.0)
    assert (row["us_per_row"], row["ratio"]) == (2.0, 4.0)
