"""What every message of the protocol is made of: limits, the fields' types, the base class."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

PROTOCOL = 4
MAX_HEADER_BYTES = 64 * 1024
MAX_SPEC_BYTES = 60 * 1024
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_ARRAYS = 64
MAX_FRAMES = 2 + MAX_ARRAYS
"""Header, arrays, and the prefix of a request."""
MAX_HORIZON = 1024
MAX_TEXT = 4000
SHORT_BYTES = 1024

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
NumberOrNone = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
TickOrNone = NumberOrNone
Nanoseconds = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Horizon = Annotated[int, msgspec.Meta(ge=1, le=MAX_HORIZON)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Role = Literal["policy", "plant", "teleop", "replay", "control"]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A header; the table of array frames below says how many arrays may follow it."""
