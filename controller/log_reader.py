"""The reader of run logs, finished or not.

A log whose writer was killed, or is still at work, ends in the middle of a record and has no
index. So every log is read record by record from the front, and what lies before the first
incomplete record is the log.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, BinaryIO, cast

import msgspec
import numpy as np
from google.protobuf.message import DecodeError
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Header, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader
from mcap.writer import MCAP0_MAGIC
from numpy.typing import NDArray

from controller.errors import LogError
from controller.log_messages import Messages, messages_for
from controller.log_schema import (
    EVENT_TOPIC,
    FORMAT,
    METADATA,
    OBSERVATION_FLAGS,
    OBSERVATION_LATENESS,
    OBSERVATION_NUMBERS,
    OBSERVATION_REALS,
    STAGES,
    TICK_NUMBERS,
    TICK_TOPIC,
    Event,
    LogHeader,
)
from controller.run_log import RunLog
from controller.spec import ArraySpec
from controller.types import Array, Mode, Rung

__all__ = ["RunLog", "read_log"]

_DAMAGE = (McapError, DecodeError, CRCValidationError, struct.error, ValueError, OverflowError)
_STAGE_FIELDS = tuple(f"{stage}_ns" for stage in STAGES)
_TICK_FIELDS = (*TICK_NUMBERS, "mode", "rung", *_STAGE_FIELDS)
_SEEN_FIELDS = (*OBSERVATION_NUMBERS, *OBSERVATION_FLAGS, *OBSERVATION_LATENESS)
_OTHER = "is an MCAP file, but not the log of a run"


def read_log(path: Path | str) -> RunLog:
    """Read a run log, finished, unfinished or cut.

    Raises:
        LogError: no such file, or not the log of a run, or cut within its header.
    """
    path = Path(path)
    parser = _Parser(path)
    try:
        with open(path, "rb") as stream:
            parser.read(stream)
        return parser.log()
    except OSError as error:
        raise LogError(f"cannot read the log {path}: {error.strerror or error}") from error


class _Whole:
    """A stream that never returns less than was asked for.

    The library's reader takes a short read for a whole record.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.left = os.fstat(stream.fileno()).st_size

    def read(self, length: int) -> bytes:
        if length > self.left:
            raise EndOfFile
        data = self._stream.read(length)
        if len(data) < length:
            raise EndOfFile
        self.left -= length
        return data


class _Parser:
    """Collects the records of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: LogHeader | None = None
        self.damage = ""
        self.events: list[Event] = []
        self.rows: list[list[int]] = []
        self.seen: list[list[int]] = []
        self.reals: list[list[float]] = []
        self.reasons: list[int] = []
        self.versions: list[str] = []
        self.actions: tuple[list[Array], list[Array]] = ([], [])
        self.arrays: list[list[Array]] = []
        self._messages: Messages | None = None
        self._topics: dict[int, str] = {}

    def read(self, stream: BinaryIO) -> None:
        """Take every whole record."""
        self._check_magic(stream.read(len(MCAP0_MAGIC)))
        stream.seek(0)
        whole = _Whole(stream)
        reader = StreamReader(
            cast("IO[bytes]", whole), validate_crcs=True, record_size_limit=whole.left
        )
        try:
            for record in reader.records:
                self._take(record)
        except LogError:
            raise
        except CRCValidationError:
            self.damage = "its checksum does not fit: bytes have changed since it was written"
        except EndOfFile:
            self.damage = f"it was not finished: it ends after {len(self.rows)} ticks"
        except _DAMAGE as error:
            self.damage = f"it is damaged after {len(self.rows)} ticks ({_line(error)})"
        if self.header is None:
            what = "ends within its header" if self.damage else _OTHER
            raise LogError(f"{self.path} {what}")

    def log(self) -> RunLog:
        """Return the columns."""
        assert self.header is not None
        spec = self.header.spec
        numbers = dict(zip(_TICK_FIELDS, _columns(self.rows, len(_TICK_FIELDS)), strict=True))
        seen = dict(zip(_SEEN_FIELDS, _columns(self.seen, len(_SEEN_FIELDS)), strict=True))
        flags = {name: seen.pop(name).astype(np.bool_) for name in OBSERVATION_FLAGS}
        reals = np.array(self.reals, dtype=np.float64).reshape(-1, len(OBSERVATION_REALS)).T
        requested, executed = (_stack(column, spec.action) for column in self.actions)
        return RunLog(
            path=self.path,
            header=self.header,
            events=tuple(self.events),
            truncated=bool(self.damage),
            damage=self.damage,
            reasons=np.array(self.reasons, dtype=np.int64),
            versions=tuple(self.versions),
            stages={stage: numbers.pop(f"{stage}_ns") for stage in STAGES},
            observations={
                array.name: _stack(column, array)
                for array, column in zip(spec.observation, self.arrays, strict=True)
            },
            requested=requested,
            executed=executed,
            truncations=flags.pop("truncated"),
            **numbers,
            **seen,
            **flags,
            **dict(zip(OBSERVATION_REALS, np.ascontiguousarray(reals), strict=True)),
        )

    def _check_magic(self, magic: bytes) -> None:
        if not magic:
            raise LogError(f"{self.path} is empty, expected the log of a run")
        if magic != MCAP0_MAGIC:
            cut = MCAP0_MAGIC.startswith(magic)
            what = "ends within its header" if cut else "is not an MCAP file"
            raise LogError(f"{self.path} {what}, expected the log of a run")

    def _take(self, record: McapRecord) -> None:
        if isinstance(record, (Header, Schema)):
            return
        if isinstance(record, Channel):
            self._topics[record.id] = record.topic
        elif self.header is None:
            self._take_header(record)
        elif isinstance(record, Message):
            topic = self._topics.get(record.channel_id)
            if topic == TICK_TOPIC:
                self._take_tick(record.data)
            elif topic == EVENT_TOPIC:
                self._take_event(record.data)

    def _take_header(self, record: McapRecord) -> None:
        if not isinstance(record, Metadata) or record.name != METADATA:
            raise LogError(f"{self.path} {_OTHER}")
        text = record.metadata.get("header", "")
        try:
            found = msgspec.json.decode(text, type=_Format).format
            if found > FORMAT:
                raise LogError(
                    f"{self.path} has log format {found}, this version reads up to {FORMAT}"
                )
            self.header = msgspec.json.decode(text, type=LogHeader)
            self._messages = messages_for(self.header.spec)
        except (msgspec.MsgspecError, TypeError) as error:
            raise LogError(f"{self.path} has a damaged header: {_line(error)}") from error
        self.arrays = [[] for _ in self.header.spec.observation]

    def _take_tick(self, data: bytes) -> None:
        assert self.header is not None
        assert self._messages is not None
        message = self._messages.tick.FromString(data)
        seen = message.observation
        spec = self.header.spec
        row = [getattr(message, name) for name in _TICK_FIELDS]
        Mode(message.mode), Rung(message.rung)
        arrays = [
            _array(seen, name, array)
            for name, array in zip(self._messages.fields, spec.observation, strict=True)
        ]
        requested = _array(message, "requested", spec.action)
        executed = _array(message, "executed", spec.action)
        self.rows.append(row)
        self.reasons.append(sum(message.reasons))
        self.versions.append(message.version)
        self.seen.append([getattr(seen, name) for name in _SEEN_FIELDS])
        self.reals.append([getattr(seen, name) for name in OBSERVATION_REALS])
        self.actions[0].append(requested)
        self.actions[1].append(executed)
        for column, array in zip(self.arrays, arrays, strict=True):
            column.append(array)

    def _take_event(self, data: bytes) -> None:
        assert self._messages is not None
        message = self._messages.event.FromString(data)
        self.events.append(Event(message.stamp_ns, message.kind, message.detail))


class _Format(msgspec.Struct):
    """The one field of a header that every version has."""

    format: int


def _columns(rows: list[list[int]], width: int) -> NDArray[np.int64]:
    return np.ascontiguousarray(np.array(rows, dtype=np.int64).reshape(-1, width).T)


def _array(message: object, field: str, spec: ArraySpec) -> Array:
    values = getattr(message, field)
    if len(values) != spec.size:
        raise ValueError(f"{spec.name} has {len(values)} elements, expected {spec.size}")
    if spec.dtype == "uint8":
        return np.frombuffer(values, dtype=np.uint8)
    return np.fromiter(values, dtype=spec.dtype, count=spec.size)


def _stack(rows: list[Array], spec: ArraySpec) -> Array:
    return np.array(rows, dtype=spec.dtype).reshape(len(rows), *spec.shape)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
