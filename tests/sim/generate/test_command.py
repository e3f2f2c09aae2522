"""``onebeat data generate`` as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from controller.cli import main
from policies.data.d4rl import read_attributes, read_d4rl

DATA = Path(os.environ.get("ONEBEAT_DATA", "absent"))


def test_writes_a_file_with_its_facts(tmp_path, capsys):
    out = tmp_path / "deep" / "data.hdf5"
    words = ["data", "generate", "pointmaze-umaze", "--behaviour", "random", "--steps", "400"]
    assert main([*words, "--seed", "3", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["episodes"]) == (400, 2)
    assert told["attributes"]["physics"].startswith("mujoco ")
    facts, data = read_attributes(out), read_d4rl(out)
    assert (facts["name"], facts["seed"], facts["steps"]) == ("pointmaze-umaze-random", 3, 400)
    assert facts["return_mean"] == pytest.approx(data.returns().mean())
    assert len(data) == 400


def test_a_missing_policy_is_told_in_one_line(tmp_path, capsys):
    words = ["data", "generate", "hopper-expert-regen", f"policies={tmp_path}"]
    assert main([*words, f"out={tmp_path / 'x.hdf5'}"]) == 2
    told = capsys.readouterr().err
    assert "hopper/sac_snapshot_06.npz: no such file" in told
    assert "onebeat sac task=hopper" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "x.hdf5").exists()


def workers_of(pid):
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if b"sim.generate.worker" in words and int(status[1]) == pid:
            found.add(entry)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_it_leaves_no_file_and_no_process(tmp_path, number):
    words = ["data", "generate", "pointmaze-umaze", "behaviour=random", "steps=5000000"]
    command = [sys.executable, "-m", "controller.cli", *words, "processes=2"]
    process = subprocess.Popen(
        [*command, f"out={tmp_path / 'x.hdf5'}"], stderr=subprocess.PIPE, text=True
    )
    workers, deadline = set(), time.monotonic() + 30
    while len(workers) < 2 and time.monotonic() < deadline:
        workers = workers_of(process.pid)
        time.sleep(0.02)
    assert len(workers) == 2
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert told.splitlines()[-1] == "onebeat data generate: stopped by Ctrl-C"
    while any(entry.exists() for entry in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(entry.exists() for entry in workers)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("robot", "published", "deviation"),
    [("hopper", 1291.0, 86.0), ("halfcheetah", 5686.0, 78.0), ("walker2d", 2787.0, 478.0)],
)
def test_medium_data_has_the_published_return_of_its_policy(robot, published, deviation, tmp_path):
    """Published: the mean over 10 episodes, say, so its own error counts too."""
    if not (DATA / "policies").is_dir():
        pytest.skip("ONEBEAT_DATA does not lead to the policies")
    out = tmp_path / "data.hdf5"
    words = [f"policies={DATA / 'policies'}", "steps=40000", f"out={out}"]
    assert main(["data", "generate", f"{robot}-medium-regen", *words]) == 0
    data = read_d4rl(out)
    whole = data.returns()[:-1]
    error = np.hypot(whole.std() / np.sqrt(len(whole)), deviation / np.sqrt(10))
    assert abs(whole.mean() - published) < 4 * error
