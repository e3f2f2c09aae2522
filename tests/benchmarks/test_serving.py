"""The benchmark of serving runs and counts; its times are nobody's test."""

import json
import subprocess
import sys

import numpy as np

from tests.benchmarks import serving


def test_figures_are_quantiles_of_times():
    found = serving.figures(np.arange(1.0, 1001.0))
    # Of 1000 values, ranks 499.5, 989.01 and 998.001 from 0, rounded up.
    assert found == {"p50": 501.0, "p99": 991.0, "p99_9": 1000.0, "max": 1000.0}


def test_the_mean_batch_is_over_computations():
    assert serving.mean_batch({"1": 6, "4": 2}) == 1.75


def run(*words):
    command = [sys.executable, serving.__file__, *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_robots_are_counted():
    (row,) = run("--clients", "2", "--seconds", "0.4")
    assert (row["clients"], row["asked"]) == (2, 40)
    assert row["p50"] <= row["p99"] <= row["p99_9"] <= row["max"]
    assert 0 <= row["missed"] <= 40
    assert 1 <= row["batch"] <= 2


def test_swaps_are_counted():
    quiet, beside = run("--swaps", "3")
    assert (quiet["swaps"], beside["swaps"]) == (0, 3)
    assert (quiet["asked"], beside["asked"]) == (15, 15)
