"""Samplers against the exact consistency function of a Gaussian.

For data N(m, s^2) the PF-ODE is linear and its solution through (x, tau) reaches eps at
f(x, tau) = m + sqrt((s^2 + eps^2) / (s^2 + tau^2)) (x - m).
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.diffusion.precond import Precondition
from policies.diffusion.sampler import ancestral, multi_step, one_step
from policies.diffusion.schedule import respaced, variance_preserving
from policies.model import (
    ConsistencyModel,
    DiffusionModel,
    PreconditionSettings,
    SamplerSettings,
)
from policies.plan import chain_of, plan

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


def gaussian_noise(chain, mean, std):
    """Return E[e | x_t] for data N(mean, std^2): the best any network can do."""

    def predict(x, t):
        left = chain.alpha_bars[t - 1]
        spread = left * std**2 + 1.0 - left
        return np.sqrt(1.0 - left) * (x - np.sqrt(left) * mean) / spread

    return predict


@pytest.mark.parametrize("n", [1, 5, 50])
def test_ancestral_moments_are_those_of_the_linear_chain(n):
    """With the exact noise and no clipping each step is linear: moments follow by hand."""
    mean, std = 0.3, 0.4
    chain = variance_preserving(n)
    expected, variance = 0.0, 1.0
    for t in range(n, 0, -1):
        beta, left = chain.betas[t - 1], chain.alpha_bars[t - 1]
        before = chain.alpha_bars[t - 2] if t > 1 else 1.0
        # E[x0 | x_t] = mean + gain (x_t - sqrt(abar) mean).
        gain = np.sqrt(left) * std**2 / (left * std**2 + 1.0 - left)
        x0, xt = np.sqrt(before) * beta, np.sqrt(1 - beta) * (1 - before)
        slope = (x0 * gain + xt) / (1 - left)
        offset = x0 * (mean - gain * np.sqrt(left) * mean) / (1 - left)
        expected = slope * expected + offset
        variance = slope**2 * variance + (chain.variances[t - 1] if t > 1 else 0.0)
    noises = list(np.random.default_rng(0).standard_normal((n, 200_000)))
    x = ancestral(gaussian_noise(chain, mean, std), noises, chain, lambda clean: clean)
    assert x.mean() == pytest.approx(expected, abs=4e-3)
    assert x.std() == pytest.approx(np.sqrt(variance), abs=4e-3)


def test_long_chains_sample_the_data():
    chain = variance_preserving(200)
    noises = list(np.random.default_rng(0).standard_normal((200, 20_000)))
    x = ancestral(gaussian_noise(chain, 0.3, 0.4), noises, chain, lambda clean: clean)
    assert x.mean() == pytest.approx(0.3, abs=0.02)
    assert x.std() == pytest.approx(0.4, rel=0.05)


def test_one_step_of_a_chain_by_hand():
    # N = 1: x0 = (x - sqrt(1 - abar) e) / sqrt(abar) alone, clipped; no noise is added.
    chain = variance_preserving(1)
    left = chain.alpha_bars[0]
    out = ancestral(lambda x, t: 0.5 * x + t, [0.7], chain, lambda clean: min(clean, 1.0))
    assert out == min((0.7 - np.sqrt(1 - left) * 1.35) / np.sqrt(left), 1.0)
    high = ancestral(lambda x, t: -x, [0.7], chain, lambda clean: min(clean, 1.0))
    assert high == pytest.approx(1.0)


def test_a_chain_respaced_to_its_own_length_is_itself():
    chain = variance_preserving(20)
    assert respaced(chain, 20) == (chain, list(range(20)))


@given(st.integers(1, 60), st.data())
def test_a_respaced_chain_passes_through_levels_of_the_whole(n, data):
    chain = variance_preserving(n)
    k = data.draw(st.integers(1, n))
    short, kept = respaced(chain, k)
    assert len(short) == len(kept) == k
    assert kept[-1] == n - 1
    assert sorted(set(kept)) == kept
    gaps = np.diff([-1, *kept])
    assert gaps.max() - gaps.min() <= 1
    assert short.alpha_bars == tuple(chain.alpha_bars[index] for index in kept)
    np.testing.assert_allclose(np.cumprod(1 - np.array(short.betas)), short.alpha_bars)
    before = np.array([1.0, *short.alpha_bars[:-1]])
    reverse = np.array(short.betas) * (1 - before) / (1 - np.array(short.alpha_bars))
    np.testing.assert_allclose(short.variances, reverse)
    assert short.variances[0] == 0.0


@pytest.mark.parametrize("steps", [0, 6])
def test_a_chain_has_no_more_steps_than_it_has(steps):
    with pytest.raises(ValueError, match=f"{steps} steps of a chain of 5: expected 1 to 5"):
        respaced(variance_preserving(5), steps)


def test_part_of_a_long_chain_samples_the_data_nearly():
    """50 of 1000 steps, the network told the step of the whole chain."""
    whole = variance_preserving(1000)
    short, kept = respaced(whole, 50)
    exactly = gaussian_noise(whole, 0.3, 0.4)
    noises = list(np.random.default_rng(0).standard_normal((50, 20_000)))
    x = ancestral(lambda x, t: exactly(x, kept[t - 1] + 1), noises, short, lambda clean: clean)
    assert x.mean() == pytest.approx(0.3, abs=0.02)
    assert x.std() == pytest.approx(0.4, rel=0.12)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_plan_of_a_chain_is_the_walk_back(steps):
    model, sampler = DiffusionModel(), SamplerSettings(steps=steps, temperature=0.7)
    chain, told = chain_of(model, sampler)
    noises = list(np.random.default_rng(0).standard_normal((steps, 50)))

    def network(x, label):
        return np.sin(3.0 * x + label)

    expected = ancestral(
        lambda x, t: network(x, told[t - 1]),
        [0.7 * noises[0], *noises[1:]],
        chain,
        lambda clean: np.clip(clean, -1, 1),
    )
    np.testing.assert_allclose(walked(plan(model, sampler), noises, network), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["edm", "paper"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_plan_of_a_consistency_policy_is_multi_step(steps, kind):
    model = ConsistencyModel(noise=PreconditionSettings(kind=kind))
    sampler = SamplerSettings(steps=steps, temperature=0.7)
    pre = Precondition.of(model.noise)
    noises = list(np.random.default_rng(0).standard_normal((steps, 50)))

    def network(x, label):
        return np.sin(3.0 * x + label)

    def denoise(x, tau):
        return pre.c_skip(tau) * x + pre.c_out(tau) * network(pre.c_in(tau) * x, pre.c_noise(tau))

    scaled = [0.7 * noises[0], *noises[1:]]
    expected = multi_step(denoise, scaled, model.levels(sampler), model.noise.sigma_min)
    got = walked(plan(model, sampler), noises, network)
    np.testing.assert_allclose(got, np.clip(expected, -1, 1), rtol=1e-9, atol=1e-12)
    assert (np.abs(got) < 1).any()


def walked(steps, noises, network):
    """Take the steps as the plan defines them."""
    x = 0.0
    for step, z in zip(steps, noises, strict=True):
        x = x + step.spread * z
        clean = step.skip * x + step.gain * network(step.scale * x, step.label)
        clean = np.clip(clean, -1, 1) if step.limited else clean
        x = step.keep_clean * clean + step.keep_x * x
    return x
