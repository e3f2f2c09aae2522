"""Training: deterministic, resumable bit for bit, stopped cleanly, and it learns."""

import json

import msgspec
import numpy as np
import pytest
import torch

from controller.clock import VirtualClock
from controller.errors import DataError
from controller.types import Observation, Request
from policies import bundle
from policies.engine import load_policy
from policies.errors import BundleError, TrainingDiverged
from policies.settings import ConsistencySettings, NetworkSettings, OptimiserSettings
from policies.train import learning_rate, train
from tests.policies.robots import SPEC, toy_config, toy_data

DROPOUT = NetworkSettings(hidden=(16, 16), dropout=0.2)


def weights_of(path):
    return bundle.load_bundle(path).weights


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    runs = [
        train(toy_config(seed=seed), toy_data(), SPEC, tmp_path / str(i))
        for i, seed in enumerate((0, 0, 1))
    ]
    first, second, third = (weights_of(path) for path in runs)
    assert same(first, second)
    assert not same(first, third)
    assert runs[0].name == runs[1].name != runs[2].name


@pytest.mark.parametrize("target_decay", [0.0, 0.9])
def test_two_updates_and_two_resumed_are_four(tmp_path, target_decay):
    loss = ConsistencySettings(target_decay=target_decay)
    config = toy_config(4, network=DROPOUT, loss=loss)
    whole = train(config, toy_data(), SPEC, tmp_path / "whole")
    seen = []
    half = train(
        config,
        toy_data(),
        SPEC,
        tmp_path / "half",
        lambda step, total, info: seen.append((step, total)),
        should_stop=lambda: len(seen) == 2,
    )
    assert bundle.load_bundle(half).manifest.training["steps"] == 2
    torch.rand(7)
    rest = train(
        config,
        toy_data(),
        SPEC,
        tmp_path / "rest",
        lambda step, total, info: seen.append((step, total)),
        resume=half,
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert rest.name == whole.name != half.name
    assert same(weights_of(rest), weights_of(whole))
    state, expected = (bundle.load_bundle(p).arrays("train_state") for p in (rest, whole))
    assert same(state, expected)


def test_resuming_another_run_is_refused(tmp_path):
    made = train(toy_config(), toy_data(), SPEC, tmp_path / "a")
    with pytest.raises(BundleError, match="trained with other settings"):
        train(toy_config(5), toy_data(), SPEC, tmp_path / "b", resume=made)
    with pytest.raises(BundleError, match="trained on other data"):
        train(toy_config(), toy_data(seed=1), SPEC, tmp_path / "b", resume=made)
    bare = train(toy_config(save_state=False), toy_data(), SPEC, tmp_path / "c")
    with pytest.raises(BundleError, match=r"no train_state\.safetensors"):
        train(toy_config(), toy_data(), SPEC, tmp_path / "b", resume=bare)


def test_an_interrupt_leaves_a_bundle_of_what_was_learned(tmp_path):
    def interrupt(step, total, info):
        if step == 3:
            raise KeyboardInterrupt

    made = train(toy_config(10), toy_data(), SPEC, tmp_path, interrupt)
    assert bundle.load_bundle(tmp_path).manifest.training["steps"] == 3
    assert load_policy(made).version == made.name


def test_the_caller_keeps_its_random_state_and_threads(tmp_path):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(toy_config(seed=9), toy_data(), SPEC, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    wild = OptimiserSettings(
        steps=50, batch=32, warmup=0, threads=1, learning_rate=1e30, grad_clip=None
    )
    with pytest.raises(TrainingDiverged, match=r"loss is .* at update \d+: lower optimiser"):
        train(toy_config(optimiser=wild), toy_data(), SPEC, tmp_path)
    assert not (tmp_path / "current").exists()


def test_data_of_another_robot_is_refused(tmp_path):
    other = msgspec.structs.replace(SPEC, observation=SPEC.observation[:2])
    with pytest.raises(DataError, match="expected those of toy: position"):
        train(toy_config(), toy_data(), other, tmp_path)


def test_metrics_are_one_json_object_per_line(tmp_path):
    train(toy_config(10, log_every=4), toy_data(), SPEC, tmp_path, clock=VirtualClock())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert {"loss", "levels", "updates_per_s"} <= lines[0].keys()


def test_the_learning_rate_rises_then_falls_to_its_end():
    settings = OptimiserSettings(steps=100, learning_rate=1.0, warmup=10, final_rate=0.1)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert max(rates) == pytest.approx(0.98, abs=0.01)
    assert rates[50] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_it_learns_the_controller_of_the_data(tmp_path):
    config = toy_config(
        network=NetworkSettings(hidden=(64, 64)),
        loss=ConsistencySettings(levels_end=5, target_decay=0.0),
        optimiser=OptimiserSettings(steps=800, batch=128, learning_rate=3e-3, threads=1),
    )
    policy = load_policy(train(config, toy_data(4000), SPEC, tmp_path))
    fresh = toy_data(200, seed=1)
    errors = []
    for tick, row in enumerate(fresh.observations):
        arrays = (row[0:2], row[2:4], row[4:6])
        chunk = policy.infer(Request(tick, 0, Observation(arrays, 0), 0, 0))
        errors.append(chunk.actions[0] - fresh.actions[tick])
    # The actions' spread is 1.2; a constant guess would miss by that.
    assert np.sqrt(np.square(errors).mean()) < 0.3
