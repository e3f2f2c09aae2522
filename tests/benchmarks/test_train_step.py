"""The benchmark of updates runs, and counts what is done; its rates are nobody's test."""

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from policies.algos.learner import Sizes
from tests.benchmarks.plain.arithmetic import multiply_adds
from tests.benchmarks.train_step import ACTION, OBSERVATION, Ours, config_of, table_of

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("algorithm", "steps"),
    [("consistency_ac", 2), ("diffusion_ql", 5), ("consistency_bc", 1), ("diffusion_bc", 5)],
)
def test_floor_counts_the_products_of_an_update(algorithm, steps):
    config, sizes = config_of(algorithm, steps, False), Sizes(ACTION, OBSERVATION)
    ours = Ours(config, sizes, table_of(config, "cpu"))
    with FlopCounterMode(display=False) as counted:
        ours()
    # Two operations each. Ours makes up to 3 % more: it embeds the level once for each row.
    assert 1.0 <= counted.get_total_flops() / 2 / multiply_adds(config, sizes) < 1.03


def test_more_evaluations_cost_what_they_add():
    sizes = Sizes(1, 0)
    costs = [multiply_adds(config_of("diffusion_ql", n, False), sizes) for n in (2, 3, 4)]
    assert costs[2] - costs[1] == costs[1] - costs[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["consistency_ac", "--steps", "2"], [("consistency_ac", 2, 1)]),
        (
            ["diffusion_ql", "--steps", "5", "--seeds", "1,2"],
            [("diffusion_ql", 5, n) for n in (1, 2)],
        ),
        (["consistency_bc", "diffusion_bc"], [("consistency_bc", 1, 1), ("diffusion_bc", 5, 1)]),
    ],
)
def test_rows_say_how_fast_and_that_losses_are_equal(words, expected):
    command = [sys.executable, "-m", "tests.benchmarks.train_step", *words]
    command += ["--quick", "--json", "--no-compile", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["algo"], row["steps"], row["seeds"]) for row in rows] == expected
    for row in rows:
        assert row["loss_diff"] < 1e-3
        assert min(row["baseline_updates_s"], row["updates_s"], row["floor_updates_s"]) > 0
        assert row["ratio"] == pytest.approx(row["updates_s"] / row["baseline_updates_s"], rel=0.01)
        assert (row["device"], row["threads"], row["compile"]) == ("cpu", 1, False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.gpu
def test_captured_updates_have_the_losses_of_the_baseline():
    config = config_of("consistency_ac", 2, False)
    sizes = Sizes(ACTION, OBSERVATION, (0, 1), "cuda")
    assert Ours(config, sizes, table_of(config, "cuda")).difference() < 1e-3
