"""Damaged messages, for trials of what decodes them: a mutation fuzzer for this protocol.

Valid messages are damaged where decoders are weak: bits, lengths, types, nesting, number and order
of frames (Miller, Fredriksen & So 1990 began with random bytes; mutations reach deeper).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from controller.feed.rows import RowLayout
from controller.spec import Spec
from controller.spec_coding import encode_spec
from controller.types import Array
from controller.wire import (
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    PROTOCOL,
    Answer,
    Ask,
    Bye,
    Command,
    Control,
    Draw,
    Drawn,
    Failure,
    Fetch,
    Files,
    Hello,
    Insert,
    Inserted,
    Message,
    Ping,
    Pong,
    Refusal,
    Reject,
    Report,
    Reset,
    State,
    Steer,
    Steered,
    Welcome,
    encode,
)

MOST = 4
"""Damages to one message."""

REMEMBERED = 32
LONG = (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9", b"\xdc", b"\xde", b"\xda", b"\xd9", b"\xc4")
"""msgpack markers that a length follows: arrays, maps, texts, bytes."""

VALUES = (
    *(bytes([marker]) for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0x80, 0x90, 0xA0, 0xFF)),
    b"\xcf" + 8 * b"\xff",  # 2**64 - 1
    b"\xd3\x80" + 7 * b"\0",  # -2**63
    b"\xcb\x7f\xf8" + 6 * b"\0",  # NaN
    b"\xcb\x7f\xf0" + 6 * b"\0",  # infinity
    b"\xca" + 4 * b"\xff",
    b"\xa2\xff\xff",  # text that is not UTF-8
    b"\xd4\x00\x00",  # an extension type
    b"\xd6\xff" + 4 * b"\xff",  # a time stamp
)
"""Values of every type, to take another's place."""

Frames = list[bytearray]


class Mutator:
    """Damages messages, the same way again for the same seed and messages.

    Args:
        seed: of the damages.
        longest: bytes of the longest frame to make. A frame above a server's limit costs the
            connection, and what is sent behind it.
    """

    def __init__(self, seed: int, longest: int = MAX_HEADER_BYTES) -> None:
        self._source = random.Random(seed)
        self._longest = longest
        self._seen: deque[list[bytes]] = deque(maxlen=REMEMBERED)
        self._damages: tuple[Callable[[Frames, bytearray, int], None], ...] = (
            self._flip,
            self._flip,
            self._cut,
            self._insert,
            self._repeat,
            self._lengthen,
            self._replace,
            self._replace,
            self._splice,
            self._nest,
            self._pad,
            self._reframe,
            self._reframe,
        )

    def mutate(self, frames: Sequence[bytes]) -> list[bytes]:
        """Return a damaged copy of a message; seldom it is a valid one nevertheless."""
        self._seen.append([bytes(frame) for frame in frames])
        damaged = [bytearray(frame) for frame in frames]
        source = self._source
        for _ in range(source.randint(1, MOST)):
            # The header holds what has to be decoded; arrays are only measured.
            number = 0 if source.random() < 0.7 else source.randrange(len(damaged))
            frame = damaged[number]
            source.choice(self._damages)(damaged, frame, source.randint(0, len(frame)))
        return [bytes(frame[: self._longest]) for frame in damaged[: MAX_FRAMES + 4]]

    def _flip(self, frames: Frames, frame: bytearray, at: int) -> None:
        if at < len(frame):
            frame[at] ^= 1 << self._source.randrange(8)

    def _cut(self, frames: Frames, frame: bytearray, at: int) -> None:
        del frame[at:]

    def _insert(self, frames: Frames, frame: bytearray, at: int) -> None:
        frame[at:at] = self._source.randbytes(self._source.randint(1, 8))

    def _repeat(self, frames: Frames, frame: bytearray, at: int) -> None:
        end = self._source.randint(at, len(frame))
        frame[at:at] = frame[at:end]

    def _lengthen(self, frames: Frames, frame: bytearray, at: int) -> None:
        """Claim that something long begins here."""
        length = self._source.choice((4 * b"\xff", 4 * b"\x7f", b"\0\0\xff\xff", 4 * b"\0"))
        frame[at : at + 1] = self._source.choice(LONG) + length

    def _replace(self, frames: Frames, frame: bytearray, at: int) -> None:
        """Put a value of another type or range in the place of a byte."""
        frame[at : at + 1] = self._source.choice(VALUES)

    def _splice(self, frames: Frames, frame: bytearray, at: int) -> None:
        """Go on with the end of another message."""
        other = self._source.choice(self._source.choice(self._seen))
        frame[at:] = other[min(at, len(other)) :]

    def _nest(self, frames: Frames, frame: bytearray, at: int) -> None:
        depth = self._source.choice((2, 40, 600, 1100, 20_000))
        frame[at:at] = depth * self._source.choice((b"\x91", b"\x81\xa0", b"\x92\xc0"))

    def _pad(self, frames: Frames, frame: bytearray, at: int) -> None:
        length = self._source.choice((1, 7, 255, 4096, self._longest))
        frame[at:at] = bytes(max(0, min(length, self._longest - len(frame))))

    def _reframe(self, frames: Frames, frame: bytearray, at: int) -> None:
        """Drop, double, swap, split or add frames."""
        kind = self._source.randrange(6)
        if kind == 0 and len(frames) > 1:
            frames.pop(self._source.randrange(len(frames)))
        elif kind == 1:
            frames.append(bytearray(frame))
        elif kind == 2:
            self._source.shuffle(frames)
        elif kind == 3:
            frames.append(frame[at:])
            del frame[at:]
        elif kind == 4:
            frames.append(bytearray(self._source.randbytes(self._source.choice((0, 1, 8, 100)))))
        else:
            frames.extend(bytearray() for _ in range(self._source.choice((1, 20, MAX_FRAMES))))


def specimens(spec: Spec) -> list[list[bytes]]:
    """Return one valid message of every kind, for a robot, as frames."""
    observed = tuple(array.resting() for array in spec.observation)
    action = spec.action.resting()
    rows: Array = np.stack([action, action, action])
    experience = np.zeros((2, RowLayout.of(spec).width), np.float32)
    welcome = Welcome(PROTOCOL, encode_spec(spec), "v1", 5, 6)
    parcels: list[tuple[Message, Sequence[Array]]] = [
        (Hello(PROTOCOL, "policy", "robot", spec.digest(), 5, "arm"), ()),
        (welcome, ()),
        (Refusal("spec", spec.describe()), ()),
        (Ping(5), ()),
        (Pong(5, 6, 7), ()),
        (Ask(3, 7, 2, 5, 11, 20_000_000), observed),
        (Ask(3, 7, 2, 5, 11, 20_000_000, 3), (*observed, rows)),
        (Answer(3, "v1", 1, 10, 20, 3, 4, 2, 1), (rows,)),
        (Reject(3, "late", "waited 21.0 ms of 20.0 ms"), ()),
        (State(2, 5, 123, 0.5, 1.5, False, False, True, 4, 9, 1), observed),
        (Failure(2, "unstable", "the simulation broke down"), ()),
        (Command(3, 2), (action,)),
        (Reset(7, 3), ()),
        (Reset(None, 3), ()),
        (Steer(1), (action,)),
        (Steered(3, 2, 0, 1, "ann"), (action,)),
        (Control("swap", {"bundle": "runs/a", "name": "arm"}), ()),
        (Report("stats", True, '{"version": "v1", "answered": 3}'), ()),
        (Insert("arm", 7, 2, ("v1", "v2")), (experience,)),
        (Inserted("arm", 9, 0, "v2", "runs/a/v2"), ()),
        (Draw(1, 2, 5, "v2"), ()),
        (Drawn(1, 2, 100, 50, 9, "v2", 0, False), (experience,)),
        (Fetch("v2"), ()),
        (Files("v2", ("manifest.json",)), (np.frombuffer(b"{}", np.uint8),)),
        (Bye(), ()),
    ]
    return [[bytes(frame) for frame in encode(header, arrays)] for header, arrays in parcels]
