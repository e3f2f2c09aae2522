"""The benchmark of the log runs, and says what it should; its figures are nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("log_cost.py")


@pytest.mark.slow
def test_every_side_has_its_figures():
    pytest.importorskip("mujoco")
    command = [sys.executable, str(SCRIPT), "--seconds", "0.5", "--rates", "100", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    loop, recorder, (paced,) = found["loop_us"], found["recorder_us"], found["paced"]
    assert loop["pack_and_send"] >= loop["pack"] > 0
    assert loop["ratio"] == pytest.approx(loop["pack_and_send"] / loop["floor"])
    assert recorder["log_bytes"] > 100
    assert (paced["ticks"], paced["dropped"]) == (50, 0)
    assert found["file"]["read_us_per_tick"] > 0
