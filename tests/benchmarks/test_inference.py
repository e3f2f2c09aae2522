"""The benchmark of inference runs, and its engines agree; its times are nobody's test."""

import json
import subprocess
import sys

import numpy as np
import pytest

from policies.noise import NoiseSource
from tests.benchmarks import inference
from tests.benchmarks.inference import Case, measure, products, rows_of


@pytest.mark.parametrize("case", inference.CASES[:2] + inference.CASES[5:8], ids=str)
def test_engines_agree_on_what_is_timed(case):
    differences = Case(*case).differences()
    assert differences["torch", "cpu"] == 0.0
    assert len(differences) >= 3
    assert max(differences.values()) < 1e-5


@pytest.mark.parametrize("case", [("consistency", 2, 50), ("diffusion", 5, 1)], ids=str)
def test_the_whole_policy_draws_what_is_timed_without_it(case):
    case = Case(*case)
    codec, shape = case.about.codec, case.noise[0].shape
    acting, draw = case.acting(("numpy", "cpu")), case.engines["numpy", "cpu"]
    for k in range(5):
        noise = NoiseSource(shape).draw(0, k)
        assert np.array_equal(acting(k), codec.decode_action(draw(case.condition[k], noise)))


def test_figures_come_from_all_turns():
    case = Case("gaussian", 1, 1)
    keys = [*inference.engines(), ("floor", "cpu")]
    turns = {key: [np.full(5, base), np.full(5, base + 2.0)] for base, key in enumerate(keys, 10)}
    rows = rows_of(case, dict.fromkeys(inference.WAYS, turns))
    assert [row["engine"] for row in rows][:3] == ["torch", "numpy", "onnx"]
    assert [row["hot_us_p50"] for row in rows][:3] == [11.0, 12.0, 13.0]
    assert [row["paced_us_p99"] for row in rows][:3] == [12.0, 13.0, 14.0]
    assert rows[1]["ratio_to_eager"] == pytest.approx(11 / 12, abs=0.01)
    assert rows[0]["floor_us_p50"] == 11.0 + len(keys) - 1


@pytest.mark.parametrize(
    ("policy", "steps", "candidates"), [("diffusion", 5, 1), ("gaussian", 1, 4)]
)
def test_the_floor_has_every_product_of_an_action(policy, steps, candidates, monkeypatch):
    done = 0

    def counted(left, right, out):
        nonlocal done
        done += out.size * (left.shape[-1] if candidates > 1 else right.shape[-1])

    monkeypatch.setattr(np, "dot", counted)
    monkeypatch.setattr(np, "matmul", counted)
    products(inference.POLICIES[policy], steps, candidates)(0)
    square = 2 * 256 * 256
    if policy == "diffusion":
        assert done == steps * ((17 + 6) * 256 + square + 256 * 6)
    else:
        own = 17 * 256 + square + 256 * 2 * 6
        assert done == candidates * (own + 2 * (23 * 256 + square + 256))


@pytest.mark.slow
def test_rows_have_the_fields_that_are_read_elsewhere():
    command = [sys.executable, "tests/benchmarks/inference.py", "gaussian", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    fields = {"engine", "policy", "steps", "hot_us_p50", "hot_us_p99", "paced_us_p50"}
    fields |= {"paced_us_p99", "ratio_to_eager", "max_diff"}
    assert all(fields <= row.keys() for row in rows)
    assert {(row["policy"], row["steps"]) for row in rows} == {("gaussian", 1)}
    assert all(row["max_diff"] < 1e-5 for row in rows)
    assert all(0 < row["hot_us_p50"] <= row["hot_us_p99"] for row in rows)


@pytest.mark.slow
def test_measuring_takes_every_engine_every_way(monkeypatch):
    monkeypatch.setattr(inference, "TURN_S", 0.001)
    monkeypatch.setattr(inference, "TICKS", 3)
    rows = measure(Case("consistency", 2, 50), 2)
    assert {row["engine"] for row in rows} == {"torch", "numpy", "onnx"}
    assert all(row[f"{way}_us_p50"] > 0 for row in rows for way in inference.WAYS)
