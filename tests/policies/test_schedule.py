"""Noise levels against the formulas, evaluated by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.diffusion.schedule import (
    consistency_levels,
    grid_size,
    karras,
    pair_probabilities,
    paper_levels,
    variance_preserving,
)


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


def test_lognormal_pairs_are_integrals_of_the_density():
    levels = karras(20, 0.002, 80.0, 7.0)
    chances = pair_probabilities(levels, -1.1, 2.0)
    draws = np.exp(np.random.default_rng(0).normal(-1.1, 2.0, 400_000))
    counts, _ = np.histogram(draws, levels)
    assert chances.sum() == pytest.approx(1.0)
    assert np.abs(counts / counts.sum() - chances).max() < 3e-3


def test_lognormal_pair_by_hand():
    # Between e^-1 and e^1, split at 1, with mean 0: two equal halves.
    levels = np.array([math.exp(-1.0), 1.0, math.exp(1.0)])
    assert pair_probabilities(levels, 0.0, 1.0) == pytest.approx([0.5, 0.5])


def test_chain_of_five_as_published():
    # The betas that follow from the formula are quoted for N = 5 to three digits.
    chain = variance_preserving(5)
    assert chain.betas.round(3).tolist() == [0.196, 0.459, 0.636, 0.755, 0.835]
    assert chain.variances[0] == 0.0


@given(st.integers(1, 200))
def test_every_chain_ends_at_the_same_noise(n):
    chain = variance_preserving(n)
    assert chain.alpha_bars[-1] == pytest.approx(math.exp(-0.1 - 0.5 * 9.9), rel=1e-9)
    assert (np.diff(chain.alpha_bars) < 0).all()
    assert ((chain.betas > 0) & (chain.betas < 1)).all()
    assert (chain.variances <= chain.betas).all()


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
