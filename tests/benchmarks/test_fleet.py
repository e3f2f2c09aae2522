"""The benchmark of fleets runs, and its arithmetic is that of its figures."""

import json
import subprocess
import sys

import pytest

from tests.benchmarks.fleet import limits


@pytest.mark.slow
def test_every_figure_is_there():
    command = [sys.executable, "-m", "tests.benchmarks.fleet", "--seconds", "0.2"]
    command += ["--actors", "1", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["insert"]) == {"1", "2"}
    assert set(found["update"]) == {"robust", "paper", "sac"}
    assert len(found["limits"]) == 6
    assert found["fetch"]["bytes"] == found["encrypted"]["fetch"]["bytes"] > 1e5


def test_limits_by_hand():
    fetch = {"bytes": 1e6, "service_ms": 10.0}
    found = {
        "encrypted": {"insert": {"service_us_per_row": 10.0}, "fetch": fetch},
        "draw": {"service_us_per_batch": 1000.0},
        "actor": {"rows_per_s": 1000.0},
    }
    robots, lockstep = limits(found, row_bytes=100, per_row=0.5, update_ms=10.0)
    # 100 updates/s at half an update per row are 200 rows/s: two robots of 100 Hz.
    assert (robots["learner keeps up"], lockstep["learner keeps up"]) == (2.0, 0.2)
    # Draws take 100 x 1 ms of a second; a robot 100 x 10 us and 0.1 x 10 ms of it.
    assert robots["service"] == int(0.9 / (0.001 + 0.001))
    # 125 MB/s over 100 x 100 B and 0.1 x 1 MB a second.
    assert robots["network"] == int(125e6 / (10_000 + 100_000))
