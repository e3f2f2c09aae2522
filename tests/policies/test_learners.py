"""Which learner a name gives, what it refuses, and that each leaves a bundle that acts."""

import re
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch

from controller.errors import ConfigError
from policies import bundle, codec
from policies.algos.learner import Sizes
from policies.engine import load_policy
from policies.learners import LEARNERS, make_learner
from policies.learning import OptimiserSettings, RewardSettings, ValueSettings
from policies.model import CriticSettings, NetworkSettings
from policies.settings import Algorithm, TrainConfig
from policies.stepper import Plain, make_stepper
from policies.table import Table
from policies.train import train
from tests.policies.robots import SPEC, toy_config, toy_data

BASELINES = ("bc", "td3_bc", "iql", "rebrac")


def small(algorithm, **changes):
    config = toy_config(8, algorithm=algorithm, critic=CriticSettings(hidden=(16, 16)))
    return msgspec.structs.replace(config, **changes)


def test_every_algorithm_has_a_learner():
    assert set(get_args(Algorithm)) == set(LEARNERS)


@pytest.mark.parametrize("algorithm", BASELINES)
@pytest.mark.parametrize(
    ("network", "got"),
    [
        (NetworkSettings(kind="ln_resnet"), "got ln_resnet with dropout 0"),
        (NetworkSettings(dropout=0.1), "got mlp with dropout 0.1"),
    ],
)
def test_networks_that_a_baseline_does_not_have_are_refused(algorithm, network, got):
    config = TrainConfig(algorithm=algorithm, network=network)
    with pytest.raises(
        ConfigError, match=re.escape(f"{algorithm} has an MLP without dropout, {got}")
    ):
        make_learner(config, Sizes(2, 3))


@pytest.mark.parametrize("algorithm", ["td3_bc", "iql", "rebrac"])
def test_more_actions_than_one_are_refused(algorithm):
    config = TrainConfig(algorithm=algorithm, value=ValueSettings(max_q=10))
    with pytest.raises(ConfigError, match=r"value\.max_q: .* got 10; expected 1"):
        make_learner(config, Sizes(2, 3))


def mean_by_hand(arrays, condition):
    h, index = condition, 0
    while f"fc{index}.weight" in arrays:
        h = np.maximum(arrays[f"fc{index}.weight"] @ h + arrays[f"fc{index}.bias"], 0)
        index += 1
    return np.tanh(arrays["last_fc.weight"] @ h + arrays["last_fc.bias"])


@pytest.mark.parametrize("algorithm", BASELINES)
def test_a_baseline_leaves_a_bundle_that_acts_by_its_mean(tmp_path, algorithm):
    sampler = msgspec.structs.replace(TrainConfig().sampler, temperature=0.0)
    path = train(small(algorithm, sampler=sampler), toy_data(), SPEC, tmp_path)[0]
    made, policy = bundle.load_bundle(path), load_policy(path)
    assert made.manifest.algorithm == algorithm
    assert (made.manifest.critic is None) == (algorithm == "bc")
    row = toy_data(3, seed=1).observations[:1]
    expected = mean_by_hand(made.weights, made.codec.encode_observation(row)[0])
    got = made.codec.encode_action(policy.act(row, 0, 0))[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("algorithm", BASELINES)
def test_stopped_and_resumed_is_uninterrupted(tmp_path, algorithm):
    config = small(algorithm, seeds=(0, 1))
    whole = train(config, toy_data(), SPEC, tmp_path / "whole")
    seen = []
    train(
        config,
        toy_data(),
        SPEC,
        tmp_path / "half",
        lambda step, total, figures: seen.append(step),
        should_stop=lambda: len(seen) == 3,
    )
    again = msgspec.structs.replace(config, resume=True)
    rest = train(again, toy_data(), SPEC, tmp_path / "half")
    assert [path.name for path in rest] == [path.name for path in whole]
    for ours, theirs in zip(rest, whole, strict=True):
        first, second = bundle.load_bundle(ours), bundle.load_bundle(theirs)
        assert all(np.array_equal(first.weights[n], second.weights[n]) for n in second.weights)


def test_a_baseline_learns_the_controller_of_the_data(tmp_path):
    network = NetworkSettings(hidden=(64, 64))
    optimiser = OptimiserSettings(steps=500, batch=128, learning_rate=3e-3)
    sampler = msgspec.structs.replace(TrainConfig().sampler, temperature=0.0)
    config = small("bc", network=network, optimiser=optimiser, sampler=sampler)
    policy = load_policy(train(config, toy_data(4000), SPEC, tmp_path)[0])
    fresh = toy_data(200, seed=1)
    acted = [policy.act(row[None], 0, tick)[0] for tick, row in enumerate(fresh.observations)]
    # The actions' spread is 1.2; a constant guess would miss by that.
    assert np.sqrt(np.square(np.array(acted) - fresh.actions).mean()) < 0.3


@pytest.mark.gpu
@pytest.mark.parametrize("algorithm", BASELINES)
def test_captured_updates_do_what_plain_ones_do(algorithm):
    data, config = toy_data(), small(algorithm)
    encode = codec.fit(data, SPEC)
    table = Table(data, encode, RewardSettings(), "cuda")
    sizes = Sizes(encode.action_size, encode.condition_size, (0, 1), "cuda")
    captured, plain = make_learner(config, sizes), make_learner(config, sizes)
    steps = make_stepper(captured, table, 32), Plain(plain, table, 32)
    for number in range(12):
        for step in steps:
            step(number)
    for name, network in plain.networks.items():
        torch.testing.assert_close(captured.networks[name].flat, network.flat, msg=name)
