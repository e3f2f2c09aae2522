"""What every offline algorithm has in common: batches, dials, optimisers, and what it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from policies.learning import Averaging
from policies.manifest import Arrays
from policies.model import CriticSettings, Model
from policies.parameters import Parameters, Shape

P = ParamSpec("P")
T = TypeVar("T")

Figures = dict[str, Tensor]
"""(R,) figures of an update by name, where they were computed."""
Variant = tuple[int, ...]
"""What changes the course of an update: one captured graph for each."""
Draw = tuple[Tensor, ...]
"""The random numbers of a loss."""


@dataclass(frozen=True)
class Batch:
    """B transitions for each of R runs, in network units.

    Attributes:
        condition: (R, B, d) encoded observations.
        action: (R, B, A) encoded actions; chunks of H actions end to end are (R, B, H A).
        reward: (R, B).
        next_condition: (R, B, d).
        alive: (R, B), 0 where the successor is terminal, else 1.
        next_action: (R, B, A), the action that the data took next; zeros at an episode's end.
    """

    condition: Tensor
    action: Tensor
    reward: Tensor
    next_condition: Tensor
    alive: Tensor
    next_action: Tensor


def fused(function: Callable[P, T], on: bool) -> Callable[P, T]:
    """Return ``function`` with its operations fused by torch.compile, where that is ``on``."""
    if not on:
        return function
    torch._dynamo.config.trace_autograd_ops = True
    made: Callable[P, T] = torch.compile(function, dynamic=False, fullgraph=True)
    return made


class Dials:
    """Numbers of an update that the host decides, where the update is computed.

    Each is a tensor without dimensions, set before an update: a captured graph reads it anew.

    Args:
        device: where the updates are computed.

    Attributes:
        values: name to tensor.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.values: dict[str, Tensor] = {}

    def set(self, name: str, value: float) -> None:
        """Set a dial."""
        if name not in self.values:
            self.values[name] = torch.zeros((), device=self.device)
        self.values[name].fill_(value)

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]


class Optimiser:
    """Adam over one network's vector, each run's gradient clipped first.

    Args:
        parameters: what it moves.
        weight_decay: decoupled.
        grad_clip: largest norm of a run's gradient; None for no limit.
    """

    def __init__(
        self, parameters: Parameters, weight_decay: float = 0.0, grad_clip: float | None = None
    ) -> None:
        self.parameters, self.grad_clip = parameters, grad_clip
        cuda = parameters.flat.is_cuda
        self.rate = torch.zeros((), device=parameters.flat.device)
        parameters.flat.grad = parameters.grad
        self.adam = torch.optim.AdamW(
            [parameters.flat],
            lr=self.rate if cuda else 0.0,
            weight_decay=weight_decay,
            fused=True,
            capturable=cuda,
        )

    def begin(self) -> None:
        """Make the state that Adam makes in its first step, to put a saved one into."""
        flat, steps = self.parameters.flat, torch.zeros((), device=self.parameters.flat.device)
        moments = {"exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}
        self.adam.state[flat] = {"step": steps, **moments}

    def state(self) -> dict[str, Tensor]:
        """Return what Adam keeps, by name; nothing before its first step."""
        return dict(self.adam.state.get(self.parameters.flat, {}))

    def forget(self) -> None:
        """Begin anew: no moments, no step taken."""
        for value in self.state().values():
            value.zero_()

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the steps to come."""
        if self.parameters.flat.is_cuda:
            self.rate.fill_(rate)
        else:
            self.adam.param_groups[0]["lr"] = rate

    def step(self) -> Tensor:
        """Take a step down the gradient; return its norm (R,) before clipping."""
        norm = self.parameters.clip(self.grad_clip)
        self.adam.step()
        return norm


class Averages:
    """Slow averages of one network's weights.

    Args:
        online: the newest weights.
        settings: how each average moves, by name.
        dials: where their shares are set.
    """

    def __init__(self, online: Parameters, settings: Mapping[str, Averaging], dials: Dials) -> None:
        self._online, self._dials = online, dials
        self._settings = {name: each for name, each in settings.items() if each.every}
        self.kept = {name: online.copy() for name in self._settings}

    def __getitem__(self, name: str) -> Parameters:
        """Return an average; the newest weights where there is none."""
        return self.kept.get(name, self._online)

    def prepare(self, step: int) -> Variant:
        """Set the shares of update ``step``; return which averages move."""
        shares = {name: each.share(step) for name, each in self._settings.items()}
        for name, share in shares.items():
            self._dials.set(name, share)
        return tuple(share > 0.0 for share in shares.values())

    def move(self, due: Variant) -> None:
        """Move those that are due."""
        for (name, average), moves in zip(self.kept.items(), due, strict=True):
            if moves:
                average.follow(self._online, self._dials[name])


@dataclass(frozen=True)
class Sizes:
    """Sizes of a robot in network units, and where and for whom it is learned.

    Attributes:
        action: A; H times the robot's where an answer is a chunk of H actions.
        condition: d.
        seeds: one for each of the R runs that are learned side by side.
        device: where.
    """

    action: int
    condition: int
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"

    def parameters(self, shapes: Mapping[str, Shape], stream: int) -> Parameters:
        """Return freshly drawn parameters; networks of a run differ by ``stream``."""
        made = Parameters(shapes, len(self.seeds), self.device)
        made.initialise(self.seeds, stream)
        return made

    def generator(self) -> torch.Generator:
        """Return the source of all noise; with one run it depends on its seed alone."""
        seed = 0
        for each in self.seeds:
            seed = (seed * 1_000_003 + each) % 2**63
        return torch.Generator(self.device).manual_seed(seed)


class Learner(ABC):
    """An algorithm with its networks. An update needs no word from the host but the dials.

    Attributes:
        generator: source of all noise.
        networks: every vector of parameters by name: what a state consists of.
        optimisers: likewise.
        dials: what the host sets before an update.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.generator = sizes.generator()
        self.networks: dict[str, Parameters] = {}
        self.optimisers: dict[str, Optimiser] = {}
        self.dials = Dials(sizes.device)

    @abstractmethod
    def prepare(self, step: int) -> Variant:
        """Set the dials for update ``step`` (0 for the first).

        Returns:
            What changes the course of the update itself.
        """

    @abstractmethod
    def update(self, batch: Batch, variant: Variant) -> Figures:
        """Do one update; return (R,) figures. Nothing in it waits for the device."""

    @property
    @abstractmethod
    def model(self) -> Model:
        """What the policy is made of."""

    @abstractmethod
    def policy_arrays(self, run: int) -> Arrays:
        """Return the served policy of one run, named as its bundle wants it."""

    @property
    def critic(self) -> CriticSettings | None:
        """Shape of the value networks, None without them."""
        return None

    def critic_arrays(self, run: int) -> Arrays | None:
        """Return the target critics of one run, None without them."""
        return None

    def noise(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.sizes.device)

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers evenly from [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.sizes.device)
