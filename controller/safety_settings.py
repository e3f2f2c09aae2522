"""Settings of what may be sent to a plant."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.ranges import NonNegative, Positive

PerElement = Positive | tuple[Positive | None, ...] | None
"""One limit for every action element, or one each with null for none; null for no limit."""


class WorkspaceAxis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One observed quantity that must stay within bounds, and what moves it.

    Attributes:
        element: what is observed: ``ARRAY.ELEMENT`` or ``ARRAY[INDEX]``, as in ``position.x``.
        low: smallest value, in the unit of the observation; null for none.
        high: largest value; null for none.
        rate: element that observes its rate of change per second; null takes the difference of
            two observations.
        action: action element that moves it, by name or index; null where no single one does:
            then no policy acts while it is, or is about to be, outside.
        control: velocity (the axis changes by ``gain`` times the action per second), position
            (the action, times ``gain`` plus ``offset``, is where the axis shall go) or force
            (a positive product of ``gain`` and action pushes it up).
        gain: see ``control``; negative where a positive action moves the axis down.
        offset: value of the axis for an action of zero; only with control=position.
    """

    element: str
    low: float | None = None
    high: float | None = None
    rate: str | None = None
    action: str | int | None = None
    control: Literal["velocity", "position", "force"] = "velocity"
    gain: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError(f"{self.element}: expected low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"{self.element}: low {self.low:g} is not below high {self.high:g}")
        if self.gain == 0:
            raise ValueError(f"{self.element}: gain is 0, expected any other number")
        if self.offset and self.control != "position":
            raise ValueError(f"{self.element}: offset is for control=position, not {self.control}")


class WorkspaceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the robot may be.

    Attributes:
        axes: the observed quantities with bounds; none of them for no workspace.
        lookahead_s: how far ahead of a bound an axis is slowed, as time to reach it. Take more
            than the robot needs to stop.
    """

    axes: tuple[WorkspaceAxis, ...] = ()
    lookahead_s: Annotated[float, msgspec.Meta(gt=0)] = 0.2


class SafetySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that determines the executed command, given the requested ones and the observations.

    Attributes:
        slew_per_s: largest change of an action element per second, in units of the action.
        acceleration_per_s2: largest change of that change per second.
        safe_action: the safe command, one number per action element; null for zeros clipped
            into the limits.
        workspace: where the robot may be.
        blend_s: length of the cross-fade when a person takes over or hands back.
    """

    slew_per_s: PerElement = None
    acceleration_per_s2: PerElement = None
    safe_action: tuple[float, ...] | None = None
    workspace: WorkspaceSettings = WorkspaceSettings()
    blend_s: NonNegative = 0.0


PLAIN = SafetySettings()
"""The limits of the action and nothing else."""
