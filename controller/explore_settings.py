"""How a policy explores: with what chance an evenly drawn action takes its place."""

from __future__ import annotations

from typing import Annotated

import msgspec

Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]
Ticks = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class ExploreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Epsilon-greedy with a linear decay.

    Attributes:
        start: chance of a drawn action at first.
        end: chance at the end of the decay and after it.
        hold: ticks before the decay begins.
        decay: ticks from ``start`` to ``end``; 0 for a step.
        offset: ticks that count as passed before the first of the run: those of the runs that
            this one goes on from.
    """

    start: Chance = 0.0
    end: Chance = 0.0
    hold: Ticks = 0
    decay: Ticks = 0
    offset: Ticks = 0

    def __post_init__(self) -> None:
        if self.start != self.end and not self.hold and not self.decay:
            raise ValueError(
                f"start={self.start:g} is of no effect without hold or decay; "
                f"expected end={self.start:g} for the same chance at every tick"
            )

    @property
    def active(self) -> bool:
        """Whether there is any exploration."""
        return self.start > 0.0 or self.end > 0.0

    def chance(self, tick: int) -> float:
        """Return the chance at a tick of the run, counted from 0."""
        tick += self.offset
        if tick < self.hold:
            return self.start
        if tick - self.hold >= self.decay:
            return self.end
        return self.start + (self.end - self.start) * (tick - self.hold) / self.decay


NO_EXPLORATION = ExploreSettings()
