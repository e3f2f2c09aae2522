"""Diffusion-QL beside the baseline, which computes the same in another way."""

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
    "one step": {"chain": {"steps": 1}},
    "ten steps": {"chain": {"steps": 10}},
    "other noise": {"chain": {"b_max": 4.0}},
    "q_norm": {"value": {"q_norm": True}},
    "max_q": {"value": {"max_q": 4}},
    "mean": {"improve": {"q_loss": "mean"}},
    "raw": {"improve": {"q_loss": "raw"}},
    "newest actor": {"improve": {"slow": NEWEST}},
    "clipped": {"optimiser": {"grad_clip": 0.1}},
    "cosine": {"optimiser": {"final_rate": 0.0}},
}


def test_losses_and_weights_of_the_baseline():
    require_equal(small("diffusion_ql"))


@pytest.mark.parametrize("option", OPTIONS)
def test_with_each_option(option):
    config = small("diffusion_ql", **OPTIONS[option])
    require_equal(config)
    require_effect(config, small("diffusion_ql"))


def test_runs_side_by_side_are_the_runs_one_by_one():
    require_stacked(small("diffusion_ql", optimiser={"grad_clip": 0.5}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled():
    require_same_when_compiled(small("diffusion_ql", optimiser={"grad_clip": 0.5}))
