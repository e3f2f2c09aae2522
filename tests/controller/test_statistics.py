"""Averages and bootstrap intervals against closed forms, hand calculation and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from controller import statistics
from controller.statistics import interval, iqm, mean, mean_interval


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([9.0, 0.0, 3.0], 4.0),
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        # Five values lose one at each end, not one and a quarter.
        ([5.0, -9.0, 1.0, 3.0, 99.0], 3.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 600.0, -1.0], (1 + 2 + 3 + 4 + 5) / 5),
        ([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0], (3 + 4 + 5 + 6) / 4),
    ],
)
def test_interquartile_mean_by_hand(values, expected):
    assert iqm(np.array(values)) == pytest.approx(expected)


@settings(deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 3), st.integers(1, 23)), elements=st.floats(-9, 9)))
def test_interquartile_mean_is_scipys_trimmed_mean(values):
    stats = pytest.importorskip("scipy.stats")
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=-1), abs=1e-12)


@pytest.mark.parametrize("count", [300, 3000])
def test_interval_of_the_mean_is_the_normal_one_for_many_values(count):
    values = np.random.default_rng(3).normal(4.0, 2.0, count)
    low, high = mean_interval(values)
    half = 1.959964 * values.std() / math.sqrt(count)
    assert low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_interval_of_two_values_is_every_outcome():
    # A resample of (0, 1) has mean 0, 1/2, 1/2 or 1: the middle half is 1/2, the most is 0 to 1.
    assert interval([[0.0, 1.0]], confidence=0.4) == (0.5, 0.5)
    assert interval([[0.0, 1.0]], confidence=0.95) == (0.0, 1.0)


def test_interval_of_one_value_is_that_value():
    assert mean_interval([3.5]) == (3.5, 3.5)


@pytest.mark.parametrize("size", [5, 40])
def test_interval_is_scipys_percentile_bootstrap(size):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(size).gamma(2.0, 3.0, size)
    theirs = stats.bootstrap(
        (values,), iqm, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    mine = interval([values], iqm, resamples=20_000)
    width = theirs.high - theirs.low
    assert mine == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_groups_are_resampled_on_their_own():
    # Within each group nothing varies, so that the whole does not either.
    assert interval([[0.0, 0.0], [10.0, 10.0, 10.0]]) == (6.0, 6.0)
    assert interval([[0.0, 0.0, 10.0, 10.0, 10.0]]) != (6.0, 6.0)


def test_interval_of_groups_is_the_normal_one_for_many_values():
    rng = np.random.default_rng(0)
    groups = [rng.normal(0.0, 1.0, 400), rng.normal(50.0, 3.0, 1200)]
    low, high = interval(groups)
    whole = np.concatenate(groups)
    variance = sum(len(group) * group.var() for group in groups) / len(whole) ** 2
    half = 1.959964 * math.sqrt(variance)
    assert (low, high) == pytest.approx((whole.mean() - half, whole.mean() + half), abs=0.06 * half)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    ends = [mean_interval(rng.normal(1.0, 1.0, 50), seed=k) for k in range(400)]
    covered = np.mean([low <= 1.0 <= high for low, high in ends])
    # At n = 50 the percentile bootstrap covers 0.94; 3.5 standard errors of 400 trials is 0.04.
    assert 0.90 < covered < 0.98


def test_memory_is_bounded_and_every_resample_is_drawn(monkeypatch):
    monkeypatch.setattr(statistics, "CELLS", 100)
    shapes = []

    def watched(values):
        shapes.append(values.shape)
        return mean(values)

    interval([np.arange(20.0), np.arange(10.0)], watched, resamples=10)
    assert shapes == [(3, 30), (3, 30), (3, 30), (1, 30)]


def test_same_seed_same_ends():
    values = np.arange(20.0)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], []]])
def test_nothing_to_resample_is_refused(groups):
    with pytest.raises(ValueError, match="expected 1 or more"):
        interval(groups)


def test_mean_is_over_the_last_axis():
    assert mean(np.array([[1.0, 3.0], [5.0, 7.0]])).tolist() == [2.0, 6.0]
