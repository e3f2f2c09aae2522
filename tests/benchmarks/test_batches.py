"""The benchmark of batches runs; its times are nobody's test."""

import numpy as np

from tests.benchmarks import batches
from tests.benchmarks.batches import figures, measure


def test_a_row_for_each_batch(monkeypatch):
    monkeypatch.setattr(batches, "TURN_S", 0.0)
    monkeypatch.setattr(batches, "BATCHES", (1, 4))
    rows = measure(("consistency", 1, 4, 2), ("numpy", "cpu"), 1)
    assert [row["batch"] for row in rows] == [1, 4]
    assert {(row["horizon"], row["prefix"], row["engine"]) for row in rows} == {(4, 2, "numpy")}
    assert all(0 < row["us_p50"] <= row["us_p99"] for row in rows)


def test_ratio_is_to_as_many_requests_one_by_one():
    row = figures(8, np.full(5, 100.0), 50.0)
    assert (row["per_request"], row["ratio"]) == (12.5, 4.0)
