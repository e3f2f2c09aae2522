"""Updates one after the other, watched: what is not finite ends them, and its batch is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
import torch

from controller.errors import ConfigError
from policies.algos.learner import Batch, Figures
from policies.disk import replace_file
from policies.errors import TrainingDiverged
from policies.finetuning.agent import Agent
from policies.finetuning.batches import Lesson
from policies.finetuning.settings import LearnSettings
from policies.training import difference

DIVERGED = "diverged"
BATCH, WHAT = "batch.safetensors", "what.json"
OF_CRITICS = ("q_loss", "q", "critic")


class Improvement:
    """An agent and how far it is.

    The policy stands still for the first ``critic_updates`` of the critics, and then moves at
    every ``actor_every``-th of them.

    Args:
        agent: what is improved.
        out: directory of the fine-tuning; ``out/diverged`` receives the batch behind numbers
            that are not finite.

    Attributes:
        updates: of the critics, so far.
        actor_updates: of the policy.
    """

    def __init__(self, agent: Agent, out: Path) -> None:
        self.agent, self._out = agent, out
        self.updates = self.actor_updates = 0
        self._figures: Figures = {}

    def update(self, lesson: Lesson, *, policy: bool | None = None) -> None:
        """Do one update of the critics, and where it is due one of the policy.

        Args:
            lesson: what to learn from.
            policy: whether the policy may move; None goes by ``critic_updates``.

        Raises:
            TrainingDiverged: a loss is not finite; the batch is kept.
        """
        settings = self.agent.settings
        moves = self.updates >= settings.critic_updates if policy is None else policy
        figures = self.agent.update_critics(lesson.batch, self.updates)
        if moves and self.updates % settings.actor_every == 0:
            figures |= self.agent.update_actor(
                lesson.batch.condition, lesson.anchors, self.actor_updates
            )
            self.actor_updates += 1
        self.updates += 1
        self._figures |= figures
        total = float(torch.stack([*figures.values()]).sum())
        if not math.isfinite(total):
            bad = next(name for name, value in figures.items() if not bool(value.isfinite()))
            raise self._diverged(bad, lesson)

    def require_finite(self, lesson: Lesson | None = None) -> None:
        """Raise unless every weight is finite: before they are saved or written.

        Args:
            lesson: that of the last update, to be kept with the fault; None for none.

        Raises:
            TrainingDiverged: one is not.
        """
        for name, network in self.agent.learner.networks.items():
            if not bool(network.flat.isfinite().all()):
                raise self._diverged(f"a weight of {name}", lesson)

    def figures(self) -> dict[str, float]:
        """Return the newest value of each figure."""
        return {name: float(value) for name, value in self._figures.items()}

    def _diverged(self, what: str, lesson: Lesson | None) -> TrainingDiverged:
        settings = self.agent.settings
        place = self._out / DIVERGED
        facts = {
            "update": self.updates,
            "not_finite": what,
            "figures": {name: repr(value) for name, value in self.figures().items()},
            "learn": msgspec.to_builtins(settings),
        }
        if lesson is not None:
            replace_file(place / BATCH, safetensors.numpy.save(_arrays(lesson)))
        replace_file(place / WHAT, msgspec.json.format(msgspec.json.encode(facts), indent=1))
        return TrainingDiverged(
            f"{what} is no longer finite at update {self.updates}: lower "
            f"{_rate_of(what, settings)}, or look for outliers in the batch, which is in {place}; "
            "the state and the versions from before are as they were"
        )


def require_changed(out: Path, settings: LearnSettings) -> None:
    """Refuse to go on with the settings under which the fine-tuning in ``out`` diverged.

    Raises:
        ConfigError: they are the same.
    """
    file = out / DIVERGED / WHAT
    if not file.is_file():
        return
    found = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    if difference(found["learn"], _builtins(settings)) is not None:
        return
    raise ConfigError(
        f"{out}: {found['not_finite']} was no longer finite at update {found['update']} with these "
        f"very settings: lower {_rate_of(found['not_finite'], settings)}, or remove "
        f"{file.parent} to try again all the same"
    )


def _rate_of(what: str, settings: LearnSettings) -> str:
    own = any(what.removeprefix("a weight of ").startswith(name) for name in OF_CRITICS)
    name = "critic_rate" if own else "actor_rate"
    return f"learn.{name} (now {getattr(settings, name):g})"


def _builtins(settings: LearnSettings) -> Mapping[str, Any]:
    """Return settings as they come back from JSON."""
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))
    return value


def _arrays(lesson: Lesson) -> dict[str, np.ndarray[Any, Any]]:
    def named(batch: Batch | None, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
        columns = vars(batch).items() if batch else ()
        return {
            f"{prefix}{name}": np.ascontiguousarray(value.cpu().numpy()) for name, value in columns
        }

    return named(lesson.batch, "") | named(lesson.anchors, "anchors.")
