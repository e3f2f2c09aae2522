"""The published kitchen-complete-v0 file, through the same commands as generated data.

ONEBEAT_DATA names the directory that holds it; without the file these tests are skipped.
"""

import json
import os
from pathlib import Path

import pytest

from controller.log_reader import read_log

DATA = Path(os.environ.get("ONEBEAT_DATA", "")) / "kitchen-complete-v0.hdf5"
pytestmark = pytest.mark.skipif(not DATA.is_file(), reason="ONEBEAT_DATA has no kitchen file")


@pytest.fixture(scope="module")
def bundles(onebeat, tmp_path_factory):
    out = tmp_path_factory.mktemp("kitchen") / "bundles"
    words = ["configs/train/kitchen.yaml", f"data={DATA}", f"out={out}"]
    done = onebeat("train", *words, "optimiser.steps=60", "--json", timeout=110)
    assert done.returncode == 0, done.stderr
    return out


def test_inspect_finds_the_nineteen_demonstrations(onebeat):
    done = onebeat("data", "inspect", DATA, "task=kitchen-complete", "--json")
    facts = json.loads(done.stdout)
    assert (facts["steps"], facts["episodes"], facts["action"]) == (3680, 19, 9)
    assert facts["observation"] == {"observations": 60}


def test_served_and_run_in_real_time(onebeat, bundles, tmp_path):
    words = ["task=kitchen-complete", f"policy.bundle={bundles}", f"out={tmp_path}", "seconds=3"]
    done = onebeat("run", *words, "--json", timeout=110)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["mode"] == "realtime"
    assert report["rungs"]["fresh"] > 0
    assert onebeat("replay", tmp_path / "log.mcap").returncode == 0


def test_run_in_lockstep_over_a_whole_episode(onebeat, bundles, tmp_path):
    words = ["task=kitchen-complete", f"policy.bundle={bundles}", f"out={tmp_path}"]
    done = onebeat(
        "run", *words, "mode=lockstep", "seconds=null", "episodes=1", "--json", timeout=110
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["episodes"] == 1
    assert 0.0 <= report["return"] <= 4.0
    log = read_log(tmp_path / "log.mcap")
    assert log.observations["observations"].shape[1:] == (60,)
    assert len(log) <= 281
