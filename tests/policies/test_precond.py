"""The wrapping of the network: its boundary, and that floats and tensors agree."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.diffusion.precond import Precondition

EDM = Precondition("edm", 0.002, 0.5)
PAPER = Precondition("paper", 0.002, 0.5)


@pytest.mark.parametrize("precondition", [EDM, PAPER])
def test_identity_at_the_smallest_level_whatever_the_network_says(precondition):
    x = torch.randn(5, 3)
    tau = torch.full((5, 1), 0.002)
    out = precondition.denoise(lambda *_: torch.full((5, 3), 1e6), x, tau, torch.zeros(5, 1))
    assert torch.equal(out, x)


def test_coefficients_by_hand_at_one():
    assert EDM.c_skip(1.0) == pytest.approx(0.25 / (0.998**2 + 0.25))
    assert EDM.c_out(1.0) == pytest.approx(0.5 * 0.998 / math.sqrt(1.25))
    assert EDM.c_in(1.0) == pytest.approx(1 / math.sqrt(1.25))
    assert EDM.c_noise(math.e) == pytest.approx(250.0)
    assert (PAPER.c_in(80.0), PAPER.c_noise(80.0)) == (1.0, 80.0)


def test_network_input_has_unit_variance_for_data_of_sigma_data():
    # Var(c_in (x + tau z)) = (s^2 + tau^2) / (s^2 + tau^2).
    for tau in (0.002, 0.3, 80.0):
        assert EDM.c_in(tau) ** 2 * (0.5**2 + tau**2) == pytest.approx(1.0)


@given(st.sampled_from([EDM, PAPER]), st.floats(0.002, 80.0))
def test_floats_and_tensors_agree(precondition, tau):
    tensor = torch.tensor([[tau]], dtype=torch.float64)
    for name in ("c_skip", "c_out", "c_in", "c_noise"):
        coefficient = getattr(precondition, name)
        assert float(coefficient(tensor)) == pytest.approx(coefficient(tau), rel=1e-9, abs=1e-9)
