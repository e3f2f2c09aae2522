"""Scoring a policy: the episodes' own figures, repeatable, with the noise of the seed."""

import json

import msgspec
import numpy as np
import pytest

from controller.acting import ActSettings
from controller.errors import ConfigError, SpecMismatch
from controller.scores import figures
from controller.types import VectorStep
from policies import evaluation
from policies.bundle import load_bundle
from policies.errors import BundleError
from policies.evaluation import Trial, action_us, best, executed, play, record, returns_of
from tests.policies.robots import SPEC, toy_bundle

LENGTH = 5


class Scale:
    """Copies whose reward is the first element of the action; episodes of five steps.

    Copy c begins each episode at an observation drawn from the seed.
    """

    spec = SPEC

    def __init__(self, num):
        self.num = num
        self.steps = 0

    def reset(self, seed=None):
        self.rng = np.random.default_rng(seed)
        self.step_of, self.returns = 0, np.zeros(self.num)
        return self.rng.standard_normal((self.num, 6))

    def step(self, actions):
        self.steps += 1
        self.step_of += 1
        self.returns += actions[:, 0]
        over = self.step_of == LENGTH
        done = VectorStep(
            observations=self.rng.standard_normal((self.num, 6)),
            next_observations=np.zeros((self.num, 6)),
            rewards=np.array(actions[:, 0], float),
            terminated=np.zeros(self.num, bool),
            truncated=np.full(self.num, over),
            success=self.returns > 0,
            episode_returns=self.returns.copy(),
            episode_steps=np.full(self.num, self.step_of),
        )
        if over:
            self.step_of, self.returns = 0, np.zeros(self.num)
        return done

    def close(self):
        pass


class Constant:
    """Acts 2 in the first element, and its noise in the second."""

    spec, version, horizon = SPEC, "v1", 1

    def __init__(self):
        self.noise = []

    def act(self, observations, rng):
        self.noise.append(rng.standard_normal(len(observations)))
        return np.stack([np.full(len(observations), 2.0), self.noise[-1]], axis=1)[:, None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("store"))


def trial(**changes):
    return Trial(**({"task": "toy", "episodes": 4, "reference": (0.0, 20.0)} | changes))


def test_figures_are_those_of_the_episodes(monkeypatch, tmp_path):
    policy, told = Constant(), []
    monkeypatch.setattr(evaluation, "load_batch", lambda *words: told.append(words) or policy)
    act = ActSettings(candidates=7)
    over = []
    got = play(tmp_path, Scale(3), trial(act=act, has_success=True), lambda: over.append(1))
    assert told == [(tmp_path, "numpy", "cpu", act)]
    assert got.episode_returns == [10.0] * 4
    assert (got.score_mean, got.score_ci95, got.success) == (50.0, (50.0, 50.0), 1.0)
    assert (got.length_mean, len(over)) == (LENGTH, 4)


class Rising:
    """Acts with row + 1: the reward of a step says which row was executed."""

    spec, version, horizon = SPEC, "v1", 4

    def act(self, observations, rng):
        rows = np.broadcast_to(np.arange(1.0, 5.0)[:, None], (len(observations), 4, 2))
        return rows.copy()


@pytest.mark.parametrize(
    ("execute", "expected"),
    # Episodes have five steps: rows 1 2 1 2 1 with two executed, half of four.
    [(None, 7.0), (1, 5.0), (2, 7.0), (3, 1 + 2 + 3 + 1 + 2.0), (4, 1 + 2 + 3 + 4 + 1.0)],
)
def test_rows_that_are_executed_by_hand(monkeypatch, tmp_path, execute, expected):
    monkeypatch.setattr(evaluation, "load_batch", lambda *words: Rising())
    got = play(tmp_path, Scale(3), trial(execute=execute))
    assert got.episode_returns == [expected] * 4


@pytest.mark.parametrize(
    ("execute", "horizon", "expected"),
    [(None, 1, 1), (None, 2, 1), (None, 3, 1), (None, 8, 4), (1, 8, 1), (8, 8, 8)],
)
def test_how_many_rows_are_executed(execute, horizon, expected):
    assert executed(execute, horizon) == expected


@pytest.mark.parametrize(
    ("horizon", "said"), [(1, "has 1 row; expected 1$"), (8, "has 8 rows; expected 1 to 8$")]
)
def test_more_rows_than_an_answer_has_are_refused(monkeypatch, tmp_path, horizon, said):
    with pytest.raises(ConfigError, match=f"execute=9: an answer of this policy {said}"):
        executed(9, horizon)


def test_success_of_a_task_without_one_is_null(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "load_batch", lambda *words: Constant())
    assert play(tmp_path, Scale(3), trial()).success is None


@pytest.mark.parametrize(("seeds", "same"), [((3, 3), True), ((3, 4), False)])
def test_the_noise_is_that_of_the_seed(monkeypatch, tmp_path, seeds, same):
    drawn = []
    for seed in seeds:
        policy = Constant()
        monkeypatch.setattr(evaluation, "load_batch", lambda *words, policy=policy: policy)
        play(tmp_path, Scale(2), trial(seed=seed))
        drawn.append(np.array(policy.noise))
    assert np.array_equal(*drawn) == same


def test_a_real_policy_scores_the_same_again(bundle):
    plants = Scale(3)
    first = play(bundle, plants, trial(seed=1))
    assert play(bundle, plants, trial(seed=1)) == first
    assert play(bundle, plants, trial(seed=2)) != first
    assert np.std(first.episode_returns) > 0


def test_a_policy_of_another_robot_is_refused_before_it_acts(bundle):
    plants = Scale(2)
    plants.spec = msgspec.structs.replace(SPEC, rate_hz=50.0)
    with pytest.raises(SpecMismatch, match="the task toy"):
        play(bundle, plants, trial())
    assert plants.steps == 0


def test_candidates_without_critics_are_refused(bundle):
    with pytest.raises(BundleError, match="critics"):
        play(bundle, Scale(2), trial(act=ActSettings(candidates=4)))


def test_metrics_of_training_are_plain_numbers(bundle):
    told = returns_of(bundle, Scale(2), 4, 0, (0.0, 20.0))
    played = play(bundle, Scale(2), trial(seed=0))
    assert told == {
        "return_mean": played.return_mean,
        "return_std": played.return_std,
        "score_mean": pytest.approx(5 * played.return_mean),
    }
    assert "score_mean" not in returns_of(bundle, Scale(2), 4, 0, None)


@pytest.mark.parametrize(("means", "expected"), [([1.0], 0), ([1.0, 3.0, 2.0], 1), ([2.0, 2.0], 0)])
def test_best_is_the_highest_mean_and_of_equals_the_first(means, expected):
    assert best([figures([mean], [1], None, None) for mean in means]) == expected


class Slow:
    """A clock whose every second look is ``step_ns`` after the one before, rising."""

    def __init__(self):
        self.looks, self.time_ns = 0, 0

    def now_ns(self):
        self.looks += 1
        if self.looks % 2 == 0:
            self.time_ns += 1000 * self.looks // 2
        return self.time_ns


def test_time_of_an_action_is_the_median_of_single_calls(bundle):
    clock = Slow()
    # Call k takes k µs, so that the median of 200 calls is 100.5 µs.
    assert action_us(load_bundle(bundle), trial(), clock) == 100.5
    assert clock.looks == 2 * evaluation.LATENCY_CALLS


def test_a_record_says_what_was_scored_and_how(bundle):
    played = figures([1.0, 3.0], [5, 7], [True, False], (0.0, 4.0))
    got = record(
        bundle, played, trial(copies=2), 1.5, selection="online", checkpoints=3, note="mind"
    )
    assert (got.bundle, got.version) == (str(bundle), bundle.name)
    assert (got.algorithm, got.task, got.updates) == ("consistency_bc", "toy", 4)
    assert (got.steps, got.candidates, got.select) == (1, 1, None)
    assert (got.selection, got.checkpoints, got.note) == ("online", 3, "mind")
    assert (got.score_mean, got.success, got.seconds, got.copies) == (50.0, 0.5, 1.5, 2)
    assert got.action_us_p50 > 0
    known = json.loads(msgspec.json.encode(got))
    assert set(known) >= {
        "bundle", "version", "algorithm", "task", "episodes", "return_mean", "return_std",
        "score_mean", "score_ci95", "success", "length_mean", "steps", "candidates", "select",
        "action_us_p50", "selection", "seconds",
    }  # fmt: skip


def test_a_record_says_how_many_rows_were_executed(bundle, tmp_path):
    played = figures([1.0], [5], None, None)
    got = record(bundle, played, trial(), 1.0)
    assert (got.horizon, got.execute) == (1, 1)
    long = toy_bundle(tmp_path, horizon=6)
    assert [
        record(long, played, trial(**changes), 1.0).execute
        for changes in ({}, {"execute": 6}, {"through": "loop"})
    ] == [3, 6, None]


def test_a_record_says_how_it_acted_where_that_was_changed(bundle):
    played = figures([1.0], [5], None, None)
    got = record(bundle, played, trial(act=ActSettings(steps=3)), 1.0)
    assert got.steps == 3
