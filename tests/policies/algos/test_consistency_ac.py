"""Consistency-AC beside the baseline, which computes the same in another way."""

import pytest

from policies.learning import NEWEST
from tests.policies.algos.beside import (
    require_effect,
    require_equal,
    require_same_when_compiled,
    require_stacked,
    small,
)

OPTIONS = {
    "one evaluation": {"improve": {"steps": 1}},
    "five evaluations": {"improve": {"steps": 5}},
    "q_norm": {"value": {"q_norm": True}},
    "max_q": {"value": {"max_q": 4}},
    "mean": {"improve": {"q_loss": "mean"}},
    "raw": {"improve": {"q_loss": "raw"}},
    "other eta": {"improve": {"eta": 3.0}},
    "weighting": {"loss": {"weighting": "inverse_step"}},
    "released curriculum": {"loss": {"growth": "released", "restart": 3}},
    "newest targets": {"loss": {"target": NEWEST}, "improve": {"slow": NEWEST}},
    "clipped": {"optimiser": {"grad_clip": 0.1}},
    "cosine": {"optimiser": {"final_rate": 0.0}},
    "slow critics": {"value": {"tau": 0.05, "discount": 0.5}},
}


def test_losses_and_weights_of_the_baseline():
    require_equal(small("consistency_ac"))


def test_of_two_runs_side_by_side():
    require_equal(small("consistency_ac"), seeds=(4, 9))


@pytest.mark.parametrize("option", OPTIONS)
def test_with_each_option(option):
    config = small("consistency_ac", **OPTIONS[option])
    require_equal(config)
    require_effect(config, small("consistency_ac"))


def test_options_together():
    changes = {
        "value": {"q_norm": True, "max_q": 3},
        "loss": {"weighting": "inverse_step"},
        "optimiser": {"grad_clip": 0.5, "final_rate": 0.0},
    }
    require_equal(small("consistency_ac", **changes), seeds=(1, 2))


@pytest.mark.parametrize("q_loss", ["coin", "mean"])
def test_runs_side_by_side_are_the_runs_one_by_one(q_loss):
    changes = {"improve": {"q_loss": q_loss}, "value": {"max_q": 2, "q_norm": True}}
    require_stacked(small("consistency_ac", **changes, optimiser={"grad_clip": 0.5}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    changes = {"loss": {"weighting": "inverse_step"}, "optimiser": {"grad_clip": 0.5}}
    require_same_when_compiled(small("consistency_ac", **changes))


def test_without_eta_it_imitates_alone():
    # The baseline multiplies L_q by 0; ours leaves it out.
    require_equal(small("consistency_ac", improve={"eta": 0.0}))
