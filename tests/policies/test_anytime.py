"""How much is computed in the time that is left: the cost model against machines made up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.anytime import PATIENCE, RISE, CostModel, Option, between, options_of

MS = 1e6
SPANS = [[8 * MS], [4 * MS], [2 * MS], [1 * MS]]
"""Four options, each half as dear as the one before."""


def follow(costs, option, times, slower, rng=None):
    """Let an option be answered by a machine ``slower`` times as slow as the calm one."""
    for _ in range(times):
        spread = 1.0 if rng is None else rng.lognormal(0.0, 0.05)
        costs.observe(option, 1, SPANS[option][0] * slower * spread)


@pytest.mark.parametrize(
    ("best", "least", "expected"),
    [
        ((1, 1), (1, 1), [(1, 1)]),
        ((3, 1), (1, 1), [(3, 1), (2, 1), (1, 1)]),
        ((2, 50), (1, 8), [(2, 50), (2, 25), (2, 12), (2, 8), (1, 8)]),
        ((4, 4), (3, 4), [(4, 4), (3, 4)]),
        ((2, 2), (5, 9), [(2, 2)]),
        ((12, 1), (1, 1), [(n, 1) for n in (12, 9, 7, 6, 5, 4, 3, 2, 1)]),
    ],
)
def test_candidates_fall_first_and_steps_after_them(best, least, expected):
    assert options_of(Option(*best), Option(*least)) == tuple(expected)


@given(st.integers(1, 1000), st.integers(1, 4096), st.integers(1, 1000), st.integers(1, 4096))
def test_options_fall_from_the_best_to_the_least_and_are_few(steps, candidates, fewest, least):
    options = options_of(Option(steps, candidates), Option(fewest, least))
    assert options[0] == (steps, candidates)
    assert options[-1] == (min(steps, fewest), min(candidates, least))
    work = [option.steps * option.candidates for option in options]
    assert work == sorted(set(work), reverse=True)
    assert len(options) < 45


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=5), st.data())
def test_times_between_sizes_lie_between_theirs(times, data):
    gaps = data.draw(st.lists(st.integers(1, 50), min_size=len(times) - 1, max_size=len(times) - 1))
    sizes = [1, *(1 + np.cumsum(gaps, dtype=int)).tolist()]
    spans = between(sizes, times)
    assert len(spans) == sizes[-1]
    assert (np.diff(spans) >= -1e-6).all()
    highest = np.maximum(np.maximum.accumulate(times), 1.0)
    np.testing.assert_allclose([spans[size - 1] for size in sizes], highest)


def test_a_batch_beyond_what_was_measured_costs_in_proportion():
    costs = CostModel([between([1, 4], [10.0, 16.0])])
    assert [costs.expected_ns(0, n) for n in (1, 2, 3, 4, 8)] == [10.0, 12.0, 14.0, 16.0, 32.0]


@pytest.mark.parametrize(
    ("left_ms", "option"), [(9.0, 0), (8.0, 0), (7.9, 1), (2.0, 2), (1.1, 3), (0.1, 3), (-5.0, 3)]
)
def test_the_best_that_fits_is_taken_and_else_the_cheapest(left_ms, option):
    assert CostModel(SPANS).best(left_ms * MS, 1) == option


def test_a_larger_batch_gets_less():
    costs = CostModel([between([1, 11], [each[0], 11 * each[0]]) for each in SPANS])
    assert [costs.best(8 * MS, batch) for batch in (1, 2, 4, 8, 11)] == [0, 1, 2, 3, 3]


@given(st.floats(1.5, 20.0))
def test_load_is_followed_in_as_many_answers_as_the_rate_says(slower):
    costs = CostModel(SPANS)
    due = int(np.ceil(np.log(slower) / np.log(RISE)))
    follow(costs, 3, due - 1, slower)
    assert costs.factor < slower
    follow(costs, 3, 1, slower)
    assert costs.factor == pytest.approx(slower)


def test_one_long_answer_changes_little():
    costs = CostModel(SPANS)
    follow(costs, 0, 1, 1000.0)
    assert costs.factor == pytest.approx(RISE)
    follow(costs, 0, 2 * PATIENCE, 1.0)
    assert costs.factor < 1.05


def run(costs, slower, left_ms, ticks, rng):
    """Return the options taken and the time each answer took beyond what was left, in ms."""
    taken, over = [], []
    for _ in range(ticks):
        option = costs.best(left_ms * MS, 1)
        took = SPANS[option][0] * slower * rng.lognormal(0.0, 0.05)
        costs.observe(option, 1, took)
        taken.append(option)
        over.append(took / MS - left_ms)
    return np.array(taken), np.array(over)


@pytest.mark.parametrize("left_ms", [10.0, 13.0, 16.0])
@pytest.mark.parametrize("slower", [3.0, 6.0])
def test_under_load_quality_falls_and_deadlines_hold_until_it_is_over(slower, left_ms):
    costs, rng = CostModel(SPANS), np.random.default_rng(0)
    calm, over = run(costs, 1.0, left_ms, 300, rng)
    assert set(calm.tolist()) == {0}
    assert (over < 0).all()
    loaded, over = run(costs, slower, left_ms, 400, rng)
    onset = int(np.ceil(np.log(slower) / np.log(RISE))) + 1
    assert (loaded[onset:] > 0).all()
    assert (over[onset:] < 0).mean() > 0.99
    assert over[onset:].max() < 0.15 * left_ms
    # Beyond the first few answers the option that is right for this machine is in use.
    right = next(i for i, span in enumerate(SPANS) if span[0] / MS * slower * 1.4 <= left_ms)
    assert np.median(loaded[onset:]) <= right
    after, over = run(costs, 1.0, left_ms, 400, rng)
    assert (over < 0).all()
    assert (after[-150:] == 0).all()


def test_noise_makes_no_option_flap():
    costs, rng = CostModel(SPANS), np.random.default_rng(1)
    run(costs, 3.0, 14.0, 100, rng)
    taken, _ = run(costs, 3.0, 14.0, 2000, rng)
    assert np.count_nonzero(np.diff(taken)) <= 4


def test_a_short_lull_brings_nothing_back():
    costs = CostModel(SPANS)
    follow(costs, 3, 20, 4.0)
    loaded = costs.factor
    follow(costs, 3, PATIENCE // 2, 1.0)
    assert costs.factor == loaded
    follow(costs, 3, 10 * PATIENCE, 1.0)
    assert costs.factor < 1.3


def test_cheap_answers_tell_what_dear_ones_would_cost():
    costs = CostModel(SPANS)
    follow(costs, 3, 60, 3.0)
    assert costs.expected_ns(0, 1) == pytest.approx(3.0 * SPANS[0][0])


def test_a_clock_that_stands_still_is_no_trouble():
    costs = CostModel([between([1, 4], [0.0, 0.0])])
    for _ in range(1000):
        costs.observe(0, 4, 0)
    assert 0.0 < costs.expected_ns(0, 4) <= 1.0
