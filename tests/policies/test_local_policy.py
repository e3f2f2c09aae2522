"""Policies of one action and of chunks, alone and in batches: on every engine the same."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from controller.acting import AS_BUNDLED, ActSettings
from controller.clock import VirtualClock
from controller.interfaces import BatchPolicy
from controller.types import Observation, Request
from policies.anytime import Option
from policies.bundle import load_bundle
from policies.engine import load_policy
from policies.errors import BundleError
from policies.local_policy import LocalPolicy
from policies.make_sampler import Samplers
from policies.model import ChainSettings, DiffusionModel, SamplerSettings
from policies.plan import plan
from tests.policies.weights import CRITICS_OF, MODELS, NETWORKS, bundle_of, robot

ENGINES = ["numpy", "torch", "onnx"]
KINDS = ["consistency-mish", "consistency-blocks", "diffusion-relu", "gaussian-mean"]
SPEC = robot()
LOW, HIGH = (np.array(limit) for limit in SPEC.action.bounds())
TOLERANCE = 2e-5
"""Plant units; the widest range is 4."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Give the bundle of a kind and a horizon, made once."""
    made = {}

    def get(name, horizon=1, sampler=None, critic="mish"):
        key = (name, horizon, sampler, critic)
        if key not in made:
            out = tmp_path_factory.mktemp("store")
            critics = CRITICS_OF[critic] if critic else None
            sampler = sampler or SamplerSettings()
            made[key] = bundle_of(out, MODELS[name], sampler, critics, horizon=horizon)
        return made[key]

    return get


def opened(root, engine="numpy", act=AS_BUNDLED, max_batch=8):
    return load_policy(root, engine, act=act, max_batch=max_batch)


def request(tick, seed=3, **more):
    seen = np.random.default_rng((tick, seed)).standard_normal(5)
    return Request(tick, seed, Observation((seen,), 0), 0, 0, **more)


def rows(count, seed=0):
    """Return rows of actions within the limits, plant units."""
    even = np.random.default_rng(seed).random((count, 3))
    return (LOW + even * (HIGH - LOW)).astype(np.float32)


def same(got, expected):
    """Return whether two answers are the same to the bit, but for their times."""
    told = [dataclasses.replace(each, actions=None, infer_ns=0) for each in (got, expected)]
    return told[0] == told[1] and np.array_equal(got.actions, expected.actions)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KINDS)
def test_it_answers_a_batch_as_it_answers_each(name, engine, horizon, batch, stores):
    policy = opened(stores(name, horizon), engine, act=ActSettings(candidates=3))
    assert isinstance(policy, BatchPolicy)
    requests = [request(tick, seed=tick % 3) for tick in range(40, 40 + batch)]
    kept = [each.observation.arrays[0].copy() for each in requests]
    together = policy.infer_batch(requests)
    assert len(together) == batch
    for each, chunk, seen in zip(requests, together, kept, strict=True):
        alone = policy.infer(each)
        assert chunk.actions.shape == (horizon, 3)
        assert chunk.actions.dtype == np.float32
        assert (chunk.tick, chunk.version, chunk.batch) == (each.tick, policy.version, batch)
        assert (chunk.evaluations, chunk.candidates) == (alone.evaluations, 3)
        assert (alone.batch, alone.prefix, chunk.prefix) == (1, 0, 0)
        assert ((chunk.actions >= LOW) & (chunk.actions <= HIGH)).all()
        assert np.abs(chunk.actions - alone.actions).max() < TOLERANCE
        assert same(alone, policy.infer_batch([each])[0])
        assert np.array_equal(each.observation.arrays[0], seen)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KINDS)
def test_answers_of_a_batch_are_apart(name, engine, stores):
    policy = opened(stores(name, 2), engine)
    chunks = policy.infer_batch([request(tick) for tick in range(5)])
    kept = [chunk.actions.copy() for chunk in chunks]
    chunks[2].actions[:] = 9.0
    policy.infer_batch([request(tick) for tick in range(10, 15)])
    same = [np.array_equal(chunk.actions, old) for chunk, old in zip(chunks, kept, strict=True)]
    assert same == [True, True, False, True, True]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KINDS)
def test_one_observation_that_is_not_finite_harms_no_other(name, engine, value, stores):
    policy = opened(stores(name, 2), engine, act=ActSettings(candidates=2))
    requests = [request(tick) for tick in range(6)]
    expected = policy.infer_batch(requests)
    requests[3].observation.arrays[0][1] = value
    with np.errstate(all="ignore"):
        got = policy.infer_batch(requests)
    if np.isnan(value):
        assert not np.isfinite(got[3].actions).all()
    for place in (0, 1, 2, 4, 5):
        assert same(got[place], expected[place])


@pytest.mark.parametrize(("horizon", "draws"), [(1, 1), (4, 1), (4, 32)])
@pytest.mark.parametrize("name", KINDS)
def test_engines_agree_on_chunks(name, horizon, draws, stores):
    requests = [request(tick) for tick in range(20)]
    requests += [request(tick, prefix=rows(1 + tick % 5, tick)) for tick in range(20, 30)]
    act = ActSettings(prefix_draws=draws)
    got = [
        np.stack([chunk.actions for chunk in policy.infer_batch(requests)])
        for policy in (opened(stores(name, horizon), e, act, max_batch=30) for e in ENGINES)
    ]
    assert np.abs(got[0] - got[1]).max() < TOLERANCE
    assert np.abs(got[2] - got[1]).max() < TOLERANCE


@pytest.mark.parametrize(("steps", "draws"), [(1, 1), (2, 1), (1, 32), (2, 5)])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KINDS)
def test_an_answer_begins_with_the_rows_of_the_prefix(name, engine, steps, draws, stores):
    several = name != "gaussian-mean"
    act = ActSettings(steps=steps if several else None, prefix_draws=draws)
    policy = opened(stores(name, 4), engine, act=act)
    for count in (1, 3, 4, 6):
        given = rows(count, count)
        given[0] = HIGH + 0.5  # What was commanded is not for the policy to judge.
        chunk = policy.infer(request(5, prefix=given))
        kept = min(count, 4)
        assert chunk.prefix == kept
        assert chunk.actions.shape == (4, 3)
        assert np.array_equal(chunk.actions[:kept], given[:kept])
        assert ((chunk.actions[kept:] >= LOW) & (chunk.actions[kept:] <= HIGH)).all()
    free = policy.infer(request(5))
    assert same(policy.infer(request(5, prefix=rows(0))), free)
    felt = policy.infer(request(5, prefix=rows(1))).actions[1:]
    assert np.array_equal(felt, free.actions[1:]) == (not several)


def test_prefixes_of_several_lengths_share_a_batch(stores):
    policy = opened(stores("diffusion-relu", 4))
    requests = [request(k, prefix=rows(k, k) if k else None) for k in range(6)]
    for each, chunk in zip(requests, policy.infer_batch(requests), strict=True):
        alone = policy.infer(each)
        assert chunk.prefix == alone.prefix == min(each.tick, 4)
        assert np.abs(chunk.actions - alone.actions).max() < TOLERANCE
        assert np.array_equal(chunk.actions[: chunk.prefix], alone.actions[: chunk.prefix])


def test_a_prefix_of_another_robot_is_refused_alone(stores):
    policy = opened(stores("consistency-mish", 4))
    wrong = request(1, prefix=np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"prefix: rows of shape \(4,\), expected \(3,\)"):
        policy.infer(wrong)
    got = policy.infer_batch([request(0), wrong, request(2)])
    assert got[1] is None
    assert [chunk.tick for chunk in (got[0], got[2])] == [0, 2]


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_has_a_size(count, stores):
    policy = load_policy(stores("consistency-mish"))
    assert policy.max_batch == 64
    with pytest.raises(ValueError, match=f"{count} requests, expected 1 to 64"):
        policy.infer_batch([request(0)] * count)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("steps", "candidates"), [(1, 1), (2, 1), (1, 6), (3, 4)])
def test_what_was_chosen_can_be_asked_for(engine, steps, candidates, stores):
    """The same bits come from a policy that is set to it and from one that is asked for it."""
    root = stores("diffusion-relu", 2)
    asked = opened(root, engine, act=ActSettings(anytime=True, candidates=8))
    fixed = opened(root, engine, act=ActSettings(steps=steps, candidates=candidates))
    got = asked.infer(request(7, steps=steps, candidates=candidates))
    assert (got.evaluations, got.candidates) == (steps, candidates)
    assert same(got, fixed.infer(request(7)))


def test_requests_that_ask_for_more_are_computed_apart(stores):
    policy = opened(stores("diffusion-relu"))
    asks = [(0, 0), (2, 1), (0, 0), (2, 1), (0, 4)]
    requests = [request(k, steps=s, candidates=c) for k, (s, c) in enumerate(asks)]
    got = policy.infer_batch(requests)
    told = [(chunk.tick, chunk.evaluations, chunk.candidates, chunk.batch) for chunk in got]
    assert told == [(0, 5, 1, 2), (1, 2, 1, 2), (2, 5, 1, 2), (3, 2, 1, 2), (4, 5, 4, 1)]
    for chunk, each in zip(got, requests, strict=True):
        assert np.abs(chunk.actions - policy.infer(each).actions).max() < TOLERANCE


def test_what_a_policy_does_not_have_cannot_be_asked_for(stores):
    policy = opened(stores("diffusion-relu", critic=None))
    with pytest.raises(BundleError, match="no critics"):
        policy.infer(request(0, candidates=2))
    with pytest.raises(BundleError, match="9 steps: the chain of this policy has 5"):
        policy.infer(request(0, steps=9))


def test_levels_of_a_bundle_are_those_of_as_many_steps(stores):
    levels = SamplerSettings(levels=(40.0, 1.0))
    policy = opened(stores("consistency-mish", 1, levels))
    assert same(policy.infer(request(0, steps=2)), policy.infer(request(0)))
    karras = opened(stores("consistency-mish"), act=ActSettings(steps=2))
    other = policy.infer(request(0, steps=2)).actions
    assert not np.array_equal(other, karras.infer(request(0)).actions)


def test_golden_actions_of_chunks_are_kept_in_rows(stores):
    assert load_bundle(stores("consistency-mish", 4)).golden["actions"].shape == (8, 4, 3)
    assert load_bundle(stores("consistency-mish", 1)).golden["actions"].shape == (8, 3)


class Machine(VirtualClock):
    """A clock, and samplers that take time on it: 1 ms a step and candidate, times ``load``."""

    load = 1.0

    def over(self, samplers):
        """Return the samplers of a policy, with what they take."""
        machine = self

        class Timed:
            def __init__(self, sampler):
                self._sampler = sampler
                self.steps, self.candidates = sampler.steps, sampler.candidates
                self.uniform = sampler.uniform

            def __call__(self, condition, *rest):
                work = self.steps * self.candidates * len(condition)
                machine.advance(round(1e6 * work * machine.load))
                return self._sampler(condition, *rest)

        class All:
            def of(self, settings):
                return Timed(samplers.of(settings))

        return All()


def timed(root, act):
    bundle, machine = load_bundle(root), Machine()
    samplers = machine.over(Samplers(bundle.manifest, bundle.weights, bundle.critics()))
    policy = LocalPolicy(bundle.manifest, bundle.codec, samplers, machine, act, max_batch=8)
    policy.warm_up()
    return policy, machine


def due(machine, tick, budget_ms):
    return dataclasses.replace(request(tick), deadline_ns=machine.now_ns() + int(budget_ms * 1e6))


ANYTIME = ActSettings(steps=4, candidates=4, anytime=True, reserve_ms=0.5)


def test_it_does_what_fits_into_the_time_left(stores):
    policy, machine = timed(stores("diffusion-relu"), ANYTIME)
    assert policy.options == ((4, 4), (4, 2), (4, 1), (3, 1), (2, 1), (1, 1))
    assert policy.expected_ns(1) == pytest.approx(1e6)
    assert policy.expected_ns(8) == pytest.approx(8e6)
    budgets = {17.0: (4, 4), 16.4: (4, 2), 8.5: (4, 2), 8.4: (4, 1), 2.5: (2, 1), 0.1: (1, 1)}
    for budget_ms, option in budgets.items():
        ask = due(machine, 3, budget_ms)
        chunk = policy.infer(ask)
        assert (chunk.evaluations, chunk.candidates) == option
        assert chunk.infer_ns == 1e6 * option[0] * option[1]
        assert machine.now_ns() <= ask.deadline_ns or option == (1, 1)
        again = policy.infer(dataclasses.replace(ask, steps=option[0], candidates=option[1]))
        assert same(chunk, again)


def test_a_batch_is_done_by_its_earliest_deadline(stores):
    policy, machine = timed(stores("diffusion-relu"), ANYTIME)
    requests = [due(machine, k, budget_ms) for k, budget_ms in enumerate((99.0, 13.0, 50.0))]
    got = policy.infer_batch(requests)
    assert {(chunk.evaluations, chunk.candidates, chunk.batch) for chunk in got} == {(4, 1, 3)}
    assert {chunk.infer_ns for chunk in got} == {12e6}


def test_least_settings_are_kept_to(stores):
    act = ActSettings(steps=4, candidates=4, anytime=True, min_steps=3, min_candidates=2)
    policy, machine = timed(stores("diffusion-relu"), act)
    assert policy.options == ((4, 4), (4, 2), (3, 2))
    chunk = policy.infer(due(machine, 0, 0.0))
    assert (chunk.evaluations, chunk.candidates) == (3, 2)


def test_under_load_quality_falls_and_comes_back(stores):
    policy, machine = timed(stores("diffusion-relu"), ANYTIME)
    taken, late = [], []
    for tick in range(600):
        machine.load = 3.0 if 100 <= tick < 300 else 1.0
        ask = due(machine, tick, 20.0)
        chunk = policy.infer(ask)
        taken.append(Option(chunk.evaluations, chunk.candidates))
        late.append(machine.now_ns() > ask.deadline_ns)
    assert set(taken[:100]) == {(4, 4)}
    assert sum(late) <= 5
    assert set(taken[110:300]) == {(4, 1)}
    assert set(taken[450:]) == {(4, 4)}
    changes = sum(before != after for before, after in pairwise(taken))
    assert changes <= 5


def test_without_anytime_the_deadline_decides_nothing(stores):
    policy, machine = timed(stores("diffusion-relu"), ActSettings(steps=4, candidates=4))
    assert policy.options == ((4, 4),)
    chunk = policy.infer(due(machine, 0, 0.1))
    assert (chunk.evaluations, chunk.candidates) == (4, 4)


def test_what_has_one_way_only_has_no_choice(stores):
    policy = opened(stores("gaussian-mean", critic=None), act=ActSettings(anytime=True))
    assert policy.options == ((1, 1),)


def test_lengths_of_a_chain_share_their_levels():
    model = DiffusionModel(NETWORKS["mish"], ChainSettings(50))
    steps = [plan(model, SamplerSettings(steps=count)) for count in range(1, 51)]
    levels = {(step.label, step.scale, step.gain) for each in steps for step in each}
    assert len(levels) == 50
