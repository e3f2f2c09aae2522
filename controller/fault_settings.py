"""Settings of the faults that a simulated plant can be given."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from controller.ranges import NonNegative, Seed

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class FaultsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults between a loop and a simulated plant; without any the plant is the bare one.

    Rewards, steps and the ends of episodes stay true: they are the referee's, not the robot's.

    Attributes:
        observation_delay_s: age of an observation when it arrives; in lockstep rounded to
            whole control steps.
        action_delay_s: time from a command's arrival until it acts; in lockstep rounded to
            whole control steps.
        jitter_s: every observation and command is late by a further time, drawn evenly from 0
            to this; none overtakes the one before it.
        observation_loss: probability that an observation never arrives.
        action_loss: probability that a command never arrives; the one before it holds.
        noise: standard deviation of Gaussian noise on every number observed, in its own unit.
        relative_noise: the same as a share of the number's magnitude; both add in quadrature.
        freeze: probability at each step that the sensors begin to repeat what they showed last.
        freeze_s: how long they do.
        seed: of all this; an episode's faults are determined by it and the episode's seed.
    """

    observation_delay_s: NonNegative = 0.0
    action_delay_s: NonNegative = 0.0
    jitter_s: NonNegative = 0.0
    observation_loss: Probability = 0.0
    action_loss: Probability = 0.0
    noise: NonNegative = 0.0
    relative_noise: NonNegative = 0.0
    freeze: Probability = 0.0
    freeze_s: NonNegative = 0.5
    seed: Seed = 0

    @property
    def active(self) -> bool:
        """Whether there is any fault."""
        return any(getattr(self, name) for name in _KINDS)

    def facts(self) -> dict[str, Any]:
        """Return the faults that are on, with the seed; empty without any."""
        facts = {name: getattr(self, name) for name in _KINDS if getattr(self, name)}
        if self.freeze:
            facts["freeze_s"] = self.freeze_s
        return {**facts, "seed": self.seed} if facts else {}

    def words(self, prefix: str = "faults.") -> list[str]:
        """Return the settings that differ from their defaults, as words of a command line."""
        default = FaultsConfig()
        return [
            f"{prefix}{name}={getattr(self, name)}"
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(default, name)
        ]


_KINDS = tuple(name for name in FaultsConfig.__struct_fields__ if name not in ("freeze_s", "seed"))
