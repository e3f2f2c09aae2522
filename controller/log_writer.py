"""One file of a log: MCAP, one record per tick, each handed to the system at once.

The file is not chunked, so a process that is killed loses at most the record it was writing;
the library's default of chunks loses every record of the open chunk.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

import msgspec
import numpy as np
from google.protobuf.message import Message
from mcap.well_known import MessageEncoding
from mcap.writer import CompressionType, Writer
from mcap_protobuf.schema import register_schema

from controller.errors import LogError
from controller.log_messages import messages_for
from controller.log_records import Packet
from controller.log_schema import (
    CONTINUED,
    EVENT_TOPIC,
    METADATA,
    OBSERVATION_FLAGS,
    OBSERVATION_LATENESS,
    OBSERVATION_NUMBERS,
    OBSERVATION_REALS,
    STAGES,
    TICK_CHOICES,
    TICK_NUMBERS,
    TICK_TOPIC,
    LogHeader,
)
from controller.spec import ArraySpec
from controller.types import Array, Observation, Reason, TickRecord

_NUMBERS = (
    *TICK_NUMBERS,
    *(f"{stage}_ns" for stage in STAGES),
    *TICK_CHOICES,
    "mode",
    "rung",
)


class LogWriter:
    """Writes one file. A record is in it, whole, once the call that appended it has returned.

    Args:
        path: file to write; missing parents are made, an existing file is replaced.
        header: the run; dated here unless it is already.

    Attributes:
        last_ns: time of the newest record on the loop's clock.

    Raises:
        LogError: the file cannot be created.
    """

    def __init__(self, path: Path | str, header: LogHeader) -> None:
        self.path = Path(path)
        self.header = header.dated()
        self._messages = messages_for(header.spec)
        self.last_ns = 0
        try:
            self._stream = _Stream(self.path)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            self._begin()
        except OSError as error:
            self._stream.close()
            if self.path.is_file():
                self.path.unlink()
            raise _cannot_write(self.path, error) from error

    def _begin(self) -> None:
        self._writer = Writer(
            cast("IO[bytes]", self._stream),
            compression=CompressionType.NONE,
            use_chunking=False,
            enable_data_crcs=True,
        )
        self._writer.start(profile="onebeat")
        self._tick_channel = self._channel(TICK_TOPIC, self._messages.tick)
        self._event_channel = self._channel(EVENT_TOPIC, self._messages.event)
        # The library leaves channels out of the checksum until another record follows them.
        text = msgspec.json.encode(self.header).decode()
        self._writer.add_metadata(METADATA, {"header": text})

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._stream.tell()

    def tick(self, record: TickRecord) -> None:
        """Append one tick."""
        message = self._messages.tick(
            version=record.version,
            reasons=_bits(record.reasons),
            **{name: int(getattr(record, name)) for name in _NUMBERS},
        )
        action = self.header.spec.action
        _put(message, "requested", record.requested, action)
        _put(message, "executed", record.executed, action)
        self._put_observation(message.observation, record.observation)
        self._append(self._tick_channel, record.sent_ns, message, record.tick)

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> None:
        """Append one event."""
        message = self._messages.event(stamp_ns=int(stamp_ns), kind=kind, detail=detail)
        self._append(self._event_channel, stamp_ns, message)

    def append(self, packet: Packet, *, event: bool) -> None:
        """Append a message as another log has it, bit for bit."""
        self._writer.add_message(
            self._event_channel if event else self._tick_channel,
            log_time=packet.log_time,
            data=packet.data,
            publish_time=packet.publish_time,
            sequence=packet.sequence,
        )

    def finish(self, continued: str = "") -> None:
        """Write index and footer and close the file.

        Args:
            continued: name of the file in which the log goes on; empty at its end.
        """
        try:
            if continued:
                self._writer.add_metadata(CONTINUED, {"file": continued})
            self._writer.finish()  # type: ignore[no-untyped-call]
        finally:
            self._stream.close()

    def close(self) -> None:
        """Close the file as it is; what it holds can be read."""
        self._stream.close()

    def _channel(self, topic: str, message: type[Message]) -> int:
        schema = register_schema(self._writer, message)
        return self._writer.register_channel(topic, MessageEncoding.Protobuf, schema)

    def _put_observation(self, message: Message, observation: Observation) -> None:
        for name in (*OBSERVATION_NUMBERS, *OBSERVATION_FLAGS, *OBSERVATION_LATENESS):
            setattr(message, name, int(getattr(observation, name)))
        for name in OBSERVATION_REALS:
            setattr(message, name, float(getattr(observation, name)))
        arrays = zip(
            self._messages.fields, observation.arrays, self.header.spec.observation, strict=True
        )
        for field, array, spec in arrays:
            _put(message, field, array, spec)

    def _append(self, channel: int, stamp_ns: int, message: Message, sequence: int = 0) -> None:
        self.last_ns = int(stamp_ns)
        wall_ns = max(0, self.last_ns + self.header.wall_offset_ns)
        self._writer.add_message(
            channel,
            log_time=wall_ns,
            data=message.SerializeToString(),
            publish_time=wall_ns,
            sequence=int(sequence) & 0xFFFFFFFF,
        )


class _Stream:
    """A file that holds whole records only: what cannot be written in full is taken back."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
        )
        self._size = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def tell(self) -> int:
        return self._size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _cannot_write(path: Path, error: OSError) -> LogError:
    return LogError(f"cannot write the log {path}: {error.strerror or error}")


def _put(message: Message, field: str, array: Array, spec: ArraySpec) -> None:
    flat = np.ascontiguousarray(array, dtype=spec.dtype).reshape(-1)
    if flat.size != spec.size:
        raise ValueError(f"{spec.name} has {flat.size} elements, expected {spec.size}")
    if spec.dtype == "uint8":
        setattr(message, field, flat.tobytes())
    else:
        getattr(message, field).extend(flat.tolist())


@lru_cache(maxsize=256)
def _bits(reasons: int) -> tuple[int, ...]:
    return tuple(int(reason) for reason in Reason(reasons))
