"""TD targets, ensembles and the Q term by hand."""

import numpy as np
import pytest
import torch

from policies.algos.learner import Batch, Sizes
from policies.algos.value import Valuation, q_loss
from policies.learning import ValueSettings
from policies.model import CriticSettings

SIZES = Sizes(1, 1, (0,))


class Tabled(Valuation):
    """Critics whose values are a function, to reckon with."""

    def __init__(self, function, **settings):
        super().__init__(SIZES, CriticSettings(hidden=(4,)), ValueSettings(**settings), None)
        self.asked = []

        def nets(views, condition, action, only=None):
            self.asked.append((condition, action, only))
            q = function(condition[..., 0], action[..., 0])
            return q if only is None else q[:, only : only + 1]

        self.nets = nets


def line(*values):
    return torch.tensor([values], dtype=torch.float32)


def column(*values):
    return line(*values).unsqueeze(-1)


def batch_of(reward, alive):
    blank = torch.zeros(*reward.shape, 1)
    return Batch(blank, blank, reward, blank, alive, blank)


def test_target_by_hand():
    # y = [1 + 0.9 min(5, 3), -2 + 0].
    values = Tabled(lambda s, a: torch.tensor([[[5.0, 5.0], [3.0, 3.0]]]), discount=0.9)
    ahead = values.ahead(column(0, 0), column(0, 0))
    y = values.goal(batch_of(line(1.0, -2.0), line(1.0, 0.0)), ahead)
    assert y.tolist() == [pytest.approx([3.7, -2.0])]


def test_q_norm_divides_by_the_spread_in_the_batch():
    values = Tabled(None, q_norm=True, discount=0.5)
    y = values.goal(batch_of(line(1.0, 2.0, 6.0), line(0, 0, 0)), line(9, 9, 9))
    # The standard deviation with n - 1: sqrt((4 + 1 + 9) / 2).
    assert y.tolist() == [pytest.approx([x / 7**0.5 for x in (1, 2, 6)], rel=1e-5)]


def test_each_run_is_normalised_by_its_own_spread():
    values = Tabled(None, q_norm=True)
    reward = torch.tensor([[1.0, 2.0, 6.0], [10.0, 20.0, 60.0]])
    y = values.goal(batch_of(reward, torch.zeros(2, 3)), torch.zeros(2, 3))
    torch.testing.assert_close(y[0], y[1])


def test_max_q_takes_each_critics_own_largest_before_the_least_of_the_critics():
    # Two successors s = 0 and 10, three actions each. Q1 = s + a, Q2 = s - 2 a.
    values = Tabled(lambda s, a: torch.stack([s + a, s - 2 * a], 1), max_q=3)
    got = values.ahead(column(0, 10), column(1, 2, -1, 4, 5, 6))
    # s = 0: min(max(1, 2, -1), max(-2, -4, 2)) = 2; s = 10: min(16, max(2, 0, -2)) = 2.
    assert got.tolist() == [[2.0, 2.0]]
    condition, action, _ = values.asked[0]
    assert condition.flatten().tolist() == [0, 0, 0, 10, 10, 10]
    assert action.flatten().tolist() == [1, 2, -1, 4, 5, 6]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("min", 1.0), ("mean", 4.0), ("lcb", 4.0 - 0.5 * 14**0.5 / 3**0.5)],
)
def test_one_value_of_an_ensemble(kind, expected):
    # 1, 5, 6: mean 4, variance (9 + 1 + 4) / 3.
    values = Tabled(None, aggregate=kind, lcb=0.5)
    got = values.aggregate(torch.tensor([[[1.0], [5.0], [6.0]]]))
    assert got.tolist() == [[pytest.approx(expected)]]


def random_batch(rows=8, runs=1):
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(runs, rows, *shape, generator=draw)

    return Batch(normal(1), normal(1), normal(), normal(1), torch.ones(runs, rows), normal(1))


def test_td_loss_is_the_sum_over_critics_and_its_gradient_that_of_differences():
    sizes, batch = Sizes(1, 1, (0, 1)), random_batch(runs=2)
    values = Valuation(sizes, CriticSettings(hidden=(4,), count=3), ValueSettings(), None)
    y = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))

    def loss():
        q = values.nets(values.online.fixed, batch.condition, batch.action)
        assert q.shape == (2, 3, 8)
        return (q - y[:, None]).square().mean(2).sum(1)

    figures = values.gradient(batch, y)
    torch.testing.assert_close(figures["q_loss"], loss())
    torch.testing.assert_close(figures["q"], y.mean(1))
    flat, h = values.online.flat, 1e-2
    for place in range(0, len(flat), 7):
        kept = float(flat[place])
        flat[place] = kept + h
        above = loss().sum()
        flat[place] = kept - h
        slope = float(above - loss().sum()) / (2 * h)
        flat[place] = kept
        assert float(values.online.grad[place]) == pytest.approx(slope, abs=2e-3)


def test_targets_follow_by_tau():
    values = Valuation(SIZES, CriticSettings(hidden=(4,)), ValueSettings(tau=0.25), None)
    before = values.target.flat.clone()
    values.online.flat.add_(1.0)
    values.follow()
    torch.testing.assert_close(values.target.flat, before + 0.25)


@pytest.mark.parametrize(("decay", "expected"), [(True, 5e-4), (False, 1e-3)])
def test_the_rate_follows_the_schedule_where_it_should(decay, expected):
    settings = ValueSettings(learning_rate=1e-3, decay=decay)
    values = Valuation(SIZES, CriticSettings(hidden=(4,)), settings, None)
    values.set_rate(0.5)
    assert values.adam.adam.param_groups[0]["lr"] == expected


def two(s, a):
    """Q1 = 2 - (a - 0.5)^2, Q2 = 4 a."""
    return torch.stack([2.0 - (a - 0.5).square(), 4.0 * a], 1)


@pytest.mark.parametrize(
    ("kind", "coin", "loss", "slope"),
    [
        # At a = 1: Q1 = 1.75, dQ1/da = -1; Q2 = 4, dQ2/da = 4. Two rows.
        ("raw", 0, -2.875, -1.5 / 2),
        ("mean", 0, -1.0, -1.5 / 2.875 / 2),
        ("coin", 0, -1.75 / 4, 1.0 / 4 / 2),
        ("coin", 1, -4 / 1.75, -4.0 / 1.75 / 2),
    ],
)
def test_q_loss_and_its_slope_by_hand(kind, coin, loss, slope):
    action = torch.ones(1, 2, 1, requires_grad=True)
    got = q_loss(Tabled(two), column(0, 0), action, kind, coin)
    assert got.tolist() == [pytest.approx(loss)]
    got.sum().backward()
    assert action.grad.flatten().tolist() == pytest.approx([slope] * 2)


@pytest.mark.parametrize("kind", ["mean", "coin"])
def test_scaled_q_loss_does_not_know_the_scale_of_the_reward(kind):
    losses = [
        q_loss(Tabled(lambda s, a, k=k: k * two(s, a)), column(0), column(0.3), kind, 0)
        for k in (1.0, 1000.0)
    ]
    torch.testing.assert_close(*losses)


def test_no_gradient_reaches_the_critics_through_the_policy():
    values = Valuation(SIZES, CriticSettings(hidden=(4,)), ValueSettings(), None)
    action = torch.zeros(1, 3, 1, requires_grad=True)
    q_loss(values, torch.zeros(1, 3, 1), action, "raw", 0).sum().backward()
    assert action.grad.abs().max() > 0
    assert all(view.grad is None for view in values.online.arrays.values())


def test_td_learning_finds_the_value_of_a_chain():
    # s = 0 -> 1 -> 2 -> end, reward 1 at the last step: V = gamma^(2 - s).
    values = Valuation(
        SIZES, CriticSettings(hidden=(32,)), ValueSettings(tau=0.2, discount=0.5), None
    )
    values.adam.set_rate(1e-2)
    condition = column(0, 1, 2)
    batch = Batch(
        condition, 0 * condition, line(0, 0, 1), condition + 1, line(1, 1, 0), 0 * condition
    )
    for _ in range(400):
        with torch.no_grad():
            y = values.goal(batch, values.ahead(batch.next_condition, batch.next_action))
        values.gradient(batch, y)
        values.adam.step()
        values.follow()
    got = values.nets(values.target.fixed, condition, batch.action)[0]
    np.testing.assert_allclose(got, [[0.25, 0.5, 1.0]] * 2, atol=0.02)
