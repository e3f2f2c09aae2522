"""Messages between the processes: a msgpack header, then raw C-order arrays, little-endian.

Frame 0 of a message is the header, a tagged array. Further frames are arrays in spec order
without dtype or shape: both sides agreed on those by the spec digest. Decoding is total: any
bytes give a message or :class:`WireError`, and lengths are checked before anything is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from controller.errors import WireError
from controller.replay_messages import MAX_FILES, Draw, Drawn, Fetch, Files, Insert, Inserted
from controller.types import Array, Observation
from controller.wire_base import (
    MAX_ARRAYS,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    MAX_HORIZON,
    MAX_SPEC_BYTES,
    MAX_TEXT,
    PROTOCOL,
    SHORT_BYTES,
    Count,
    Horizon,
    Message,
    Name,
    Nanoseconds,
    NumberOrNone,
    Role,
    Text,
    TickOrNone,
)

__all__ = [
    "MAX_ARRAYS", "MAX_FRAMES", "MAX_FRAME_BYTES", "MAX_HEADER_BYTES", "MAX_HORIZON",
    "MAX_SPEC_BYTES", "MAX_TEXT", "PROTOCOL", "Answer", "AnyMessage", "Ask", "Bye", "Command",
    "Control", "Count", "Draw", "Drawn", "Failure", "Fetch", "Files", "Hello", "Horizon", "Insert",
    "Inserted", "Message", "Name", "Nanoseconds", "NumberOrNone", "Ping", "Pong", "Refusal",
    "Reject", "Report", "Reset", "Role", "State", "Steer", "Steered", "Text", "TickOrNone",
    "Welcome", "decode", "encode", "one_line",
]  # fmt: skip


class Hello(Message, frozen=True, tag="hello"):
    """The first message of a client.

    Attributes:
        protocol: version of this protocol.
        role: what the client wants the server to be.
        client: name for the server's log.
        spec_digest: digest of the client's spec; empty when it does not know one yet.
        sent_ns: client's clock.
        policy: name of the policy that is wanted, of those the server has; empty for its first.
    """

    protocol: Count
    role: Role
    client: Name
    spec_digest: Name
    sent_ns: Nanoseconds
    policy: Name = ""


class Welcome(Message, frozen=True, tag="welcome"):
    """The server's yes to a hello.

    Attributes:
        protocol: version of this protocol.
        spec: the server's spec, see :mod:`controller.spec_coding`.
        version: version of the policy; empty for a plant.
        sent_ns: echo of the hello.
        server_ns: server's clock when it answered.
    """

    protocol: Count
    spec: Annotated[bytes, msgspec.Meta(max_length=MAX_SPEC_BYTES)]
    version: Name
    sent_ns: Nanoseconds
    server_ns: Nanoseconds


class Refusal(Message, frozen=True, tag="refusal"):
    """The server's no to a hello, or to bytes that are no message."""

    code: Name
    detail: Text


class Ping(Message, frozen=True, tag="ping"):
    """A look at the server's clock: ``sent_ns`` is the client's."""

    sent_ns: Nanoseconds


class Pong(Message, frozen=True, tag="pong"):
    """The answer to a ping: its ``sent_ns``, and the server's clock on arrival and on leaving."""

    sent_ns: Nanoseconds
    arrived_ns: Nanoseconds
    server_ns: Nanoseconds


class Ask(Message, frozen=True, tag="ask"):
    """One request to a policy; one frame per observation array follows.

    With ``prefix`` above 0 a last frame (prefix, *action shape) follows: rows that the answer
    begins with.

    Attributes:
        tick: control tick that asks.
        seed: seed of the run; the noise of the answer derives from (seed, tick).
        episode: episode of the observation.
        step: step of the observation within its episode.
        age_ns: age of the observation when the request was made.
        budget_ns: time from the request after which an answer is of no use.
        prefix: rows of the last frame; 0 for no such frame.
    """

    tick: Count
    seed: Count
    episode: Count
    step: Count
    age_ns: Nanoseconds
    budget_ns: Count
    prefix: Annotated[int, msgspec.Meta(ge=0, le=MAX_HORIZON)] = 0


class Answer(Message, frozen=True, tag="answer"):
    """A policy's answer; one frame (horizon, *action shape) follows.

    Attributes:
        tick: echo of the request.
        version: version of the policy that answered.
        evaluations: network evaluations spent.
        queue_ns: time the request waited at the server.
        infer_ns: time the policy computed.
        horizon: number of actions; action i is meant for tick + i.
        candidates: actions drawn, of which one was taken.
        batch: requests answered in one computation.
        prefix: rows of the request's prefix, with which the actions begin.
    """

    tick: Count
    version: Name
    evaluations: Count
    queue_ns: Count
    infer_ns: Count
    horizon: Horizon
    candidates: Count = 1
    batch: Count = 1
    prefix: Count = 0


class Reject(Message, frozen=True, tag="reject"):
    """A request, command or reset was not carried out; tick is -1 for what has none."""

    tick: TickOrNone
    code: Name
    detail: Text


class State(Message, frozen=True, tag="state"):
    """What a plant reports at each control step; one frame per observation array follows.

    The fields are those of :class:`controller.types.Observation`.
    """

    episode: Count
    step: Count
    stamp_ns: Nanoseconds
    reward: float
    episode_return: float
    terminated: bool
    truncated: bool
    success: bool
    applied_tick: TickOrNone
    late_ns: Count = 0
    late_steps: Count = 0

    @classmethod
    def of(cls, observation: Observation, stamp_ns: int) -> State:
        """Return the header that carries ``observation``, stamped ``stamp_ns``."""
        return cls(
            episode=int(observation.episode),
            step=int(observation.step),
            stamp_ns=stamp_ns,
            reward=float(observation.reward),
            episode_return=float(observation.episode_return),
            terminated=bool(observation.terminated),
            truncated=bool(observation.truncated),
            success=bool(observation.success),
            applied_tick=int(observation.applied_tick),
            late_ns=int(observation.late_ns),
            late_steps=int(observation.late_steps),
        )

    def observation(self, arrays: tuple[Array, ...]) -> Observation:
        """Return the observation that this header and ``arrays`` are."""
        return Observation(
            arrays=arrays,
            stamp_ns=self.stamp_ns,
            episode=self.episode,
            step=self.step,
            reward=self.reward,
            episode_return=self.episode_return,
            terminated=self.terminated,
            truncated=self.truncated,
            success=self.success,
            applied_tick=self.applied_tick,
            late_ns=self.late_ns,
            late_steps=self.late_steps,
        )


class Failure(Message, frozen=True, tag="failure"):
    """The plant cannot go on, and why; said instead of a state until a reset revives it.

    Attributes:
        episode: the episode it failed in.
        code: ``unstable``: the simulation broke down.
        detail: one line for people.
    """

    episode: Count
    code: Name
    detail: Text


class Command(Message, frozen=True, tag="command"):
    """An action for the plant; one frame with it follows.

    The tick is -1 before the first. The episode is that of the observation behind it, -1 for
    any: a command of an episode that is over is dropped.
    """

    tick: TickOrNone
    episode: NumberOrNone = -1


class Reset(Message, frozen=True, tag="reset"):
    """Begin episode number ``episode``; ignored unless it is the next one."""

    seed: Count | None
    episode: Count


class Steer(Message, frozen=True, tag="steer"):
    """A person's action for the loop; one frame with it follows.

    Attributes:
        engagement: number of the taking over, raised by 1 at each; 0 leaves the policy alone.
    """

    engagement: Count


class Steered(Message, frozen=True, tag="steered"):
    """The loop's answer to a person: what it did last; one frame with the command follows.

    Attributes:
        tick: number of the tick; -1 before the first.
        mode: value of ``controller.types.Mode``.
        rung: value of ``controller.types.Rung``.
        engagement: that of the receiver while it drives, else 0.
        driver: who drives; empty while nobody does.
    """

    tick: TickOrNone
    mode: Annotated[int, msgspec.Meta(ge=0, le=255)]
    rung: Annotated[int, msgspec.Meta(ge=0, le=255)]
    engagement: Count
    driver: Name


class Bye(Message, frozen=True, tag="bye"):
    """The sender leaves."""


class Control(Message, frozen=True, tag="control"):
    """A verb for the server, with arguments."""

    verb: Name
    args: Annotated[dict[Name, Text], msgspec.Meta(max_length=16)]


class Report(Message, frozen=True, tag="report"):
    """The server's answer to a verb; ``detail`` is one JSON object."""

    verb: Name
    ok: bool
    detail: Annotated[str, msgspec.Meta(max_length=MAX_HEADER_BYTES)]


AnyMessage = (
    Hello
    | Welcome
    | Refusal
    | Ping
    | Pong
    | Ask
    | Answer
    | Reject
    | State
    | Failure
    | Command
    | Reset
    | Steer
    | Steered
    | Bye
    | Control
    | Report
    | Insert
    | Inserted
    | Draw
    | Drawn
    | Fetch
    | Files
)

_ARRAYS: dict[type[Message], tuple[int, int]] = {
    Ask: (1, MAX_ARRAYS + 1),
    State: (1, MAX_ARRAYS),
    Answer: (1, 1),
    Command: (1, 1),
    Steer: (1, 1),
    Steered: (1, 1),
    Insert: (1, 1),
    Drawn: (0, 1),
    Files: (0, MAX_FILES),
}
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message, arrays: Sequence[Array] = ()) -> list[bytes | memoryview]:
    """Return the frames of ``message`` followed by ``arrays``; long ones are not copied.

    Raises:
        WireError: the header would be longer than 64 KiB or is not expressible.
    """
    try:
        header = _ENCODER.encode(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"{type(message).__name__} cannot be encoded: {error}") from None
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(
            f"{type(message).__name__} header has {len(header)} bytes, at most "
            f"{MAX_HEADER_BYTES} are allowed"
        )
    return [header, *map(_raw, arrays)]


def decode(frames: Sequence[bytes]) -> tuple[AnyMessage, Sequence[bytes]]:
    """Return the message of frame 0 and its array frames, still raw.

    Raises:
        WireError: the frames are not a message of this protocol.
    """
    count = len(frames) - 1
    if not 0 <= count < MAX_FRAMES:
        raise WireError(f"message of {count + 1} frames, expected 1 to {MAX_FRAMES}")
    header = frames[0]
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(header)} bytes, at most {MAX_HEADER_BYTES} are allowed")
    try:
        message: AnyMessage = _DECODER.decode(header)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"header is not a message of protocol {PROTOCOL}: {error}") from None
    fewest, most = _ARRAYS.get(type(message), (0, 0))
    if not fewest <= count <= most:
        raise WireError(
            f"{type(message).__name__} with {count} arrays, expected {fewest} to {most}"
        )
    return message, frames[1:]


def one_line(text: str) -> str:
    """Return ``text`` fit for a detail field: one line, encodable, within the limit."""
    flat = " ".join(text.split()).encode("utf-8", "replace").decode()
    return flat if len(flat) <= MAX_TEXT else flat[: MAX_TEXT - 1] + "…"


def _raw(array: Array) -> bytes | memoryview:
    # Few bytes are copied sooner than seen through.
    if array.nbytes <= SHORT_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).data.cast("B")
