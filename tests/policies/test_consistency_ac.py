"""TD targets and the Q term by hand."""

import pytest
import torch

from policies.algos.consistency_ac import Batch, OneStepActor, critic_loss, value_loss
from policies.diffusion.precond import Precondition

PRE = Precondition("edm", 0.002, 0.5)


def batch_of_two():
    return Batch(
        condition=torch.zeros(2, 1),
        action=torch.zeros(2, 1),
        reward=torch.tensor([1.0, -2.0]),
        next_condition=torch.ones(2, 1),
        alive=torch.tensor([1.0, 0.0]),
    )


def test_td_loss_by_hand():
    # y = [1 + 0.9 min(5, 3), -2 + 0]; (2 - 3.7)^2, (2 + 2)^2 | (4 - 3.7)^2, (4 + 2)^2.
    loss, info = critic_loss(
        critic=lambda s, a: torch.tensor([[2.0, 2.0], [4.0, 4.0]]),
        target=lambda s, a: torch.tensor([[5.0, 5.0], [3.0, 3.0]]),
        actor=lambda s, generator: s,
        batch=batch_of_two(),
        discount=0.9,
        generator=torch.Generator(),
    )
    assert float(loss) == pytest.approx((1.7**2 + 4**2) / 2 + (0.3**2 + 6**2) / 2)
    assert info["q"] == pytest.approx((3.7 - 2.0) / 2)


def test_the_target_acts_on_the_successor():
    seen = []
    critic_loss(
        critic=lambda s, a: torch.zeros(2, 2),
        target=lambda s, a: seen.append((s, a)) or torch.zeros(2, 2),
        actor=lambda s, generator: 0.5 * s,
        batch=batch_of_two(),
        discount=0.9,
        generator=torch.Generator(),
    )
    state, action = seen[0]
    assert state.tolist() == [[1.0], [1.0]]
    assert action.tolist() == [[0.5], [0.5]]


def test_the_q_term_is_scale_free_and_points_uphill():
    for scale in (1.0, 1000.0):
        choice = torch.zeros(4, 1, requires_grad=True)
        loss, info = value_loss(
            lambda s, a, k=scale: k * (2.0 - (a - 0.5).square()).T.expand(2, -1),
            lambda s, generator, a=choice: a,
            torch.zeros(4, 1),
            torch.Generator(),
        )
        loss.backward()
        assert loss.item() == pytest.approx(-1.0)
        assert info["q_policy"] == pytest.approx(1.75 * scale)
        # dL/da = -(1/4) (dQ/da) / |Q| = -(1/4) 1 / 1.75: less a, less value.
        assert choice.grad.flatten().tolist() == pytest.approx([-0.25 / 1.75] * 4)


def test_the_actor_samples_in_one_step_from_the_top_and_clips():
    calls = []

    def network(x, label, condition):
        calls.append(label)
        return 100.0 * torch.ones_like(x)

    actor = OneStepActor(network, PRE, 80.0, 3)
    action = actor(torch.zeros(5, 2), torch.Generator().manual_seed(0))
    assert action.shape == (5, 3)
    assert torch.equal(action, torch.ones(5, 3))
    assert len(calls) == 1
    assert float(calls[0][0]) == pytest.approx(PRE.c_noise(80.0))
