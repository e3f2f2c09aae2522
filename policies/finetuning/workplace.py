"""Where everything of a fine-tuning lies, and what the learner leaves there to be judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from controller.transitions import Transitions
from controller.types import Array
from policies.bundle import read_manifest
from policies.errors import BundleError
from policies.finetuning.agent import Agent, write_candidate
from policies.finetuning.improving import Improvement
from policies.finetuning.rules import Rules
from policies.finetuning.settings import FinetuneConfig
from policies.manifest import DataEntry, Manifest


@dataclass(frozen=True)
class Place:
    """Where a fine-tuning reads and writes.

    Attributes:
        out: its directory.
    """

    out: Path

    @property
    def learner(self) -> Path:
        """State and metrics of the learner."""
        return self.out / "learner"

    @property
    def candidates(self) -> Path:
        """Store of versions that are to be judged."""
        return self.out / "candidates"

    @property
    def bundles(self) -> Path:
        """Store of published versions."""
        return self.out / "bundles"

    @property
    def spec(self) -> Path:
        """The robot."""
        return self.out / "spec.json"

    def manifest(self, version: str, agent: Agent) -> Manifest | None:
        """Return what a published version says of itself; without it, what the parent does."""
        try:
            return read_manifest(self.bundles / version)
        except BundleError:
            return agent.parent.manifest if agent.parent else None


def leave(
    config: FinetuneConfig,
    improvement: Improvement,
    rules: Rules,
    observations: Array,
    data: tuple[DataEntry, ...],
    rows: int,
    in_force: Manifest | None,
) -> Path:
    """Leave the policy as it is now to be judged; return the bundle's directory.

    Args:
        config: of the fine-tuning.
        improvement: has the policy.
        rules: applied to what it learned from, with its counts.
        observations: (n, D) flat, of which some become golden.
        data: what it learned from.
        rows: of the robot's experience behind it.
        in_force: of the version that was in force.

    Raises:
        TrainingDiverged: a weight is not finite.
    """
    improvement.require_finite()
    settings: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    training = {
        "config": settings,
        "preset": config.preset,
        "steps": improvement.updates,
        "actor_updates": improvement.actor_updates,
        "env_steps": rows,
        "rows": rules.table(),
        "result": improvement.figures(),
    }
    place = Place(Path(config.out))
    return write_candidate(
        improvement.agent, place.candidates, observations, data, training, in_force
    )


def offline_entry(data: Transitions) -> DataEntry:
    """Return what a bundle says of the offline data it learned from."""
    return DataEntry("offline", data.task, len(data), data.digest())
