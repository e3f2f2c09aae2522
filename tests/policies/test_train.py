"""Training: the same bits again, also after a stop; errors in one line; it learns."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from controller.clock import VirtualClock
from controller.errors import DataError
from controller.types import Observation, Request
from policies import bundle, checkpoints, training
from policies.batch import load_batch
from policies.engine import load_policy
from policies.errors import BundleError, TrainingDiverged
from policies.learning import Averaging, ConsistencySettings, OptimiserSettings, ValueSettings
from policies.metrics import read_lines
from policies.model import CriticSettings, NetworkSettings, SamplerSettings
from policies.settings import TrainConfig
from policies.train import train
from policies.train_state import exclusive, read_state
from tests.policies.robots import SPEC, toy_config, toy_data

DROPOUT = NetworkSettings(hidden=(16, 16), dropout=0.2)
RESNET = NetworkSettings(kind="ln_resnet", hidden=(8, 8), dropout=0.1)
SMALL = CriticSettings(hidden=(16, 16))
AVERAGED = ConsistencySettings(target=Averaging(0.9, every=2, after=1, grow=False))
KINDS = {
    "consistency_bc": {"loss": AVERAGED},
    "consistency_bc dropout": {"network": DROPOUT},
    "consistency_bc resnet": {"network": RESNET},
    "consistency_ac": {"critic": SMALL, "value": ValueSettings(max_q=2, q_norm=True)},
    "consistency_ac seeds": {"critic": SMALL, "seeds": (0, 1)},
    "diffusion_bc": {},
    "diffusion_bc seeds dropout": {"network": DROPOUT, "seeds": (4, 2)},
    "diffusion_ql dropout": {"critic": SMALL, "network": DROPOUT},
    "bc": {},
    "td3_bc seeds": {"critic": SMALL, "seeds": (0, 1)},
    "iql": {"critic": SMALL},
    "consistency_bc chunks": {"horizon": 3},
    "diffusion_bc chunks seeds": {"horizon": 4, "seeds": (0, 1)},
    "bc chunks": {"horizon": 2},
    "rebrac": {"critic": CriticSettings(hidden=(16, 16), layer_norm=True)},
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def config_of(kind, steps=6, **changes):
    algorithm = kind.split()[0]
    settings = {"algorithm": algorithm, "log_every": 1, "checkpoint_every": 2, **KINDS[kind]}
    return toy_config(steps, **settings | changes)


def run(config, out, *, until=None, data=None, **options):
    """Train, stopped after update ``until``; time stands still."""
    done = []
    return train(
        config,
        toy_data() if data is None else data,
        SPEC,
        out,
        lambda step, total, figures: done.append(step),
        should_stop=lambda: done[-1] == until,
        clock=VirtualClock(),
        **options,
    )


def left(out):
    """Return everything a finished training leaves that decides or records anything."""
    stores = sorted(out.glob("seed_*")) or [out]
    saved = read_state(out)
    found = {"about": saved.about, **{f"state {k}": v for k, v in saved.arrays.items()}}
    for store in stores:
        name = store.name if len(stores) > 1 else "run"
        newest = bundle.load_bundle(store)
        found |= {f"{name} {k}": v for k, v in newest.weights.items()}
        found[f"{name} version"] = newest.version
        found[f"{name} result"] = newest.manifest.training["result"]
        if newest.manifest.critic is not None:
            found |= {f"{name} critic {k}": v for k, v in newest.arrays("critics").items()}
        found[f"{name} metrics"] = read_lines(store / "metrics.jsonl")
        found[f"{name} checkpoints"] = checkpoints.read(store)
    return found


def require_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = np.array_equal(value, other[name]) if isinstance(value, np.ndarray) else None
        assert value == other[name] if same is None else same, name


@EVERY
def test_a_run_that_was_stopped_and_resumed_is_the_uninterrupted_one(tmp_path, kind):
    config = config_of(kind)
    run(config, tmp_path / "whole")
    paths = run(config, tmp_path / "half", until=3)
    assert bundle.load_bundle(paths[0]).manifest.training["steps"] == 3
    torch.rand(7)
    run(msgspec.structs.replace(config, resume=True), tmp_path / "half")
    require_same(left(tmp_path / "whole"), left(tmp_path / "half"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["consistency_ac seeds", "diffusion_bc seeds dropout"])
def test_fused_updates_go_on_bit_for_bit_too(tmp_path, kind):
    fused = OptimiserSettings(steps=6, batch=32, warmup=0, compile=True)
    config = config_of(kind, optimiser=fused)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "half", until=3)
    run(msgspec.structs.replace(config, resume=True), tmp_path / "half")
    require_same(left(tmp_path / "whole"), left(tmp_path / "half"))


@pytest.mark.parametrize("kind", ["consistency_ac seeds", "diffusion_bc"])
def test_work_after_the_last_state_is_done_again(tmp_path, kind):
    config = config_of(kind, save_every=3)
    run(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(step, total, figures):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(config, toy_data(), SPEC, tmp_path / "killed", kill, clock=VirtualClock())
    store = tmp_path / "killed" / ("seed_1" if config.seeds else "")
    assert read_state(tmp_path / "killed").about["step"] == 3
    assert [line["step"] for line in read_lines(store / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [row.step for row in checkpoints.read(store)] == [2, 4]
    run(msgspec.structs.replace(config, resume=True), tmp_path / "killed")
    require_same(left(tmp_path / "whole"), left(tmp_path / "killed"))


@EVERY
def test_the_seed_decides_everything(tmp_path, kind):
    config = config_of(kind, 3)
    run(config, tmp_path / "a")
    torch.manual_seed(77)
    run(config, tmp_path / "b")
    require_same(left(tmp_path / "a"), left(tmp_path / "b"))
    other = {"seeds": (8, 9)} if config.seeds else {"seed": 8}
    run(msgspec.structs.replace(config, **other), tmp_path / "c")
    first, second = (next(iter(run_stores(tmp_path / name))) for name in "ac")
    one, two = bundle.load_bundle(first), bundle.load_bundle(second)
    assert one.version != two.version
    for name, array in one.weights.items():
        # IQL's spread does not depend on the observation: those weights are 0.
        assert not array.any() or not np.array_equal(array, two.weights[name]), name


def run_stores(out):
    return sorted(out.glob("seed_*")) or [out]


def test_each_seed_has_a_store_of_its_own(tmp_path):
    paths = run(config_of("consistency_ac seeds"), tmp_path)
    assert [path.parent.name for path in paths] == ["seed_0", "seed_1"]
    assert not (tmp_path / "current").exists()
    first, second = map(bundle.load_bundle, run_stores(tmp_path))
    assert [b.manifest.training["config"]["seeds"] for b in (first, second)] == [[0], [1]]
    for name in first.weights:
        assert not np.array_equal(first.weights[name], second.weights[name]), name
    figures = [read_lines(store / "metrics.jsonl")[-1] for store in run_stores(tmp_path)]
    assert figures[0]["loss"] != figures[1]["loss"]
    for store, path in zip(run_stores(tmp_path), paths, strict=True):
        assert [row.step for row in checkpoints.read(store)] == [2, 4, 6]
        assert checkpoints.read(store)[-1].version == path.name
        assert bundle.load_bundle(store).version == path.name


def test_one_seed_in_a_list_is_the_run_of_that_seed(tmp_path):
    (alone,) = run(config_of("consistency_ac", seed=3), tmp_path / "a")
    (listed,) = run(config_of("consistency_ac", seeds=(3,)), tmp_path / "b")
    assert listed.parent == tmp_path / "b" / "seed_3"
    assert alone.name == listed.name


def test_a_checkpoint_names_its_mean_imitation_loss(tmp_path):
    run(config_of("consistency_ac", 5), tmp_path)
    losses = {line["step"]: line["loss"] for line in read_lines(tmp_path / "metrics.jsonl")}
    rows = checkpoints.read(tmp_path)
    assert [row.step for row in rows] == [2, 4, 5]
    for row, steps in zip(rows, ((1, 2), (3, 4), (5,)), strict=True):
        assert row.bc_loss == pytest.approx(np.mean([losses[step] for step in steps]), rel=1e-6)
        assert (tmp_path / row.version / "manifest.json").is_file()


def test_bundles_are_scored_and_the_figures_recorded(tmp_path):
    asked = []

    def score(paths):
        asked.append([bundle.load_bundle(path).manifest.training["steps"] for path in paths])
        return [{"return_mean": 7.0 + n} for n, _ in enumerate(paths)]

    run(config_of("consistency_ac seeds", 4), tmp_path, score=score)
    assert asked == [[2, 2], [4, 4]]
    for number, store in enumerate(run_stores(tmp_path)):
        lines = read_lines(store / "metrics.jsonl")
        scored = [(line["step"], line["return_mean"]) for line in lines if "return_mean" in line]
        assert scored == [(2, 7.0 + number), (4, 7.0 + number)]


def test_metrics_are_one_json_object_per_line(tmp_path):
    run(config_of("consistency_ac", 10, log_every=4), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [4, 8, 10]
    expected = {"loss", "norm", "q_loss", "q", "policy_loss", "updates_per_s"}
    assert expected <= lines[0].keys()


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    config = config_of("consistency_bc", resume=False)
    made = run(config, tmp_path)
    before = left(tmp_path)
    manifest = (made[0] / "manifest.json").read_bytes()
    assert run(msgspec.structs.replace(config, resume=True), tmp_path) == made
    assert (made[0] / "manifest.json").read_bytes() == manifest
    require_same(before, left(tmp_path))


def test_what_does_not_decide_the_weights_may_change_on_the_way(tmp_path):
    config = config_of("diffusion_bc")
    run(config, tmp_path / "whole")
    run(config, tmp_path / "half", until=3)
    moved = tmp_path / "moved"
    (tmp_path / "half").rename(moved)
    changes = {"log_every": 3, "save_every": 2, "data": "elsewhere", "out": "elsewhere"}
    run(msgspec.structs.replace(config, resume=True, **changes), moved)
    one, other = left(tmp_path / "whole"), left(moved)
    assert one["run version"] == other["run version"]
    assert one["run checkpoints"] == other["run checkpoints"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"network": NetworkSettings(hidden=(32, 32))},
            r"network.hidden=\[16, 16\], these settings have \[32, 32\]",
        ),
        (
            {"algorithm": "consistency_ac"},
            "algorithm=consistency_bc, these settings have consistency_ac",
        ),
        (
            {"optimiser": OptimiserSettings(steps=7, batch=32, warmup=0)},
            "optimiser.steps=6, these settings have 7",
        ),
        ({"horizon": 2}, "horizon=1, these settings have 2"),
        ({"seed": 1}, r"seeds=\[0\], these settings have \[1\]"),
        ({"observation": None}, r"observation=\['position', 'target'\], these settings have None"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(tmp_path, changes, expected):
    config = config_of("consistency_bc")
    run(config, tmp_path, until=3)
    before = read_state(tmp_path).about
    with pytest.raises(BundleError, match=f"cannot resume: the run has {expected}") as error:
        run(msgspec.structs.replace(config, resume=True, **changes), tmp_path)
    assert "\n" not in str(error.value)
    assert read_state(tmp_path).about == before


def test_a_run_that_does_not_name_its_horizon_has_one_of_one(tmp_path, monkeypatch):
    config = config_of("bc", resume=True)
    named = training.comparable

    def unnamed(config):
        return {key: value for key, value in named(config).items() if key != "horizon"}

    with monkeypatch.context() as patch:
        patch.setattr(training, "comparable", unnamed)
        run(msgspec.structs.replace(config, resume=False), tmp_path, until=3)
    assert "horizon" not in read_state(tmp_path).about["config"]
    with pytest.raises(BundleError, match="horizon=1, these settings have 2"):
        run(msgspec.structs.replace(config, horizon=2), tmp_path)
    assert bundle.load_bundle(run(config, tmp_path)[0]).manifest.training["steps"] == 6


def test_a_run_goes_on_with_its_own_data_and_robot_only(tmp_path):
    config = config_of("consistency_bc")
    run(config, tmp_path, until=3)
    again = msgspec.structs.replace(config, resume=True)
    with pytest.raises(BundleError, match=r"cannot resume: the data is another: .*\[.*\].*\[.*\]"):
        run(again, tmp_path, data=toy_data(seed=1))
    faster = msgspec.structs.replace(SPEC, rate_hz=50.0)
    with pytest.raises(BundleError, match="cannot resume: the robot is another"):
        train(again, toy_data(), faster, tmp_path)


def test_there_must_be_a_run_to_resume(tmp_path):
    config = config_of("consistency_bc", resume=True)
    with pytest.raises(BundleError, match="typo: nothing to resume: no run left a state there"):
        run(config, tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_an_unfinished_run_is_not_begun_anew(tmp_path):
    config = config_of("consistency_bc")
    run(config, tmp_path, until=3)
    with pytest.raises(BundleError, match="stopped at update 3: resume=true goes on with it"):
        run(config, tmp_path)
    run(msgspec.structs.replace(config, resume=True), tmp_path)
    first = left(tmp_path)
    run(config, tmp_path)
    require_same(first, left(tmp_path))


def test_two_runs_do_not_share_a_store(tmp_path):
    with (
        exclusive(tmp_path),
        pytest.raises(BundleError, match="another run is at work there; choose another out"),
    ):
        run(config_of("consistency_bc"), tmp_path)


def poisoned(row, reward=1e38):
    data = toy_data()
    rewards = data.rewards.copy()
    rewards[row] = reward
    return replace(data, rewards=rewards)


@pytest.mark.parametrize("seeds", [None, (0, 1)])
def test_a_run_that_diverges_keeps_the_batch_and_what_was_good(tmp_path, seeds):
    every = {"checkpoint_every": 1, "save_every": 1, "value": ValueSettings()}
    config = config_of("consistency_ac", 200, seeds=seeds, **every)
    who = r"q_loss of seed [01]" if seeds else "q_loss"
    expected = (
        rf"{who} is no longer finite at update \d+: lower value\.learning_rate \(now 0.0003\)"
    )
    with pytest.raises(TrainingDiverged, match=expected) as error:
        run(config, tmp_path, data=poisoned(7))
    kept = safetensors_of(tmp_path / "diverged.safetensors")
    assert "diverged.safetensors" in str(error.value)
    step = int(kept["update"])
    assert step > 1
    assert kept["rows"].shape == (2 if seeds else 1, 32)
    assert (kept["rows"] == 7).any()
    assert kept["reward"][kept["rows"] == 7].min() == np.float32(1e38)
    assert read_state(tmp_path).about["step"] == step - 1
    for store in run_stores(tmp_path):
        good = bundle.load_bundle(store)
        assert good.manifest.training["steps"] == step - 1
        assert all(np.isfinite(array).all() for array in good.weights.values())
    with pytest.raises(TrainingDiverged, match=f"no longer finite at update {step}:"):
        run(msgspec.structs.replace(config, resume=True), tmp_path, data=poisoned(7))


@pytest.mark.parametrize("algorithm", ["consistency_bc", "diffusion_bc"])
def test_weights_that_explode_are_not_published(tmp_path, algorithm):
    wild = OptimiserSettings(
        steps=50, batch=32, warmup=0, learning_rate=1e30, grad_clip=None, served=Averaging(every=0)
    )
    config = toy_config(algorithm=algorithm, optimiser=wild, checkpoint_every=1)
    with pytest.raises(TrainingDiverged, match=r"at update \d+: lower optimiser\.learning_rate"):
        run(config, tmp_path)
    assert not (tmp_path / "current").exists()
    assert (tmp_path / "diverged.safetensors").is_file()


def safetensors_of(file):
    import safetensors.numpy

    return safetensors.numpy.load_file(file)


def test_the_caller_keeps_its_random_state_and_threads(tmp_path):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(toy_config(seed=9, network=DROPOUT), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_faulty_data_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="fewer than a batch"):
        run(toy_config(), tmp_path, data=toy_data(20))
    nan = poisoned(3, np.nan)
    with pytest.raises(DataError, match="rewards is not finite in 1 of 600 rows, first in row 3"):
        run(toy_config(), tmp_path, data=nan)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_actions_beyond_their_limits_are_clipped_where_that_is_asked_for(tmp_path):
    data = toy_data()
    wild = replace(data, actions=data.actions * 1.5)
    with pytest.raises(DataError, match="clip_actions=true clips them"):
        run(toy_config(), tmp_path, data=wild)
    (clipped,) = run(toy_config(clip_actions=True), tmp_path / "a", data=wild)
    tame = replace(wild, actions=np.clip(wild.actions, -2.0, 2.0))
    (expected,) = run(toy_config(), tmp_path / "b", data=tame)
    assert clipped.name == expected.name


def test_no_gpu_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BundleError, match="torch finds no GPU here; valid now: cpu"):
        run(toy_config(device="cuda"), tmp_path)


@pytest.mark.parametrize("algorithm", ["consistency_bc", "diffusion_bc"])
def test_it_learns_the_controller_of_the_data(tmp_path, algorithm):
    config = toy_config(
        algorithm=algorithm,
        network=NetworkSettings(hidden=(64, 64)),
        loss=ConsistencySettings(levels_end=5),
        optimiser=OptimiserSettings(steps=800, batch=128, learning_rate=3e-3),
        sampler=SamplerSettings(temperature=0.0),
    )
    policy = load_policy(run(config, tmp_path, data=toy_data(4000))[0])
    fresh = toy_data(200, seed=1)
    errors = []
    for tick, row in enumerate(fresh.observations):
        arrays = (row[0:2], row[2:4], row[4:6])
        chunk = policy.infer(Request(tick, 0, Observation(arrays, 0), 0, 0))
        errors.append(chunk.actions[0] - fresh.actions[tick])
    # The actions' spread is 1.2; a constant guess would miss by that.
    assert np.sqrt(np.square(errors).mean()) < 0.3


def walk(rows=6000, seed=0):
    """Return rows of a point whose force turns by 0.3 rad a step: what comes next is known."""
    data = toy_data(rows, seed)
    turns = np.random.default_rng(seed).uniform(0, 2 * np.pi, rows // 50).repeat(50)
    phase = turns + 0.3 * (np.arange(rows) % 50)
    circle = np.stack([np.cos(phase), np.sin(phase)], 1)
    observations = np.concatenate([circle, np.zeros((rows, 4))], 1)
    return replace(data, observations=observations, actions=(1.5 * circle).astype(np.float32))


@pytest.mark.parametrize("algorithm", ["bc", "consistency_bc", "diffusion_bc"])
def test_it_learns_what_comes_next_in_the_data(tmp_path, algorithm):
    config = toy_config(
        algorithm=algorithm,
        horizon=4,
        network=NetworkSettings(hidden=(64, 64)),
        loss=ConsistencySettings(levels_end=5),
        optimiser=OptimiserSettings(steps=800, batch=128, learning_rate=3e-3),
        sampler=SamplerSettings(temperature=0.0),
    )
    policy = load_batch(run(config, tmp_path, data=walk())[0])
    phase = np.linspace(0.0, 6.0, 50)
    seen = np.zeros((50, 6))
    seen[:, :2] = np.stack([np.cos(phase), np.sin(phase)], 1)
    got = policy.act(seen, np.random.default_rng(0))
    ahead = phase[:, None] + 0.3 * np.arange(4)
    expected = 1.5 * np.stack([np.cos(ahead), np.sin(ahead)], 2)
    error = np.sqrt(np.square(got - expected).mean((0, 2)))
    # The first action in place of all four would be off by 0.3, 0.6 and 0.9 in the later rows.
    assert got.shape == (50, 4, 2)
    assert (error < 0.15).all(), error


@pytest.mark.parametrize("algorithm", ["consistency_ac", "diffusion_ql", "td3_bc", "iql", "rebrac"])
def test_values_of_chunks_are_refused(algorithm):
    said = f"horizon 8: {algorithm} values single actions; expected 1, or an algorithm that"
    with pytest.raises(ValueError, match=said):
        TrainConfig(algorithm=algorithm, horizon=8)


WITHOUT = ("mujoco", "gymnasium", "gymnasium_robotics", "dm_control", "zmq", "matplotlib", "PIL")


def test_learning_needs_neither_the_simulator_nor_the_wire(tmp_path):
    script = (
        "import sys\n"
        f"for name in {WITHOUT!r}: sys.modules[name] = None\n"
        "import policies.train, policies.settings, policies.presets, policies.learners\n"
        "assert not any(n.split('.')[0] == 'sim' for n in sys.modules)\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
