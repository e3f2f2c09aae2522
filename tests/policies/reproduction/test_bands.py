"""Bands around learning curves, against closed forms."""

import math

import numpy as np
import pytest

from policies.reproduction.bands import GRID, T_975, band, t_975, t_interval


def t_cdf(value, freedom):
    """Student's distribution function by the trapezoid rule on its density."""
    x = np.linspace(-200.0, value, 200_001)
    scale = math.exp(
        math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    ) / math.sqrt(freedom * math.pi)  # fmt: skip
    return float(np.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x))


@pytest.mark.parametrize("freedom", [2, 3, 5, 10, 29, 30, 31, 60])
def test_quantiles_hold_97_5_per_cent_below_them(freedom):
    assert t_cdf(t_975(freedom), freedom) == pytest.approx(0.975, abs=1e-4)


def test_quantile_of_one_degree_of_freedom_is_that_of_cauchy():
    assert T_975[0] == pytest.approx(math.tan(math.pi * 0.475), abs=1e-4)


def test_interval_of_three_values_by_hand():
    # Mean 2, sample standard deviation 1, half width 4.3027 / sqrt(3).
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)))
    assert t_interval([1.0]) is None
    # Half width of two values: 12.7062 times half their distance.
    assert t_interval([0.0, 2.0]) == pytest.approx((1 - 12.7062, 1 + 12.7062))


def line(x, slope, offset=0.0):
    x = np.asarray(x, float)
    return x, slope * x + offset


def test_lines_of_three_seeds_have_their_mean_and_t_band_wherever_they_are_sampled():
    curves = [line([0, 10, 100], 1.0), line([0, 50, 100], 2.0), line([0, 33, 66, 100], 3.0)]
    found = band(curves)
    assert found.seeds == 3
    assert found.x.shape == (GRID,)
    np.testing.assert_allclose(found.mean, 2 * found.x)
    half = 4.3027 / math.sqrt(3) * found.x
    np.testing.assert_allclose(found.high - found.mean, half)
    np.testing.assert_allclose(found.mean - found.low, half)


def test_band_of_two_seeds_is_their_range_and_of_one_nothing():
    two = band([line([0, 4], 1.0), line([0, 4], 3.0)])
    np.testing.assert_allclose(two.low, two.x)
    np.testing.assert_allclose(two.high, 3 * two.x)
    one = band([line([0, 4], 1.0)])
    np.testing.assert_allclose(one.low, one.mean)
    np.testing.assert_allclose(one.high, one.mean)


def test_a_mean_is_drawn_only_where_every_seed_is():
    found = band([line([0, 60], 1.0), line([5, 100], 1.0)])
    assert (found.x[0], found.x[-1]) == (5, 60)
    assert band([line([0, 10], 1.0), line([20, 30], 1.0)]) is None
    assert band([]) is None
