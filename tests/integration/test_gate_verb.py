"""``onebeat finetune gate`` beside a replay service, each a process, with Hopper's simulation."""

import os
import signal
import time

import numpy as np
import pytest

from controller.cli.gate import Stage, Stopped
from controller.config import to_yaml
from controller.control import control
from controller.launch import command
from controller.process import Child
from policies.bundle import Draft, load_bundle, publish, resolve, save_bundle
from policies.evaluation import Trial, play
from policies.finetuning.settings import FinetuneConfig, GateSettings, ReplaySettings
from policies.finetuning.versions import Finished, Judged, Placed, read_events
from policies.golden import golden
from policies.metrics import read_lines
from sim.vector import make_vector


def test_scores_are_those_of_playing_and_end_when_told():
    bundle, told = resolve("hopper"), []
    stage = Stage(FinetuneConfig(), "hopper", lambda: bool(told))
    got = stage.score(bundle, 2, seed=3)
    with make_vector("hopper", 2, processes=1) as plants:
        expected = play(bundle, plants, Trial(task="hopper", episodes=2, seed=3))
    assert got.episode_returns == expected.episode_returns
    assert got.score_mean > 50
    told.append("to end")
    with pytest.raises(Stopped):
        stage.score(bundle, 2, seed=3)
    stage.close()


@pytest.fixture
def out(tmp_path):
    """A fine-tuning's directory with the shipped Hopper in force."""
    publish(resolve("hopper"), tmp_path / "bundles")
    return tmp_path


def settings_of(out, **gate):
    quick = {"sim_episodes": 1, "score_every": 1000, "score_episodes": 1} | gate
    config = FinetuneConfig(
        parent="hopper",
        task="hopper",
        out=str(out),
        replay=ReplaySettings(endpoint=f"ipc://{out}/r"),
        gate=GateSettings(**quick),
    )
    (out / "finetune.yaml").write_text(to_yaml(config))


def part(verb, out):
    return Child(command(f"finetune {verb}", f"settings={out}/finetune.yaml"), verb).start()


def candidate(out, scale):
    """Leave the shipped policy with its last layer scaled, and return its version."""
    bundle = load_bundle(out / "bundles")
    about = bundle.manifest
    name = "head.weight" if "head.weight" in bundle.weights else "last_fc.weight"
    weights = bundle.weights | {name: (scale * bundle.weights[name]).astype(np.float32)}
    draft = Draft(
        algorithm=about.algorithm,
        spec=about.spec,
        model=about.model,
        sampler=about.sampler,
        codec=bundle.codec,
        data=(),
        training={"steps": 1},
        parent=about,
    )
    kept = golden(draft, weights, bundle.golden["observations"])
    return save_bundle(out / "candidates", draft, weights, kept, {}).name


def until(there, seconds=60.0):
    """Wait until ``there()``."""
    end_s = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end_s, "it did not come to it"
        time.sleep(0.05)


@pytest.mark.slow
def test_it_publishes_refuses_scores_and_ends_by_itself(out):
    settings_of(out)
    endpoint = f"ipc://{out}/r"
    ledger = out / "versions.jsonl"
    replay, gate = part("replay", out), part("gate", out)
    try:
        until(lambda: (out / "curve.jsonl").is_file())
        good = candidate(out, 1.01)
        until(lambda: any(isinstance(e, Placed) for e in read_events(ledger)))
        assert control(endpoint, "stats")["version"] == good
        gate.kill()
        bad = candidate(out, 0.2)
        gate = part("gate", out)
        until(lambda: len([e for e in read_events(ledger) if isinstance(e, Judged)]) == 2)
        control(endpoint, "finish")
        assert gate.wait(60.0) == 0, gate.last_error()
    finally:
        gate.stop()
        replay.stop()
    judged = {e.version: e for e in read_events(ledger) if isinstance(e, Judged)}
    assert (judged[good].outcome, judged[bad].outcome) == ("accepted", "refused")
    assert "in simulation" in judged[bad].reasons[0]
    assert isinstance(read_events(ledger)[-1], Finished)
    points = read_lines(out / "curve.jsonl")
    assert [point["version"] for point in points][-1] == good == resolve(out / "bundles").name
    assert all(point["score_mean"] > 50 for point in points)


@pytest.mark.slow
def test_sigterm_breaks_a_score_off(out):
    settings_of(out, score_episodes=500)
    replay, gate = part("replay", out), part("gate", out)
    try:
        until((out / "versions.jsonl").is_file)
        time.sleep(1.0)
        os.kill(gate.pid, signal.SIGTERM)
        assert gate.wait(20.0) == 0, gate.last_error()
    finally:
        gate.stop()
        replay.stop()
    assert not (out / "curve.jsonl").exists()
