"""The writer of run logs: one MCAP file, one flushed record per tick.

The file is not chunked, so a process that is killed loses at most the record it was writing;
the library's default of chunks loses every record of the open chunk.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from google.protobuf.message import Message
from mcap.well_known import MessageEncoding
from mcap.writer import CompressionType, Writer
from mcap_protobuf.schema import register_schema

from controller.errors import LogError
from controller.log_messages import messages_for
from controller.log_schema import (
    EVENT_TOPIC,
    METADATA,
    OBSERVATION_FLAGS,
    OBSERVATION_LATENESS,
    OBSERVATION_NUMBERS,
    OBSERVATION_REALS,
    STAGES,
    TICK_NUMBERS,
    TICK_TOPIC,
    LogHeader,
)
from controller.spec import ArraySpec
from controller.types import Array, Observation, Reason, TickRecord

__all__ = ["LogHeader", "LogWriter", "McapSink"]

_NUMBERS = (*TICK_NUMBERS, *(f"{stage}_ns" for stage in STAGES), "mode", "rung")


class LogWriter:
    """Writes one log. Records are in the file once :meth:`flush` has returned.

    Args:
        path: file to write; missing parents are made, an existing file is replaced.
        header: the run; dated here unless it is already.

    Raises:
        LogError: the file cannot be created.
    """

    def __init__(self, path: Path | str, header: LogHeader) -> None:
        self.path = Path(path)
        self.header = header.dated()
        self._messages = messages_for(header.spec)
        self._stream = _create(self.path)
        self._writer = Writer(
            self._stream,
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
        self._last_ns = 0
        self.flush()

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

    def late_event(self, kind: str, detail: str) -> None:
        """Append an event at the time of the newest record: there is no clock to ask."""
        self.event(self._last_ns, kind, detail)

    def flush(self) -> None:
        """Hand everything so far to the operating system."""
        self._stream.flush()

    def finish(self) -> None:
        """Write index and footer and close the file."""
        self._writer.finish()  # type: ignore[no-untyped-call]
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
        self._last_ns = int(stamp_ns)
        wall_ns = max(0, self._last_ns + self.header.wall_offset_ns)
        self._writer.add_message(
            channel,
            log_time=wall_ns,
            data=message.SerializeToString(),
            publish_time=wall_ns,
            sequence=int(sequence) & 0xFFFFFFFF,
        )


class McapSink:
    """Writes the log in the calling process: for lockstep, where nobody waits for the beat.

    Args:
        path: file to write.
        header: the run.

    Raises:
        LogError: the file cannot be created.
    """

    def __init__(self, path: Path | str, header: LogHeader) -> None:
        self._writer: LogWriter | None = LogWriter(path, header)
        self.dropped = 0

    def tick(self, record: TickRecord) -> bool:
        """Write one tick; False once the log is closed."""
        if self._writer is None:
            return False
        self._writer.tick(record)
        self._writer.flush()
        return True

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Write one event; False once the log is closed."""
        if self._writer is None:
            return False
        self._writer.event(stamp_ns, kind, detail)
        self._writer.flush()
        return True

    def close(self) -> None:
        """Finish the log; safe to call twice."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.finish()


def _create(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")
    except OSError as error:
        raise LogError(f"cannot write the log {path}: {error.strerror or error}") from error


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
