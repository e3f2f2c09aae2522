"""What can go wrong on the wire, as functions of one answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from controller.errors import WireError
from controller.spec import Spec
from controller.wire import MAX_FRAME_BYTES, Answer, decode

Frames = list[bytes]

DELAY_NS = 20_000_000
"""Four periods at 200 Hz: far behind every deadline."""
GARBAGE_BYTES = 4096
FAR_OUT = 1e6


@dataclass(frozen=True, slots=True)
class Parcel:
    """Frames to hand on, ``after_ns`` from now."""

    frames: Frames
    after_ns: int = 0


@dataclass(slots=True)
class Meddler:
    """What a fault does needs: chance, the robot once it is known, and what was held back."""

    random: np.random.Generator
    spec: Spec | None = None
    held: list[Frames] = field(default_factory=list)


Meddle = Callable[[Meddler, Frames], list[Parcel]]


def delay(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver behind the deadline."""
    return [Parcel(frames, DELAY_NS)]


def reorder(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver two at a time, the newer one first."""
    meddler.held.append(frames)
    if len(meddler.held) < 2:
        return []
    older, newer = meddler.held
    meddler.held.clear()
    return [Parcel(newer), Parcel(older)]


def duplicate(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver twice, and once more much later."""
    return [Parcel(frames), Parcel(frames), Parcel(frames, DELAY_NS)]


def lose(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver every second one, by chance."""
    return [Parcel(frames)] if meddler.random.random() < 0.5 else []


def garbage(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver random bytes in its place."""
    count = int(meddler.random.integers(1, 5))
    sizes = meddler.random.integers(0, GARBAGE_BYTES, count)
    return [Parcel([meddler.random.bytes(int(size)) for size in sizes])]


def oversize(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver a frame over the limit behind it, now and then: the library cuts the connection."""
    if meddler.random.random() < 0.9:
        return [Parcel(frames)]
    return [Parcel([frames[0], bytes(MAX_FRAME_BYTES + 1)])]


def nonfinite(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver NaN actions."""
    return [Parcel(_actions(meddler, frames, np.nan))]


def far_out(meddler: Meddler, frames: Frames) -> list[Parcel]:
    """Deliver actions far beyond every limit."""
    return [Parcel(_actions(meddler, frames, FAR_OUT))]


MEDDLES: Final[dict[str, Meddle]] = {
    "delay": delay,
    "reorder": reorder,
    "duplicate": duplicate,
    "lose": lose,
    "garbage": garbage,
    "oversize": oversize,
    "nonfinite": nonfinite,
    "far_out": far_out,
}


def _actions(meddler: Meddler, frames: Frames, value: float) -> Frames:
    """Return an answer with every number of its actions replaced; other messages as they are."""
    try:
        message, _ = decode(frames)
    except WireError:
        return frames
    if not isinstance(message, Answer) or meddler.spec is None:
        return frames
    action = meddler.spec.action
    if np.dtype(action.dtype).kind != "f":
        return frames
    size = len(frames[1]) // np.dtype(action.dtype).itemsize
    return [frames[0], np.full(size, value, action.dtype).tobytes()]
