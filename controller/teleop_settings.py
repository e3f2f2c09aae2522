"""Settings of people who take over: the loop's side, and that of the keyboard program."""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.key_settings import (
    NO_CLIENT_KEYS,
    NO_SERVER_KEYS,
    ClientKeySettings,
    ServerKeySettings,
)
from controller.ranges import NonNegative, Positive


class TeleopSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a person may take over from the policy.

    Attributes:
        endpoint: address at which the loop listens for ``onebeat teleop`` and for programs of
            your own, such as ipc:///tmp/teleop; null for nobody.
        timeout_s: silence after which whoever drives has handed back.
        blend_s: length of the cross-fade from the last command of one to those of the other; 0
            leaves the step to the slew and acceleration limits.
        keys: whom to let in, encrypted; needed beyond loopback.
    """

    endpoint: str | None = None
    timeout_s: Positive = 0.25
    blend_s: NonNegative = 0.3
    keys: ServerKeySettings = NO_SERVER_KEYS


class TeleopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take over from the policy of a run, by keyboard.

    Attributes:
        endpoint: the run's ``loop.teleop.endpoint``.
        name: who drives, for the log; null for this user's name.
        elements: action elements that the pairs of keys move, in the order a/d, s/w, f/r, g/t,
            h/y, j/u, k/i, l/o, by name or index; null for the first eight. The arrow keys are
            the first two pairs.
        step: what one key press moves, as part of an element's range; of 1 where it has none.
        spring_s: time without a key after which an element goes back to rest: zero, or the limit
            next to it; null keeps it where it is, as for an action that is a place.
        rate_hz: how often the command is sent.
        connect_timeout_s: how long to wait for the run.
        keys: the run's public key and a secret key of one's own; needed beyond loopback.
    """

    endpoint: str = "ipc:///tmp/onebeat-teleop"
    name: str | None = None
    elements: tuple[str | int, ...] | None = None
    step: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    spring_s: Positive | None = 0.7
    rate_hz: Annotated[float, msgspec.Meta(ge=5, le=500)] = 50.0
    connect_timeout_s: Positive = 20.0
    keys: ClientKeySettings = NO_CLIENT_KEYS
