"""The benchmark of simulation runs, and says what it should; its figures are nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sim_steps.py")


@pytest.mark.slow
def test_rows_have_rates_and_ratios():
    command = [sys.executable, str(SCRIPT), "pointmaze-umaze", "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["task"], row["family"]) == ("pointmaze-umaze", "pointmaze")
    rates = [row[name] for name in ("bare", "lockstep", "vector", "zmq")]
    assert min(rates) > 0
    for name in ("lockstep", "vector", "zmq"):
        assert row["ratios"][name] == pytest.approx(row[name] / row["bare"], abs=0.01)
