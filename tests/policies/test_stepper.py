"""Doing updates: rows of each run at random, all from the learner's own generator."""

import pytest
import torch

from policies import codec
from policies.algos.learner import Learner, Sizes
from policies.learning import RewardSettings
from policies.stepper import Plain, make_stepper
from policies.table import Table
from tests.policies.robots import SPEC, toy_data

ROWS = 40


class Counter(Learner):
    """Notes what it is given, and learns nothing."""

    def __init__(self, seeds=(0,), device="cpu"):
        super().__init__(Sizes(2, 6, seeds, device))
        self.total = torch.zeros(len(seeds), device=device)

    def prepare(self, step):
        self.dials.set("step", step)
        return (step % 2,)

    def update(self, batch, variant):
        self.batch, self.variant = batch, variant
        self.total += self.dials["step"] + batch.reward.sum(1) * 0.0
        return {"total": self.total}

    model = policy_arrays = None


@pytest.fixture
def table():
    data = toy_data(ROWS)
    return Table(data, codec.fit(data, SPEC), RewardSettings())


def rows_of(seeds, table, updates=50):
    step = make_stepper(Counter(seeds), table, 16)
    seen = []
    for number in range(updates):
        step(number)
        seen.append(step.rows.clone())
    return torch.stack(seen)


def test_on_a_cpu_updates_are_done_one_by_one(table):
    learner = Counter()
    step = make_stepper(learner, table, 16)
    assert isinstance(step, Plain)
    assert [float(step(number)["total"]) for number in range(4)] == [0, 1, 3, 6]
    assert learner.variant == (1,)


def test_the_batch_is_the_rows_it_names(table):
    learner = Counter((3, 4))
    step = make_stepper(learner, table, 16)
    step(0)
    assert step.rows.shape == (2, 16)
    assert torch.equal(learner.batch.action, table.take(step.rows).action)


def test_rows_are_even_over_the_data_and_differ_from_run_to_run(table):
    rows = rows_of((0, 1), table)
    assert rows.min() == 0
    assert rows.max() == ROWS - 1
    assert not torch.equal(rows[:, 0], rows[:, 1])
    counts = torch.bincount(rows.flatten(), minlength=ROWS).double()
    # 1600 draws, 40 a row: chi-square with 39 degrees of freedom, mean 39, deviation 8.8.
    assert ((counts - 40.0) ** 2 / 40.0).sum() < 39 + 5 * 8.8


def test_the_seed_decides_the_rows(table):
    assert torch.equal(rows_of((5,), table), rows_of((5,), table))
    assert not torch.equal(rows_of((5,), table), rows_of((6,), table))


def test_nothing_outside_decides_them(table):
    first = rows_of((5,), table)
    torch.manual_seed(99)
    torch.rand(10)
    assert torch.equal(first, rows_of((5,), table))


@pytest.mark.gpu
def test_captured_updates_do_what_plain_ones_do():
    data = toy_data(ROWS)
    table = Table(data, codec.fit(data, SPEC), RewardSettings(), "cuda")
    captured = make_stepper(Counter((0, 1), "cuda"), table, 16)
    plain = Plain(Counter((0, 1), "cuda"), table, 16)
    for number in range(12):
        totals = captured(number)["total"], plain(number)["total"]
        assert torch.equal(*totals)
        assert torch.equal(captured.rows, plain.rows)
