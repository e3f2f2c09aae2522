"""Choice among candidates, where it is known which is best."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from controller.acting import ActSettings
from controller.clock import VirtualClock
from policies.batch import load_batch
from policies.bundle import load_bundle
from policies.choice import choose, is_clear
from policies.engine import load_policy
from policies.golden import golden
from policies.local_policy import LocalPolicy
from policies.make_sampler import Samplers, make_sampler
from policies.model import CriticSettings, SamplerSettings
from tests.policies.weights import (
    ACTION,
    CRITICS_OF,
    MODELS,
    OBSERVATION,
    bundle_of,
    draft_of,
    robot,
    weights_of,
)

GOAL = np.array([0.2, -0.3, 0.1], np.float32)
NEAR = CriticSettings(count=2, hidden=(2 * ACTION,), activation="relu")
CANDIDATES = 16


def critics_towards(goal, sharpness=1.0):
    """Return critics with Q1(s, a) = -sharpness |a - goal|, the L1 norm, and Q2 = Q1 + 100."""
    into_action = np.concatenate([np.eye(ACTION), -np.eye(ACTION)])
    first = np.concatenate([np.zeros((2 * ACTION, OBSERVATION)), into_action], axis=1)
    arrays = {
        "layers.0.weight": np.stack([first, first]),
        "layers.0.bias": np.stack([np.concatenate([-goal, goal])] * 2),
        "head.weight": np.full((2, 1, 2 * ACTION), -sharpness),
        "head.bias": np.array([[0.0], [100.0]]),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def sampler_towards(name, engine, act, sharpness=1.0):
    about = draft_of(MODELS[name], critic=NEAR)
    weights = weights_of(MODELS[name])
    return make_sampler(about, weights, critics_towards(GOAL, sharpness), engine, act=act)


def candidates_of(name, engine, condition, noise):
    """Return the candidates (N, C, A) one by one, as a policy with no choice draws them."""
    draw = make_sampler(draft_of(MODELS[name]), weights_of(MODELS[name]), None, engine)
    each = np.repeat(condition, CANDIDATES, axis=0)
    return draw(each, noise).reshape(len(condition), CANDIDATES, ACTION)


def drawn(rows, steps, seed=0):
    rng = np.random.default_rng(seed)
    condition = rng.standard_normal((rows, OBSERVATION)).astype(np.float32)
    noise = rng.standard_normal((steps, rows * CANDIDATES, ACTION)).astype(np.float32)
    return condition, noise


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("name", ["consistency-mish", "diffusion-blocks", "gaussian-mean"])
def test_argmax_takes_the_candidate_nearest_to_the_goal(name, engine):
    act = ActSettings(candidates=CANDIDATES, select="argmax")
    sampler = sampler_towards(name, engine, act)
    condition, noise = drawn(12, sampler.steps)
    offered = candidates_of(name, engine, condition, noise)
    best = np.abs(offered - GOAL).sum(-1).argmin(1)
    assert len(set(best)) > 3
    taken = sampler(condition, noise)
    np.testing.assert_allclose(taken, offered[np.arange(12), best], atol=1e-6)


def test_softmax_takes_each_as_often_as_its_value_says():
    act = ActSettings(candidates=CANDIDATES, select="softmax")
    sampler = sampler_towards("gaussian-mean", "numpy", act, sharpness=4.0)
    condition, noise = drawn(1, 1)
    offered = candidates_of("gaussian-mean", "numpy", condition, noise)[0]
    value = -4.0 * np.abs(offered - GOAL).sum(1)
    chances = np.exp(value) / np.exp(value).sum()
    rows = 20_000
    uniform = np.random.default_rng(1).random(rows)
    each = np.repeat(condition, rows, axis=0), np.tile(noise, (1, rows, 1))
    taken = sampler(*each, uniform)
    which = np.abs(taken[:, None] - offered).sum(-1).argmin(1)
    found = np.bincount(which, minlength=CANDIDATES) / rows
    # 5 standard deviations of a frequency among 20 000.
    assert (np.abs(found - chances) < 5 * np.sqrt(chances / rows) + 1e-4).all()
    assert chances.max() > 2 / CANDIDATES


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.floats(-9, 9, width=32),
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_softmax_inverts_the_cumulative_chances(q, even):
    which = choose(q, "softmax", np.full(len(q), even))
    chances = np.exp(q.astype(np.float64) - q.max(1, keepdims=True))
    edges = np.concatenate([np.zeros((len(q), 1)), chances.cumsum(1)], axis=1)
    edges /= edges[:, -1:]
    rows = np.arange(len(q))
    assert (edges[rows, which] <= even + 1e-12).all()
    assert (even <= edges[rows, which + 1] + 1e-12).all()


def test_huge_values_do_not_overflow():
    q = np.array([[1e30, 3e30, 2e30], [-3e30, -1e30, -2e30], [5.0, 5.0, -1e30]], np.float32)
    assert choose(q, "softmax", np.full(3, 0.999)).tolist() == [1, 1, 1]
    assert choose(q, "argmax", np.zeros(3)).tolist() == [1, 1, 0]


def test_the_last_of_all_is_within_reach():
    q = np.zeros((1, 3), np.float32)
    even = np.array([0.0]), np.array([np.nextafter(1.0, 0.0)])
    assert [choose(q, "softmax", each).item() for each in even] == [0, 2]


def test_what_has_no_chance_is_never_taken():
    q = np.array([[-1e30, 0.0, -1e30], [-1e30, -1e30, 0.0], [0.0, -1e30, -1e30]], np.float32)
    for even in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        assert choose(q, "softmax", np.full(3, even)).tolist() == [1, 2, 0]


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(2, 9)),
        elements=st.floats(-300, 300),
    ),
    st.sampled_from(["argmax", "softmax"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 2**32 - 1),
)
def test_what_is_clear_is_taken_by_every_engine(q, select, even, seed):
    q, uniform = q.astype(np.float32), np.full(len(q), even)
    off = np.random.default_rng(seed).uniform(-2e-6, 2e-6, q.shape) * (1 + np.abs(q))
    clear = is_clear(q, select, uniform)
    same = choose(q, select, uniform) == choose((q + off).astype(np.float32), select, uniform)
    assert same[clear].all()


def test_ties_and_edges_are_not_clear():
    q = np.array([[1.0, 2.0, 2.000001], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32)
    third = np.full(3, 1 / 3)
    assert is_clear(q, "argmax", third).tolist() == [False, True, False]
    assert is_clear(q, "softmax", third).tolist() == [True, True, False]


@pytest.mark.parametrize("select", ["argmax", "softmax"])
def test_golden_actions_are_those_every_engine_gives(select):
    """Values of about 1000 are off by 0.02: what is best is then often a matter of rounding."""
    spec, sampler = robot(), SamplerSettings(candidates=16, select=select)
    about = draft_of(MODELS["gaussian-mean"], sampler, NEAR, spec)
    weights, critics = weights_of(MODELS["gaussian-mean"]), critics_towards(GOAL)
    critics["head.bias"] -= np.float32(1000.0)
    kept = golden(about, weights, np.random.default_rng(0).standard_normal((40, 5)), critics)
    samplers = Samplers(about, weights, critics)
    policy = LocalPolicy(about, about.codec, samplers, VirtualClock(0))

    def clear(ticks):
        keys = zip(kept["observations"], kept["seeds"].tolist(), ticks, strict=True)
        return [policy.is_clear(row[None], seed, tick) for row, seed, tick in keys]

    assert all(clear(kept["ticks"].tolist()))
    assert not all(clear([7 * seed for seed in kept["seeds"].tolist()]))


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("candidates", [1, 4])
def test_a_batch_is_as_many_policies(candidates, engine, tmp_path):
    """Row n of a batch is what one observation alone gives with row n's share of the noise."""
    name, critic = "diffusion-mish", CRITICS_OF["mish"]
    act = ActSettings(steps=2, candidates=candidates, select="softmax")
    path = bundle_of(tmp_path, MODELS[name], SamplerSettings(candidates=4), critic)
    batch = load_batch(path, engine, "cpu", act)
    single = load_policy(path, engine, act=act)
    assert (batch.version, batch.spec, batch.evaluations) == (path.name, single.spec, 2)
    seen = np.random.default_rng(0).standard_normal((6, OBSERVATION))
    got = batch.act(seen, np.random.default_rng(5))
    assert got.shape == (6, 1, ACTION)
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((2, 6 * candidates, ACTION), dtype=np.float32)
    uniform = rng.random(6) if candidates > 1 else np.zeros(6)
    draft = draft_of(MODELS[name], critic=critic)

    bundle = load_bundle(path)
    sampler = make_sampler(draft, bundle.weights, bundle.critics(), engine, act=act)
    for row in range(6):
        share = noise[:, row * candidates : (row + 1) * candidates]
        encoded = sampler(
            bundle.codec.encode_observation(seen[row : row + 1]), share, uniform[row : row + 1]
        )
        expected = bundle.codec.decode_action(encoded)[0]
        np.testing.assert_allclose(got[row, 0], expected, atol=2e-6)


def test_a_batch_takes_all_its_randomness_from_the_generator(tmp_path):
    act = ActSettings(candidates=4, select="softmax")
    path = bundle_of(tmp_path, MODELS["consistency-relu"], critic=CRITICS_OF["normed"])
    batch = load_batch(path, act=act)
    seen = np.random.default_rng(0).standard_normal((50, OBSERVATION))
    first, again, other = (batch.act(seen, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).all(axis=2).any()
