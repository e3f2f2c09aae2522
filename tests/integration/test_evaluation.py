"""The verb that scores policies, with real bundles and a real task."""

import json
import shutil

import numpy as np
import pytest

from controller.arguments import Arguments
from controller.cli.evaluation import evaluate
from controller.config import load
from controller.errors import ConfigError, ControllerError, SpecMismatch
from controller.settings import EvalConfig
from controller.transitions import Transitions, layout_of
from policies import checkpoints
from policies.checkpoints import CHECKPOINTS
from policies.errors import BundleError
from policies.train import train
from sim.registry import reference, task_spec
from tests.policies.robots import toy_config

SPEC = task_spec("hopper")


def hopper_data(rows: int = 200) -> Transitions:
    """Return made-up rows; what is learned from them falls over, at once but not equally fast."""
    rng = np.random.default_rng(0)
    ends = np.arange(1, rows + 1) % 50 == 0
    return Transitions(
        observations=rng.standard_normal((rows, 11)),
        actions=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        rewards=rng.random(rows),
        next_observations=rng.standard_normal((rows, 11)),
        terminals=ends,
        timeouts=np.zeros(rows, bool),
        layout=layout_of(SPEC),
        task="hopper",
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of two checkpoints each; the second has critics."""
    out = tmp_path_factory.mktemp("runs")
    for name in ("consistency_bc", "consistency_ac"):
        changes = {"task": "hopper", "observation": None, "algorithm": name, "checkpoint_every": 2}
        train(toy_config(4, **changes), hopper_data(), SPEC, out / name)
    return out


@pytest.fixture(scope="module")
def run(runs):
    return runs / "consistency_bc"


@pytest.fixture
def score(capsys):
    """Call the verb in this process and return what it wrote."""

    def call(*words: object):
        config = load(EvalConfig, None, ["episodes=3", "processes=1", *map(str, words)])
        capsys.readouterr()
        assert evaluate(config, Arguments(json=True)) == 0
        return json.loads(capsys.readouterr().out)

    return call


def test_one_policy_is_one_object(score, run):
    report = score(f"bundle={run}", "seed=0")
    assert (report["task"], report["algorithm"]) == ("hopper", "consistency_bc")
    assert (report["through"], report["episodes"], report["copies"]) == ("vector", 3, 3)
    assert (report["steps"], report["candidates"], report["select"]) == (1, 1, None)
    assert (report["selection"], report["note"], report["run"]) == ("last", None, None)
    assert (report["success"], report["updates"]) == (None, 4)
    assert report["bundle"] == str((run / "current").resolve())
    assert report["return_mean"] == pytest.approx(np.mean(report["episode_returns"]))
    low, high = reference("hopper")
    assert report["score_mean"] == pytest.approx(100 * (report["return_mean"] - low) / (high - low))
    assert report["score_ci95"][0] <= report["score_mean"] <= report["score_ci95"][1]
    assert report["action_us_p50"] > 0


def test_same_seed_same_figures_however_many_processes(score, run):
    first = score(f"bundle={run}", "seed=0")
    again = score(f"bundle={run}", "seed=0", "processes=2")
    for report in (first, again):
        del report["seconds"], report["action_us_p50"]
    assert again == first
    other = score(f"bundle={run}", "seed=1")
    assert not set(other["episode_returns"]) & set(first["episode_returns"])


def test_a_task_may_be_named_by_a_dataset_of_it(score, run):
    report = score(f"bundle={run}", "task=hopper-medium-v2")
    assert report["task"] == "hopper-medium-v2"
    assert report["score_mean"] is not None
    assert report["success"] is None


def test_through_the_loop_are_its_report_and_its_faults(score, run):
    report = score(f"bundle={run}", "through=loop")
    assert report["copies"] == 1
    assert report["run"]["mode"] == "lockstep"
    assert report["episode_returns"] == report["run"]["episode_returns"]
    assert report["score_mean"] == pytest.approx(report["run"]["score"])
    late = score(f"bundle={run}", "through=loop", "faults.noise=0.5")
    assert late["run"]["plant"]["faults"]["noise"] == 0.5
    assert late["episode_returns"] != report["episode_returns"]


def test_both_ways_through_are_of_one_mind(score, run):
    words = (f"bundle={run}", "episodes=60")
    vector, loop = (score(*words, f"through={way}") for way in ("vector", "loop"))
    # Other episodes and other noise: means agree within 4 standard errors of their difference.
    errors = [report["return_std"] / np.sqrt(60) for report in (vector, loop)]
    assert abs(vector["return_mean"] - loop["return_mean"]) < 4 * np.hypot(*errors)
    assert vector["length_mean"] == pytest.approx(loop["length_mean"], rel=0.25)


def test_how_actions_are_chosen_can_be_changed(score, runs):
    report = score(f"bundle={runs / 'consistency_ac'}", "act.steps=2", "act.candidates=5")
    assert (report["steps"], report["candidates"], report["select"]) == (2, 5, "argmax")
    plain = score(f"bundle={runs / 'consistency_ac'}")
    assert plain["episode_returns"] != report["episode_returns"]


def test_the_verb_searches_a_directory_and_sums_up(onebeat, runs, tmp_path):
    shutil.copytree(runs / "consistency_bc", tmp_path / "seed_1", symlinks=True)
    words = ("--episodes", "2", "--seed", "0")
    done = onebeat("eval", runs, tmp_path, *words, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ac, bc, copy = report["evaluations"]
    assert [one["algorithm"] for one in (ac, bc, copy)] == [
        "consistency_ac", "consistency_bc", "consistency_bc",
    ]  # fmt: skip
    assert copy["bundle"].startswith(str(tmp_path))
    assert copy["episode_returns"] == bc["episode_returns"]
    alone, both = report["summary"]
    assert (alone["policies"], both["policies"], both["episodes"]) == (1, 2, 4)
    assert both["score_iqm"] == pytest.approx(bc["score_mean"])


def test_the_verb_prints_for_people(capsys, runs):
    for words, expected in (["consistency_bc", "consistency_bc, 4 updates"], [".", "Together"]):
        config = load(EvalConfig, None, [f"bundle={runs / words}", "episodes=1", "processes=1"])
        assert evaluate(config, Arguments()) == 0
        assert expected in capsys.readouterr().out


def test_online_takes_the_best_of_the_checkpoints_and_says_so(score, run):
    report = score(f"bundle={run}", "selection=online")
    assert (report["selection"], report["checkpoints"]) == ("online", 2)
    assert "upper bound" in report["note"]
    each = [score(f"bundle={run / one.version}") for one in checkpoints.read(run)]
    assert report["return_mean"] == max(one["return_mean"] for one in each)


@pytest.mark.parametrize("top_k", [0, 1])
def test_offline_goes_by_the_imitation_loss(score, run, top_k):
    report = score(f"bundle={run}", "selection=offline", f"top_k={top_k}")
    ordered = sorted(checkpoints.read(run), key=lambda one: one.bc_loss)
    assert report["version"] == ordered[top_k].version
    assert report["updates"] == ordered[top_k].step


@pytest.mark.parametrize(
    ("words", "error", "expected"),
    [
        (["task=halfcheetah"], SpecMismatch, "the task halfcheetah describe different robots"),
        (["task=hoper"], ConfigError, "did you mean hopper"),
        (["act.candidates=5"], BundleError, "critics"),
        (["selection=offline", "top_k=2"], ConfigError, "expected 0 to 1"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(score, run, words, error, expected):
    with pytest.raises(error, match=expected) as caught:
        score(f"bundle={run}", *words)
    assert isinstance(caught.value, ControllerError)
    assert "\n" not in str(caught.value)


def test_a_run_without_the_list_of_checkpoints_is_told(score, run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / CHECKPOINTS).unlink()
    with pytest.raises(BundleError, match=f"no {CHECKPOINTS}: selection=offline"):
        score(f"bundle={tmp_path / 'run'}", "selection=offline")


def test_faults_are_for_the_loop(run):
    with pytest.raises(ConfigError, match="faults is for the control loop: it needs through=loop"):
        load(EvalConfig, None, [f"bundle={run}", "faults.noise=0.1"])


def test_a_fault_in_the_last_shows_before_the_first_is_played(score, run, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged"
    shutil.copytree((run / "current").resolve(), damaged)
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    monkeypatch.setattr("policies.evaluation.play", lambda *_: pytest.fail("it was played"))
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        score(f"bundle=[{run}, {damaged}]")
