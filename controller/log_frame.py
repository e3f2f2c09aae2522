"""Records between the loop and its recorder, as datagrams: a fixed head and raw arrays.

The loop packs a tick into a buffer that is made once. Both sides are the same program, so
numbers are in native order and there is no version to negotiate.
"""

from __future__ import annotations

import struct

import numpy as np

from controller.log_schema import (
    OBSERVATION_LATENESS,
    OBSERVATION_NUMBERS,
    OBSERVATION_REALS,
    STAGES,
    TICK_CHOICES,
    TICK_NUMBERS,
)
from controller.spec import ArraySpec, Spec
from controller.types import Array, Mode, Observation, Rung, TickRecord

TICK = ord("T")
EVENT = ord("E")
END = b"Q"
READY = b"R"
FAILED = b"!"
LOST = b"L"
MAX_TEXT = 4096
"""Longest detail of an event, in bytes."""

_NUMBERS = (*TICK_NUMBERS, "reasons", *(f"{stage}_ns" for stage in STAGES), *TICK_CHOICES)
_SEEN = (*OBSERVATION_NUMBERS, *OBSERVATION_LATENESS, *OBSERVATION_REALS)
_HEAD = struct.Struct(
    f"=4B4x{len(_NUMBERS) + len(_SEEN) - len(OBSERVATION_REALS)}q{len(OBSERVATION_REALS)}d"
)
_EVENT = struct.Struct("=BxHq")
_MAX_VERSION = 255


class TickFrame:
    """Packs and unpacks the ticks of one robot.

    Args:
        spec: the robot.
    """

    def __init__(self, spec: Spec) -> None:
        self._specs = (*spec.observation, spec.action, spec.action)
        self._offsets, self._end = _place(self._specs)
        self._buffer = bytearray(self.max_bytes)
        self._views = self._arrays(self._buffer)

    @property
    def max_bytes(self) -> int:
        """Length of the longest datagram."""
        return max(self._end + _MAX_VERSION, _EVENT.size + MAX_TEXT)

    def pack(self, record: TickRecord) -> memoryview:
        """Return the record's datagram, valid until the next call.

        Raises:
            ValueError: an array has not the shape of the spec.
        """
        seen = record.observation
        version = record.version.encode("utf-8", "replace")[:_MAX_VERSION]
        _HEAD.pack_into(
            self._buffer,
            0,
            TICK,
            record.mode,
            record.rung,
            bool(seen.terminated) | bool(seen.truncated) << 1 | bool(seen.success) << 2,
            record.tick,
            record.deadline_ns,
            record.sent_ns,
            record.answer_tick,
            record.evaluations,
            record.reasons,
            record.wake_ns,
            record.observe_ns,
            record.transport_ns,
            record.queue_ns,
            record.infer_ns,
            record.act_ns,
            record.total_ns,
            record.candidates,
            record.batch,
            record.rtt_ns,
            record.prefix,
            seen.stamp_ns,
            seen.episode,
            seen.step,
            seen.applied_tick,
            seen.late_ns,
            seen.late_steps,
            seen.reward,
            seen.episode_return,
        )
        arrays = (*seen.arrays, record.requested, record.executed)
        for view, array in zip(self._views, arrays, strict=True):
            view[...] = array
        end = self._end + len(version)
        self._buffer[self._end : end] = version
        return memoryview(self._buffer)[:end]

    def unpack(self, datagram: memoryview) -> TickRecord:
        """Return the record of a datagram, with arrays of its own."""
        _, mode, rung, flags, *rest = _HEAD.unpack_from(datagram)
        cut = len(_NUMBERS)
        numbers = dict(zip(_NUMBERS, rest[:cut], strict=True))
        seen = dict(zip(_SEEN, rest[cut:], strict=True))
        *arrays, requested, executed = (view.copy() for view in self._arrays(datagram))
        return TickRecord(
            mode=Mode(mode),
            rung=Rung(rung),
            observation=Observation(
                arrays=tuple(arrays),
                terminated=bool(flags & 1),
                truncated=bool(flags & 2),
                success=bool(flags & 4),
                **seen,
            ),
            requested=requested,
            executed=executed,
            version=bytes(datagram[self._end :]).decode("utf-8", "replace"),
            **numbers,
        )

    def _arrays(self, buffer: bytearray | memoryview) -> list[Array]:
        return [
            np.frombuffer(buffer, spec.dtype, spec.size, offset).reshape(spec.shape)
            for spec, offset in zip(self._specs, self._offsets, strict=True)
        ]


def pack_event(stamp_ns: int, kind: str, detail: str) -> bytes:
    """Return the datagram of an event; a detail over ``MAX_TEXT`` bytes is cut."""
    name = kind.encode("utf-8", "replace")[:255]
    text = detail.encode("utf-8", "replace")[: MAX_TEXT - len(name)]
    return _EVENT.pack(EVENT, len(name), stamp_ns) + name + text


def unpack_event(datagram: memoryview) -> tuple[int, str, str]:
    """Return (stamp_ns, kind, detail)."""
    _, length, stamp_ns = _EVENT.unpack_from(datagram)
    text = bytes(datagram[_EVENT.size :])
    return (
        stamp_ns,
        text[:length].decode("utf-8", "replace"),
        text[length:].decode("utf-8", "replace"),
    )


def _place(specs: tuple[ArraySpec, ...]) -> tuple[list[int], int]:
    offsets, end = [], _HEAD.size
    for spec in specs:
        offsets.append(end)
        end += -(-spec.nbytes // 8) * 8
    return offsets, end
