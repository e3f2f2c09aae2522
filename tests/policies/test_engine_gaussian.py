"""The engines of tanh-Gaussian policies agree with the learner and with each other."""

import numpy as np
import pytest
import torch

from policies.engine_gaussian import NumpyGaussian, torch_gaussian
from tests.policies.test_sac import learner


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_engines_give_the_action_of_the_learner(temperature):
    sac, rng = learner(), np.random.default_rng(0)
    weights = sac.policy_arrays()
    by_hand = NumpyGaussian(weights, 2, temperature)
    in_torch = torch_gaussian(weights, 2, temperature, "cpu")
    for _ in range(10):
        seen = rng.standard_normal((1, 3)).astype(np.float32)
        noise = rng.standard_normal((1, 2)).astype(np.float32)
        expected = sac.act(torch.from_numpy(seen), temperature * torch.from_numpy(noise))
        np.testing.assert_allclose(by_hand(seen, noise), expected, atol=1e-6)
        np.testing.assert_allclose(in_torch(seen, noise), expected, atol=1e-6)


def test_without_noise_it_is_the_mean_action():
    sac, seen = learner(), torch.randn(1, 3)
    noise = np.ones((1, 2), np.float32)
    got = NumpyGaussian(sac.policy_arrays(), 2, 0.0)(seen.numpy(), noise)
    np.testing.assert_allclose(got, sac.act(seen), atol=1e-6)
    drawn = NumpyGaussian(sac.policy_arrays(), 2, 1.0)(seen.numpy(), noise)
    assert np.abs(drawn - got).max() > 0.01


def test_answers_are_arrays_of_their_own():
    draw = NumpyGaussian(learner().policy_arrays(), 2)
    noise = np.zeros((1, 2), np.float32)
    first = draw(np.ones((1, 3), np.float32), noise)
    kept = first.copy()
    draw(-np.ones((1, 3), np.float32), noise)
    assert np.array_equal(first, kept)


def test_the_torch_engine_takes_several_observations():
    draw = torch_gaussian(learner().policy_arrays(), 2, 1.0, "cpu")
    seen = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((1, 5, 2)).astype(np.float32)
    rows = [draw(seen[i : i + 1], noise[:, i]) for i in range(5)]
    np.testing.assert_allclose(draw(seen, noise), np.concatenate(rows), atol=1e-6)
