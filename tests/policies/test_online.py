"""Online learning: reaches what is known to be best, and goes on after any end bit for bit."""

import json
import math

import msgspec
import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import ConfigError, DataError
from controller.types import Observation, Request
from policies.bundle import load_bundle
from policies.data.d4rl import read_attributes, read_d4rl
from policies.engine import load_policy
from policies.errors import BundleError, TrainingDiverged
from policies.finetuning.from_logs import finetune
from policies.finetuning.logged import Logs
from policies.finetuning.settings import FinetuneConfig, GateSettings, LearnSettings
from policies.model import CriticSettings
from policies.online import learn, segment_edges
from policies.settings import SacConfig
from sim.generate.behaviour import load_behaviour
from tests.policies.vectors import OneStep, Regulator

SMALL = SacConfig(
    steps=160,
    copies=4,
    start_steps=40,
    batch=16,
    hidden=(8, 8),
    snapshots=3,
    save_every=10,
    evaluate_episodes=3,
    log_every=20,
)


def small(**changes):
    return msgspec.structs.replace(SMALL, **changes)


def run(store, config=SMALL, plants=None, **more):
    return learn(config, plants or Regulator(), store, clock=VirtualClock(), **more)


def outcome(store):
    """Return everything a run is judged by: policies, their scores, data and metrics."""
    snapshots = [file.read_bytes() for file in sorted(store.glob("*.npz"))]
    data = read_d4rl(store / "replay.hdf5").digest()
    scores, metrics = ((store / n).read_text() for n in ("snapshots.json", "metrics.jsonl"))
    return snapshots, data, json.loads(scores), metrics.splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = tmp_path_factory.mktemp("runs") / "whole"
    seen = []
    facts = run(store, on_progress=lambda *args: seen.append(args))
    return store, facts, seen


def test_a_run_leaves_snapshots_scores_data_metrics_and_a_bundle(whole):
    store, facts, seen = whole
    assert sorted(file.name for file in store.iterdir() if file.name != "state") == [
        "bundles",
        "metrics.jsonl",
        "replay.hdf5",
        "sac_snapshot_00.npz",
        "sac_snapshot_01.npz",
        "sac_snapshot_02.npz",
        "snapshots.json",
    ]
    assert sorted(f.name for f in (store / "state").iterdir()) == ["lock", "run.safetensors"]
    assert (facts["steps"], facts["updates"], facts["finished"]) == (160, 120, True)
    assert [(done, total) for done, total, _ in seen] == [(4 * i, 160) for i in range(1, 41)]
    scores = json.loads((store / "snapshots.json").read_text())
    assert [(s["file"], s["step"]) for s in scores] == [
        (f"sac_snapshot_{i:02d}.npz", 80 * i) for i in range(3)
    ]
    assert all(s["return_mean"] < 0 and s["length_mean"] == 20 for s in scores)
    assert facts["return_mean"] == scores[-1]["return_mean"]
    lines = [json.loads(line) for line in (store / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "snapshot" not in line] == list(range(20, 161, 20))
    assert {"q", "q_error", "entropy", "alpha", "updates_per_s"} <= lines[-2].keys()


def test_the_data_is_what_was_gone_through(whole):
    store, _, _ = whole
    data = read_d4rl(store / "replay.hdf5")
    plant = Regulator()
    x, u = data.observations[:, 0], data.actions[:, 0]
    np.testing.assert_allclose(data.rewards, plant.reward(x, u), atol=1e-6)
    np.testing.assert_allclose(data.next_observations[:, 0], plant.move(x, u), atol=1e-6)
    inner = ~data.timeouts[:-1]
    assert np.array_equal(data.next_observations[:-1][inner], data.observations[1:][inner])
    assert not data.terminals.any()
    # Segments of 40 steps are 10 of each copy: episodes of 20 never reach their end.
    assert data.lengths().tolist() == [10] * 16
    assert read_attributes(store / "replay.hdf5") == {"algorithm": "sac", "seed": 0, "steps": 160}


def test_actions_are_evenly_drawn_first(tmp_path):
    plants = Regulator(limit=3.0)
    run(tmp_path, small(start_steps=160, evaluate_episodes=0), plants)
    drawn = np.concatenate(plants.actions)
    assert len(drawn) == 160
    assert abs(drawn.mean()) < 4 * 3 / math.sqrt(3 * 160)
    assert abs(drawn.std() - math.sqrt(3)) < 0.3
    assert np.abs(drawn).max() <= 3
    files = [(tmp_path / f"sac_snapshot_{i:02d}.npz").read_bytes() for i in (0, 2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("stop_at", [40, 80, 120])
def test_a_run_stopped_at_the_end_of_a_segment_goes_on_as_if_never_stopped(
    tmp_path, whole, stop_at
):
    done = []
    half = run(
        tmp_path,
        on_progress=lambda step, *_: done.append(step),
        should_stop=lambda: done[-1] == stop_at,
    )
    assert (half["steps"], half["finished"]) == (stop_at, False)
    assert not (tmp_path / "replay.hdf5").exists()
    rest = run(tmp_path)
    assert rest["finished"]
    assert outcome(tmp_path) == outcome(whole[0])


@pytest.mark.parametrize("killed_at", [4, 60, 124, 160])
@pytest.mark.parametrize("capacity", [1000, 60])
def test_a_run_that_was_killed_goes_on_from_the_last_state(tmp_path, killed_at, capacity):
    config = small(capacity=capacity)
    run(tmp_path / "whole", config)

    def kill(step, *_):
        if step == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", config, on_progress=kill)
    assert run(tmp_path / "killed", config)["finished"]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_run_stopped_within_a_segment_loses_nothing(tmp_path):
    done, plants = [], Regulator()
    half = run(
        tmp_path,
        on_progress=lambda step, *_: done.append(step),
        should_stop=lambda: done[-1] == 60,
    )
    assert (half["steps"], half["updates"]) == (60, 20)
    rest = run(tmp_path, plants=plants, on_progress=lambda step, *_: done.append(step))
    assert done == list(range(4, 161, 4))
    assert (rest["steps"], rest["updates"]) == (160, 120)
    data = read_d4rl(tmp_path / "replay.hdf5")
    # The episodes were cut where it stopped: 15 steps of each copy.
    assert data.lengths().tolist() == [10, 5, 5, 10, 10] * 4


def test_a_finished_run_is_only_told_again(tmp_path, whole):
    store, facts, _ = whole
    before = outcome(store)
    plants = Regulator()
    again = run(store, plants=plants)
    assert again == facts
    assert plants.resets == []
    assert outcome(store) == before


def test_another_seed_is_another_run(tmp_path, whole):
    run(tmp_path, small(seed=1))
    assert outcome(tmp_path)[1] != outcome(whole[0])[1]


def test_a_run_with_other_settings_is_not_taken_up(tmp_path):
    run(tmp_path)
    with pytest.raises(BundleError, match=r"holds a run with tau=0.005, this one has tau=0.01: c"):
        run(tmp_path, small(tau=0.01))
    with pytest.raises(BundleError, match="of another robot"):
        run(tmp_path, plants=OneStep())
    run(tmp_path, small(log_every=3, threads=2, processes=None))


def test_two_runs_do_not_share_a_directory(tmp_path):
    def intrude(step, *_):
        with pytest.raises(BundleError, match="another run is at work there"):
            run(tmp_path)

    assert run(tmp_path, on_progress=intrude)["finished"]


def test_a_damaged_state_is_told(tmp_path):
    run(tmp_path)
    (tmp_path / "state" / "run.safetensors").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"run\.safetensors: cannot go on from it"):
        run(tmp_path)


def test_lost_rows_are_told(tmp_path):
    run(tmp_path, should_stop=lambda: True)
    (tmp_path / "state" / "replay.f32").unlink()
    with pytest.raises(DataError, match="is gone; the run cannot go on"):
        run(tmp_path)


def test_figures_that_are_not_finite_stop_it_and_are_not_saved(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"after \d+ updates: lower learning_rate"):
        run(tmp_path, small(learning_rate=1e30))
    state = tmp_path / "state" / "run.safetensors"
    assert b'\\"step\\": 40' in state.read_bytes()[:4000]


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="copies is 4, but there are 3"):
        run(tmp_path, plants=Regulator(3))
    plants = Regulator()
    action = msgspec.structs.replace(plants.spec.action, low=(), high=())
    plants.spec = msgspec.structs.replace(plants.spec, action=action)
    with pytest.raises(ConfigError, match="regulator: u is not limited in every element"):
        run(tmp_path, plants=plants)


def test_episodes_that_end_are_reported_and_those_that_never_do_are_told_once(tmp_path, caplog):
    run(tmp_path / "endless")
    assert caplog.text.count("no episode of regulator ended within a segment") == 1
    caplog.clear()
    seen = []
    run(
        tmp_path / "short",
        small(snapshots=2, save_every=40),
        on_progress=lambda *args: seen.append(args),
        reference=(-10.0, 10.0),
    )
    assert "no episode" not in caplog.text
    assert not any("return" in info for step, _, info in seen if step < 80)
    info = seen[-1][2]
    data = read_d4rl(tmp_path / "short" / "replay.hdf5")
    assert data.lengths().tolist() == [20] * 8
    assert info["return"] == pytest.approx(data.returns().mean(), rel=1e-5)
    assert info["score"] == pytest.approx(5.0 * info["return"] + 50.0)


@pytest.mark.parametrize("copies", [1, 3, 4])
@pytest.mark.parametrize(("steps", "save_every"), [(9, 100), (160, 10), (1000, 33)])
def test_segments_end_at_every_snapshot_and_often_enough(copies, steps, save_every):
    config = small(steps=steps, copies=copies, save_every=save_every)
    edges = segment_edges(config)
    assert edges[0] == 0
    assert steps <= edges[-1] < steps + copies
    assert all(edge % copies == 0 for edge in edges)
    assert max(np.diff(edges)) < (save_every + 1) * copies
    assert any(0 <= edge - steps // 2 < copies for edge in edges)


def test_all_snapshots_are_there_when_steps_are_few(tmp_path):
    facts = run(tmp_path, small(steps=9, snapshots=11))
    assert facts["steps"] == 12
    assert len(list(tmp_path.glob("sac_snapshot_*.npz"))) == 11


def test_the_bundle_is_a_policy_that_gives_the_mean_action_of_the_last_snapshot(whole):
    store, facts, _ = whole
    policy = load_policy(store / "bundles")
    assert policy.spec == Regulator().spec
    assert facts["bundle"].endswith(policy.version)
    last = load_behaviour(store / "sac_snapshot_02.npz")
    for tick, x in enumerate(np.linspace(-1, 1, 7)):
        arrays = (np.array([x]), np.array(1.0))
        actions = [
            load.infer(Request(tick, 3, Observation(arrays, 0), 0, 0)).actions
            for load in (policy, load_policy(store / "bundles", "torch"))
        ]
        expected = last.mean(np.array([x, 1.0]))
        for got in actions:
            np.testing.assert_allclose(got[0], expected, atol=1e-5)


def test_the_bundle_goes_on_as_sac(whole, tmp_path):
    store, _, _ = whole
    parent = load_bundle(store / "bundles")
    data = read_d4rl(store / "replay.hdf5")
    quick = LearnSettings(batch=16, critic_updates=2, critic=CriticSettings(2, (8, 8)), subset=0)
    config = FinetuneConfig(out=str(tmp_path), updates=6, learn=quick, gate=GateSettings(on=False))
    result = finetune(config, parent, logs=Logs(data))
    made = load_bundle(result["bundle"]).manifest
    assert (made.algorithm, made.parent, made.generation) == ("sac", parent.version, 2)
    assert result["actor_updates"] == 4


def test_scores_are_the_returns_between_the_references(tmp_path):
    facts = run(tmp_path, reference=(-10.0, 10.0))
    assert facts["score_mean"] == pytest.approx(5.0 * facts["return_mean"] + 50.0)
    assert facts["mean_action_score"] == pytest.approx(5.0 * facts["mean_action_return"] + 50.0)


LEARN = SacConfig(
    steps=3000,
    start_steps=500,
    batch=128,
    hidden=(32, 32),
    learning_rate=3e-3,
    tau=0.02,
    snapshots=2,
    save_every=10_000,
    evaluate_episodes=40,
)


def policy_at(store, x):
    """Return mean of u, before the tanh, and its standard deviation at each x."""
    last = sorted(store.glob("*.npz"))[-1]
    return load_behaviour(last).mean_std(np.stack([x, np.ones(len(x))], 1))


def test_with_a_given_temperature_it_finds_the_soft_optimum(tmp_path):
    alpha, x = 0.02, np.linspace(-0.9, 0.9, 9)
    learn(msgspec.structs.replace(LEARN, temperature=alpha), OneStep(), tmp_path)
    mean, std = (array[:, 0] for array in policy_at(tmp_path, x))
    assert np.abs(np.tanh(mean) - x / 2).max() < 0.05
    # d tanh(u) = (1 - tanh² u) du.
    of_action = std * (1 - np.tanh(mean) ** 2)
    np.testing.assert_allclose(of_action, math.sqrt(alpha / 2), rtol=0.2)


def test_a_learned_temperature_brings_the_entropy_to_its_target(tmp_path):
    target = -0.5
    config = msgspec.structs.replace(
        LEARN, steps=3500, target_entropy=target, learning_rate=1e-2, log_every=50
    )
    learn(config, OneStep(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    tail = [line for line in lines if "entropy" in line][-20:]
    assert np.mean([line["entropy"] for line in tail]) == pytest.approx(target, abs=0.15)
    # A Gaussian of that entropy has σ = exp(H) / √(2πe), and the soft optimum α = 2σ².
    sigma = math.exp(target) / math.sqrt(2 * math.pi * math.e)
    assert np.mean([line["alpha"] for line in tail]) == pytest.approx(2 * sigma**2, rel=0.3)


@pytest.mark.slow
def test_it_finds_the_linear_regulator(tmp_path):
    discount, plants = 0.9, Regulator()
    config = msgspec.structs.replace(
        LEARN, steps=12_000, discount=discount, hidden=(64, 64), learning_rate=1e-3
    )
    learn(config, plants, tmp_path)
    x = np.linspace(-0.5, 0.5, 11)
    got = np.tanh(policy_at(tmp_path, x)[0][:, 0])
    best = -plants.gain(discount) * x
    assert np.abs(got - best).max() < 0.1
