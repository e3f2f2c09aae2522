"""The states of the loop and everything that can change them, as one table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from controller.types import Mode, Reason, Rung


class Event(StrEnum):
    """What one tick can mean for the state of the loop."""

    EPISODE_BEGUN = "episode begun"
    """A first observation of the first episode is there."""
    ACTION_READY = "action ready"
    """A rung above the safe command gave an action."""
    PERSON_DRIVES = "person drives"
    """A person gave one."""
    ACTION_MISSING = "no action"
    """The policy was late, silent, refused, or answered what is not an action."""
    OBSERVATION_UNUSABLE = "observation unusable"
    """The observation is too old or not finite."""
    WORKSPACE_LEFT = "workspace left"
    """The robot is where no policy may act."""
    PLANT_LOST = "plant lost"
    """The plant cannot be reached."""
    PLANT_FAILED = "plant failed"
    """The plant cannot go on, and said why."""
    EPISODE_OVER = "episode over"
    """The episode ended and the next has not begun."""
    SILENT_TOO_LONG = "silent too long"
    """There was nothing to act on, or no action, for longer than allowed."""
    OPERATOR_STOP = "operator stop"
    """Somebody asked for the stop."""
    RUN_COMPLETE = "run complete"
    """The run reached its limit."""


TRANSITIONS: Final[dict[tuple[Mode, Event], Mode]] = {
    (Mode.INIT, Event.EPISODE_BEGUN): Mode.HOLD,
    (Mode.INIT, Event.SILENT_TOO_LONG): Mode.FAULT,
    (Mode.INIT, Event.OPERATOR_STOP): Mode.STOPPED,
    (Mode.INIT, Event.RUN_COMPLETE): Mode.STOPPED,
    (Mode.HOLD, Event.ACTION_READY): Mode.RUN,
    (Mode.HOLD, Event.PERSON_DRIVES): Mode.RUN,
    (Mode.HOLD, Event.ACTION_MISSING): Mode.HOLD,
    (Mode.HOLD, Event.OBSERVATION_UNUSABLE): Mode.HOLD,
    (Mode.HOLD, Event.WORKSPACE_LEFT): Mode.HOLD,
    (Mode.HOLD, Event.PLANT_LOST): Mode.HOLD,
    (Mode.HOLD, Event.EPISODE_OVER): Mode.HOLD,
    (Mode.HOLD, Event.PLANT_FAILED): Mode.FAULT,
    (Mode.HOLD, Event.SILENT_TOO_LONG): Mode.FAULT,
    (Mode.HOLD, Event.OPERATOR_STOP): Mode.STOPPED,
    (Mode.HOLD, Event.RUN_COMPLETE): Mode.STOPPED,
    (Mode.RUN, Event.ACTION_READY): Mode.RUN,
    (Mode.RUN, Event.PERSON_DRIVES): Mode.RUN,
    (Mode.RUN, Event.ACTION_MISSING): Mode.HOLD,
    (Mode.RUN, Event.OBSERVATION_UNUSABLE): Mode.HOLD,
    (Mode.RUN, Event.WORKSPACE_LEFT): Mode.HOLD,
    (Mode.RUN, Event.PLANT_LOST): Mode.HOLD,
    (Mode.RUN, Event.EPISODE_OVER): Mode.HOLD,
    (Mode.RUN, Event.PLANT_FAILED): Mode.FAULT,
    (Mode.RUN, Event.SILENT_TOO_LONG): Mode.FAULT,
    (Mode.RUN, Event.OPERATOR_STOP): Mode.STOPPED,
    (Mode.RUN, Event.RUN_COMPLETE): Mode.STOPPED,
    (Mode.FAULT, Event.PLANT_FAILED): Mode.FAULT,
    (Mode.FAULT, Event.SILENT_TOO_LONG): Mode.FAULT,
    (Mode.FAULT, Event.OPERATOR_STOP): Mode.STOPPED,
    (Mode.FAULT, Event.RUN_COMPLETE): Mode.STOPPED,
    (Mode.STOPPED, Event.RUN_COMPLETE): Mode.STOPPED,
}
"""Next mode by (mode, event). A pair that is not here cannot happen: no way leads from FAULT or
STOPPED back to an acting policy or person.

A run stays in RUN while a person drives: somebody acts and the episode goes on. Who acts is
told tick by tick by the rung."""


def next_mode(mode: Mode, event: Event) -> Mode:
    """Return the mode that follows ``mode`` upon ``event``."""
    assert (mode, event) in TRANSITIONS, f"event {event.value!r} cannot happen in mode {mode.name}"
    return TRANSITIONS[mode, event]


def event_of(rung: Rung, reasons: Reason, *, asked: bool) -> Event:
    """Return what a decision means for the state of the loop.

    Args:
        rung: where the command came from.
        reasons: why it is not simply the policy's answer.
        asked: whether a policy was asked.
    """
    if rung.acts:
        return Event.PERSON_DRIVES if rung is Rung.HUMAN else Event.ACTION_READY
    if reasons & Reason.OPERATOR:
        return Event.OPERATOR_STOP
    if rung is Rung.STOP:
        failed = reasons & Reason.PLANT_FAILED
        return Event.PLANT_FAILED if failed else Event.SILENT_TOO_LONG
    if reasons & Reason.EPISODE:
        return Event.EPISODE_OVER
    if reasons & Reason.PLANT_LOST:
        return Event.PLANT_LOST
    if reasons & Reason.WORKSPACE:
        return Event.WORKSPACE_LEFT
    return Event.ACTION_MISSING if asked else Event.OBSERVATION_UNUSABLE
