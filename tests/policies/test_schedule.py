"""Noise levels against the formulas, evaluated by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.diffusion.schedule import (
    consistency_levels,
    doubling_size,
    grid_size,
    karras,
    paper_levels,
    variance_preserving,
)
from policies.learning import ConsistencySettings


def test_grid_ends_and_middle_by_hand():
    levels = karras(3, 0.002, 80.0, 7.0)
    middle = ((0.002 ** (1 / 7) + 80.0 ** (1 / 7)) / 2) ** 7
    assert levels.tolist() == pytest.approx([0.002, middle, 80.0], rel=1e-12)
    assert middle == pytest.approx(2.5152189, rel=1e-6)


def test_two_points_are_the_ends_exactly():
    assert karras(2, 0.002, 80.0, 7.0).tolist() == [0.002, 80.0]


def test_rho_one_is_linear():
    assert np.allclose(karras(5, 1.0, 5.0, 1.0), [1, 2, 3, 4, 5])


@given(st.integers(2, 200), st.floats(1e-3, 1.0), st.floats(1.5, 1000.0), st.floats(0.5, 10.0))
def test_grid_rises_strictly(n, low, factor, rho):
    levels = karras(n, low, low * factor, rho)
    assert len(levels) == n
    assert (np.diff(levels) > 0).all()


def test_one_point_is_no_grid():
    with pytest.raises(ValueError, match="2 points or more, got 1"):
        karras(1, 0.002, 80.0, 7.0)


def test_curriculum_of_the_paper():
    # N(0) = ceil(2 - 1) + 1 = 2; N(K) = ceil(151 - 1) + 1 = 151; N(K/2) = ceil(105.79) + 1.
    assert [grid_size(k, 1000, 2, 150) for k in (0, 500, 1000)] == [2, 107, 151]


@given(st.integers(1, 20), st.integers(0, 200), st.integers(1, 500))
def test_curriculum_grows(s0, more, total):
    sizes = [grid_size(k, total, s0, s0 + more) for k in range(total + 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 2 or s0 == 1
    assert sizes[-1] == s0 + more + 1


PUBLISHED = {
    0: 2, 100: 7, 500: 16, 1_000: 22, 5_000: 48,
    10_000: 68, 20_000: 95, 25_000: 107, 40_000: 135, 49_999: 150,
}  # fmt: skip
"""N(k) of the released code of Ding & Jin, whose curriculum takes 50 000 updates."""


@pytest.mark.parametrize("cycle", [0, 1, 39])
def test_curriculum_of_the_released_code_begins_again(cycle):
    settings = ConsistencySettings(
        levels_start=2, levels_end=150, growth="released", restart=50_000
    )
    for k, levels in PUBLISHED.items():
        assert settings.levels_at(k + 50_000 * cycle, 2_000_000) == levels


def test_curriculum_of_the_paper_goes_once_over_the_run():
    settings = ConsistencySettings(levels_start=2, levels_end=150)
    assert [settings.levels_at(k, 1000) for k in (0, 500, 999, 1000)] == [2, 107, 151, 151]
    again = ConsistencySettings(levels_start=2, levels_end=150, restart=500)
    assert [again.levels_at(k, 1000) for k in (0, 250, 500, 750)] == [2, 107, 2, 107]


def test_curriculum_that_doubles():
    # log2(1280 / 10) = 7 doublings in 8 equal stretches of 1000 updates; N is steps + 1.
    settings = ConsistencySettings(levels_start=10, levels_end=1280, growth="doubling")
    sizes = [settings.levels_at(k, 8000) for k in range(0, 8000, 1000)]
    assert sizes == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert [doubling_size(k, 8000, 10, 1280) for k in (999, 1999, 7999, 8000)] == [
        11, 21, 1281, 1281,
    ]  # fmt: skip


def test_doubling_ends_at_s1_that_is_no_power_of_two_away():
    # 10, 20, then 25 in the place of 40: floor(900 / (log2(2.5) + 1)) = 387 updates each.
    assert [doubling_size(k, 900, 10, 25) for k in (0, 386, 387, 773, 774, 900)] == [
        11, 11, 21, 21, 26, 26,
    ]  # fmt: skip


@given(st.integers(1, 20), st.integers(0, 300), st.integers(1, 300))
def test_doubling_grows_from_s0_to_s1(s0, more, total):
    sizes = [doubling_size(k, total, s0, s0 + more) for k in range(total + 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] == s0 + 1
    assert sizes[-1] <= s0 + more + 1
    if total > 20:
        assert sizes[-1] == s0 + more + 1


def test_chain_of_five_as_published():
    # The betas that follow from the formula are quoted for N = 5 to three digits.
    chain = variance_preserving(5)
    assert chain.betas == pytest.approx([0.196, 0.459, 0.636, 0.755, 0.835], abs=5e-4)
    assert chain.alpha_bars[-1] == pytest.approx(0.0064, abs=5e-5)
    assert chain.variances[0] == 0.0


@given(st.integers(1, 200))
def test_every_chain_ends_at_the_same_noise(n):
    chain = variance_preserving(n)
    assert chain.alpha_bars[-1] == pytest.approx(math.exp(-0.1 - 0.5 * 9.9), rel=1e-9)
    assert (np.diff(chain.alpha_bars) < 0).all()
    betas, variances = np.array(chain.betas), np.array(chain.variances)
    assert ((betas > 0) & (betas < 1)).all()
    assert (variances <= betas).all()


def test_levels_of_the_released_code_and_of_the_paper():
    assert consistency_levels(1) == (80.0,)
    assert consistency_levels(2) == (80.0, 2.0)
    assert consistency_levels(5) == (80.0, 60.5, 41.0, 21.5, 2.0)
    assert paper_levels(2) == (80.0,)
    assert paper_levels(3) == pytest.approx((80.0, 40.001))


def test_chains_and_levels_of_nothing():
    for make in (variance_preserving, consistency_levels):
        with pytest.raises(ValueError, match=r"1 .* or more, got 0"):
            make(0)
    with pytest.raises(ValueError, match="2 points or more, got 1"):
        paper_levels(1)
