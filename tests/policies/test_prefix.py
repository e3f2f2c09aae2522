"""What is known beforehand, against Gaussians whose conditional mean is known in closed form.

Rows of an answer are correlated: x ~ N(0, S), S_ij = s^2 rho^|i-j|. Given the first rows, the mean
of the others is S_rp S_pp^-1 prefix. The exact denoisers are linear, with S = U diag(l) U^T.
"""

import numpy as np
import pytest

from policies.codec import of_limits
from policies.ensemble import REACH, SLACK, EnsembleDraw, shifted
from policies.model import ChainSettings, ConsistencyModel, DiffusionModel, SamplerSettings
from policies.plan import chain_of, plan, share_at_start
from policies.prefix import Known, known_of
from policies.sampling import ChainDraw
from tests.policies.weights import robot

ROWS, KNOWN, SPREAD, RHO = 6, 2, 0.15, 0.9
GAPS = np.abs(np.subtract.outer(np.arange(ROWS), np.arange(ROWS)))
COVARIANCE = SPREAD**2 * RHO**GAPS
POWER, AXES = np.linalg.eigh(COVARIANCE)
PREFIX = np.array([0.25, 0.2])
GIVEN = np.linalg.solve(COVARIANCE[:KNOWN, :KNOWN], PREFIX)
MEAN = COVARIANCE[KNOWN:, :KNOWN] @ GIVEN
"""Of the rows behind the prefix."""
DRAWS = 40_000


def along(gains):
    """Return the matrix with these gains along the axes of the covariance."""
    return (AXES * gains) @ AXES.T


class ExactConsistency:
    """f(x, tau) = U sqrt((l + eps^2) / (l + tau^2)) U^T x as a network F, for ``edm``."""

    def __init__(self, noise):
        self.noise = noise

    def fold(self, label, scale, out):
        tau, low, data = np.exp(label / 250.0), self.noise.sigma_min, self.noise.sigma_data
        skip = data**2 / ((tau - low) ** 2 + data**2)
        whole = along(np.sqrt((POWER + low**2) / (POWER + tau**2)))
        return (whole - skip * np.eye(ROWS)).astype(np.float32)

    def __call__(self, folded, both):
        return both[..., :ROWS] @ folded


class ExactNoise:
    """E[e | x_t] as a network."""

    def __init__(self, chain):
        self.chain = chain

    def fold(self, label, scale, out):
        left = self.chain.alpha_bars[int(label)]
        clean = along(np.sqrt(left) * POWER / (left * POWER + 1.0 - left))
        noise = (np.eye(ROWS) - np.sqrt(left) * clean) / np.sqrt(1.0 - left)
        return (out * noise).astype(np.float32)

    def __call__(self, folded, both):
        return both[..., :ROWS] @ folded


def network_of(model, sampler):
    if isinstance(model, ConsistencyModel):
        return ExactConsistency(model.noise)
    return ExactNoise(chain_of(model, sampler)[0])


def known(draws, prefix=PREFIX):
    values, mask = np.zeros((draws, ROWS), np.float32), np.zeros((draws, ROWS), bool)
    values[:, : len(prefix)], mask[:, : len(prefix)] = prefix, True
    return Known(values, mask)


def sampled(model, sampler, what, draws=DRAWS, seed=0):
    """Return answers (draws, ROWS)."""
    steps = plan(model, sampler)
    draw = ChainDraw(steps, network_of(model, sampler), share_at_start(model, sampler))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(steps), draws, ROWS)).astype(np.float32)
    return draw(np.zeros((draws, 0), np.float32), noise, what)


def share(answers):
    """Return how much of the conditional mean the rest has: 0 for none, 1 for all of it."""
    return float(answers[:, KNOWN:].mean(0) @ MEAN / (MEAN @ MEAN))


def jump(answers):
    """Return the root mean square of the step from the prefix into the rest."""
    return float(np.sqrt(np.square(answers[:, KNOWN] - PREFIX[-1]).mean()))


CASES = {
    **{f"consistency-{k}": (ConsistencyModel(), SamplerSettings(steps=k)) for k in (1, 2, 10)},
    **{
        f"diffusion-{n}": (DiffusionModel(chain=ChainSettings(n)), SamplerSettings())
        for n in (1, 5, 50)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_prefix_itself_is_kept_to_the_bit(case):
    answers = sampled(*CASES[case], known(50), 50)
    assert (answers[:, :KNOWN] == PREFIX.astype(np.float32)).all()


@pytest.mark.parametrize("case", CASES)
def test_knowing_nothing_changes_nothing(case):
    nothing = known(50, PREFIX[:0])
    free = sampled(*CASES[case], None, 50)
    assert np.array_equal(sampled(*CASES[case], nothing, 50), free)


@pytest.mark.parametrize("levels", [(80.0,), (80.0, 2.0), (80.0, 1.5, 0.5, 0.2)])
def test_the_mean_of_a_consistency_policy_by_hand(levels):
    """Each evaluation is linear, and its noise has mean 0: the mean goes through them alone."""
    model, sampler = ConsistencyModel(), SamplerSettings(levels=levels)
    mean = np.append(PREFIX, np.zeros(ROWS - KNOWN))
    for tau in levels:
        mean = along(np.sqrt((POWER + 0.002**2) / (POWER + tau**2))) @ mean
        mean[:KNOWN] = PREFIX
    got = sampled(model, sampler, known(DRAWS)).mean(0)
    np.testing.assert_allclose(got, mean, atol=5 * SPREAD / np.sqrt(DRAWS))


@pytest.mark.parametrize("count", [1, 5, 50])
def test_the_mean_of_a_chain_by_hand(count):
    """q(x_t | x_0) of the known rows and E[x_0 | x_t] of the others, step by step."""
    model = DiffusionModel(chain=ChainSettings(count))
    chain, _ = chain_of(model, SamplerSettings())
    bars = np.array([1.0, *chain.alpha_bars])
    mean = np.append(np.sqrt(bars[-1]) * PREFIX, np.zeros(ROWS - KNOWN))
    for t in range(count, 0, -1):
        clean = along(np.sqrt(bars[t]) * POWER / (bars[t] * POWER + 1 - bars[t])) @ mean
        clean[:KNOWN] = PREFIX
        beta = 1 - bars[t] / bars[t - 1]
        from_clean = np.sqrt(bars[t - 1]) * beta / (1 - bars[t])
        mean = from_clean * clean + np.sqrt(1 - beta) * (1 - bars[t - 1]) / (1 - bars[t]) * mean
        # Known rows are in the mean what the chain makes of the prefix.
        np.testing.assert_allclose(mean[:KNOWN], np.sqrt(bars[t - 1]) * PREFIX, rtol=1e-9)
    got = sampled(model, SamplerSettings(), known(DRAWS)).mean(0)
    np.testing.assert_allclose(got, mean, atol=5 * SPREAD / np.sqrt(DRAWS))


def test_the_rest_goes_on_from_the_prefix_the_more_the_longer_the_sampler_looks():
    """What in-painting reaches of the conditional mean; one evaluation reaches nothing."""
    chains = [DiffusionModel(chain=ChainSettings(n)) for n in (1, 5, 50)]
    reached = [share(sampled(model, SamplerSettings(), known(DRAWS))) for model in chains]
    assert reached == sorted(reached)
    assert 0.1 < reached[1] < reached[2] < 0.6
    steps = [SamplerSettings(steps=k) for k in (1, 2, 5, 20)]
    reached = [share(sampled(ConsistencyModel(), each, known(DRAWS))) for each in steps]
    assert reached == sorted(reached)
    assert abs(reached[0]) < 0.02
    assert reached[1] > 0.02


@pytest.mark.parametrize("case", ["consistency-10", "diffusion-5", "diffusion-50"])
def test_an_answer_that_knows_the_prefix_meets_it_nearer(case):
    free, told = (sampled(*CASES[case], what) for what in (None, known(DRAWS)))
    assert jump(told) < 0.9 * jump(free)


def with_ensemble(case, members, draws=600, prefix=PREFIX, seed=0):
    """Return answers (draws, ROWS) of the ensemble."""
    model, sampler = CASES[case]
    steps = plan(model, sampler)
    draw = ChainDraw(steps, network_of(model, sampler), share_at_start(model, sampler))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(steps), draws * members, ROWS)).astype(np.float32)
    condition = np.zeros((draws, 0), np.float32)
    return EnsembleDraw(draw, members)(condition, noise, known(draws, prefix))


@pytest.mark.parametrize("case", [case for case in CASES if case != "diffusion-1"])
def test_the_ensemble_draws_what_the_prefix_leaves(case):
    """Mean and spread given the prefix of what the sampler draws, which is not quite the data."""
    answers = with_ensemble(case, 32)
    assert (answers[:, :KNOWN] == PREFIX.astype(np.float32)).all()
    free = np.cov(sampled(*CASES[case], None).T)
    begin = free[:KNOWN, :KNOWN] + SLACK**2 * np.eye(KNOWN)
    gain = np.linalg.solve(begin, free[:KNOWN, KNOWN:]).T
    mean = gain @ PREFIX
    assert answers[:, KNOWN:].mean(0) @ mean / (mean @ mean) == pytest.approx(1.0, abs=0.1)
    left = free[KNOWN:, KNOWN:] - gain @ free[:KNOWN, KNOWN:]
    # The slack is no spread of the draws, so that they may lie closer together.
    ratio = answers[:, KNOWN:].std(0) / np.sqrt(left.diagonal())
    assert ((ratio > 0.5) & (ratio < 1.25)).all()


def test_more_members_come_nearer():
    met = [jump(with_ensemble("consistency-1", members)) for members in (2, 4, 32)]
    assert met == sorted(met, reverse=True)


def test_a_linear_map_is_followed_to_its_end():
    """With x = z all of the noise is known: it moves onto the prefix but for the slack."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 4)).astype(np.float32)
    prefix, mask = np.array([0.5, -0.3, 0.0, 0.0], np.float32), np.array([True, True, False, False])
    moved = shifted(noise, noise, prefix, mask)
    np.testing.assert_allclose(moved[:2], prefix[:2], atol=0.01)


def test_a_prefix_out_of_the_way_leads_the_noise_no_further_than_it_reaches():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((32, 6)).astype(np.float32)
    mask = np.arange(6) < 3
    values = np.where(mask, 50.0, 0.0).astype(np.float32)
    narrow = 0.01 * noise
    moved = shifted(noise, narrow, values, mask)
    nearest = np.square(narrow[:, :3] - 50.0).sum(1).argmin()
    assert np.linalg.norm(moved - noise[nearest]) == pytest.approx(REACH * np.sqrt(3), rel=1e-4)


def test_nothing_known_moves_nothing():
    noise = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    assert np.array_equal(shifted(noise, noise, noise[3], np.zeros(6, bool)), noise[0])


def test_what_is_known_comes_from_plant_units():
    codec = of_limits(robot())
    first, second = np.array([[1.0, 0.5, -1.0]]), np.arange(9.0).reshape(3, 3)
    got = known_of([first, None, second, second[:0]], codec, 2)
    assert got.values.shape == got.mask.shape == (4, 6)
    assert got.mask.tolist() == [[True] * 3 + [False] * 3, [False] * 6, [True] * 6, [False] * 6]
    high = np.array([1.0, 1.5, 2.0])
    middle, span = 0.125, high - 0.125
    np.testing.assert_allclose(got.values[0, :3], (first[0] - middle) / span, rtol=1e-6)
    np.testing.assert_allclose(got.values[2], ((second[:2] - middle) / span).ravel(), rtol=1e-6)
    assert not got.values[[1, 3]].any()
    assert known_of([None, second[:0]], codec, 2) is None


def test_rows_of_what_is_known_stay_together():
    one = Known(np.arange(6.0, dtype=np.float32).reshape(2, 3), np.eye(2, 3, dtype=bool))
    many = one.repeated(3)
    assert np.array_equal(many.values[2], one.values[0])
    assert np.array_equal(many.mask[3], one.mask[1])
    assert np.array_equal(many.rows(slice(3, 6)).values, one.values[[1, 1, 1]])
