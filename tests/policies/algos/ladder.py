"""Plain networks for the baselines' transcriptions, and a bandit they can be told apart by."""

import functools

import msgspec
import numpy as np
import torch

from policies.algos.learner import Batch, Sizes
from policies.learners import make_learner
from policies.learning import IqlSettings, Td3Settings
from policies.train_state import read_state, restore, write_state
from tests.policies.algos.beside import batches, sizes_of, small

GOOD, SPREAD = 0.6, 0.3
"""The bandit pays exp(-((a - GOOD) / SPREAD)^2) for an action a."""


def ladder(algorithm, td3=None, iql=None, **changes):
    """Return a config of small ReLU networks; see ``beside.small``."""
    critic = {"activation": "relu"} | changes.pop("critic", {})
    config = small(algorithm, critic=critic, **changes)
    groups = {"td3": Td3Settings(**(td3 or {})), "iql": IqlSettings(**(iql or {}))}
    return msgspec.structs.replace(config, **groups)


class Plain:
    """One network of one run: leaves of automatic differentiation, and its optimiser."""

    def __init__(self, arrays, learning_rate=1e-3):
        self.leaves = {n: torch.from_numpy(a).clone().requires_grad_() for n, a in arrays.items()}
        self.adam = torch.optim.Adam(list(self.leaves.values()), learning_rate)

    def __getitem__(self, name):
        return self.leaves[name]

    def step(self, loss):
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def copy(self):
        return Plain({name: leaf.detach().numpy() for name, leaf in self.leaves.items()})

    def towards(self, other, share):
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_((1 - share) * leaf + share * other[name])

    def heads(self, s, *names):
        """Return the outputs of the layers ``names`` behind the ReLU layers fc0, fc1 and on."""
        h, index = s, 0
        while f"fc{index}.weight" in self.leaves:
            h = torch.relu(h @ self[f"fc{index}.weight"].T + self[f"fc{index}.bias"])
            index += 1
        made = [h @ self[f"{name}.weight"].T + self[f"{name}.bias"] for name in names]
        return made[0] if len(made) == 1 else made

    def q(self, k, *inputs):
        """Return (B,) values of critic ``k``."""
        h, index = torch.cat(inputs, -1), 0
        while f"layers.{index}.weight" in self.leaves:
            h = h @ self[f"layers.{index}.weight"][k].T + self[f"layers.{index}.bias"][k]
            if f"norms.{index}.weight" in self.leaves:
                centred = h - h.mean(-1, keepdim=True)
                h = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
                h = h * self[f"norms.{index}.weight"][k] + self[f"norms.{index}.bias"][k]
            h, index = torch.relu(h), index + 1
        return (h @ self["head.weight"][k].T + self["head.bias"][k])[:, 0]

    def least(self, s, a):
        return torch.minimum(self.q(0, s, a), self.q(1, s, a))


def plain_networks(learner, run=0):
    return {name: Plain(each.to_arrays(run)) for name, each in learner.networks.items()}


def row_of(batch, run=0):
    """Return one run's batch."""
    return Batch(**{name: each[run] for name, each in vars(batch).items()})


def noted(learner):
    """Return a list that keeps what ``learner`` draws."""
    drawn, noise = [], learner.noise

    def draw(*shape):
        drawn.append(noise(*shape))
        return drawn[-1]

    learner.noise = draw
    return drawn


def require_transcription(config, transcribe, seeds=(0,), updates=5):
    """Fail unless each run has the losses and the weights of ``transcribe``.

    That is given networks by name, a batch of one run, its noise and the number of the update;
    it moves the networks and returns figures.
    """
    learner = make_learner(config, sizes_of(seeds))
    drawn = noted(learner)
    theirs = [plain_networks(learner, run) for run in range(len(seeds))]
    for step, batch in enumerate(batches(len(seeds), updates)):
        drawn.clear()
        ours = learner.update(batch, learner.prepare(step))
        for run, networks in enumerate(theirs):
            noise = drawn[0][run] if drawn else None
            for name, value in transcribe(networks, row_of(batch, run), noise, step).items():
                torch.testing.assert_close(ours[name][run], value.detach(), rtol=2e-5, atol=2e-6)
    for run, networks in enumerate(theirs):
        for name, network in learner.networks.items():
            for key, array in network.to_arrays(run).items():
                expected = networks[name][key].detach().numpy()
                np.testing.assert_allclose(
                    array, expected, rtol=0, atol=2e-5, err_msg=f"{name} {key}"
                )


def require_resumed(config, path):
    """Fail unless four updates are two, a saved state, and two more: bit for bit."""
    whole, half, rest = (make_learner(config, sizes_of((0, 1))) for _ in range(3))
    begun = {name: network.copy() for name, network in whole.networks.items()}

    def update(learner, numbers):
        for step in numbers:
            learner.update(batches(2, 4)[step], learner.prepare(step))

    update(whole, range(4))
    update(half, range(2))
    write_state(path, half, {})
    restore(read_state(path), rest)
    update(rest, range(2, 4))
    for name, network in whole.networks.items():
        assert torch.equal(rest.networks[name].flat, network.flat), name
        assert not torch.equal(begun[name].flat, network.flat), name


def bandit_action(algorithm, steps=300, value=None, optimiser=None, **changes):
    """Return the mean action learned from even actions on [-1, 1], one observation for all."""
    learning = {"learning_rate": 5e-3, "decay": False}
    config = ladder(
        algorithm,
        value={**learning, "tau": 0.1, **(value or {})},
        optimiser={"steps": steps, "learning_rate": 5e-3, **(optimiser or {})},
        **changes,
    )
    learner = make_learner(config, Sizes(1, 2))
    generator = torch.Generator().manual_seed(0)
    condition, over = torch.ones(1, 128, 2), torch.zeros(1, 128)
    for step in range(steps):
        action = 2.0 * torch.rand(1, 128, 1, generator=generator) - 1.0
        batch = Batch(condition, action, pay(action[..., 0]), condition, over, action)
        learner.update(batch, learner.prepare(step))
    return Plain(learner.policy_arrays(0)).heads(torch.ones(1, 2), "last_fc").tanh().detach()[0, 0]


@functools.cache
def cloned_pay():
    """Return what the action that behaviour cloning learns pays."""
    return pay(bandit_action("bc"))


def pay(action):
    """Return the bandit's reward of each action."""
    return (-((action - GOOD) / SPREAD).square()).exp()
