"""Samplers against the exact consistency function of a Gaussian.

For data N(m, s^2) the PF-ODE is linear and its solution through (x, tau) reaches eps at
f(x, tau) = m + sqrt((s^2 + eps^2) / (s^2 + tau^2)) (x - m).
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.diffusion.sampler import multi_step, one_step

EPS = 0.002


def exact(mean, std):
    return lambda x, tau: mean + np.sqrt((std**2 + EPS**2) / (std**2 + tau**2)) * (x - mean)


def test_one_step_calls_once_at_the_given_level():
    calls = []
    out = one_step(lambda x, tau: calls.append((x, tau)) or x / tau, 3.0, 80.0)
    assert calls == [(240.0, 80.0)]
    assert out == 3.0


def test_one_step_has_the_gaussian_moments():
    mean, std, top = 0.3, 0.6, 80.0
    noise = np.random.default_rng(0).standard_normal(400_000)
    x = one_step(exact(mean, std), noise, top)
    # Starting from N(0, T^2) in place of N(m, s^2 + T^2): off by a factor that T makes small.
    assert x.mean() == pytest.approx(mean * (1 - std / top), abs=5e-3)
    assert x.std() == pytest.approx(std, rel=5e-3)


@pytest.mark.parametrize("levels", [(80.0, 2.0), (80.0, 20.0, 2.0, 0.5)])
def test_multi_step_has_the_gaussian_moments(levels):
    mean, std = -0.4, 0.5
    noises = list(np.random.default_rng(1).standard_normal((len(levels), 400_000)))
    x = multi_step(exact(mean, std), noises, levels, EPS)
    assert x.mean() == pytest.approx(mean, abs=0.01)
    assert x.std() == pytest.approx(std, rel=0.01)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_two_steps_by_hand(a, z0, z1):
    # f(x, tau) = a + x / tau: a + z0 first, then renoised to 2: x = a + (a + z0 + r z1) / 2.
    renoise = (2.0**2 - EPS**2) ** 0.5
    out = multi_step(lambda x, tau: a + x / tau, [z0, z1], (80.0, 2.0), EPS)
    assert out == pytest.approx(a + (a + z0 + renoise * z1) / 2.0)


def test_as_many_noises_as_levels():
    with pytest.raises(ValueError, match="longer"):
        multi_step(lambda x, tau: x, [0.0], (80.0, 2.0), EPS)
