"""The reader of run logs, finished or not.

A log whose writer was killed, or is still at work, ends in the middle of a record and has no
index. So every file is read record by record from the front, and what lies before the first
incomplete record is what it holds. A log in several files is read as one.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec
from google.protobuf.message import DecodeError
from mcap.exceptions import McapError

from controller.errors import LogError
from controller.log_columns import Columns
from controller.log_parts import header_text, log_at, part_path, parts_of
from controller.log_records import MAGIC, Opcode, Record, RecordStream, data_end_crc
from controller.log_schema import CONTINUED, EVENT_TOPIC, FORMAT, METADATA, TICK_TOPIC, LogHeader
from controller.run_log import RunLog

__all__ = ["DAMAGE", "RunLog", "decode_header", "read_header", "read_log"]

DAMAGE = (McapError, DecodeError, struct.error, ValueError, OverflowError, KeyError, IndexError)
"""What decoding a damaged record may raise."""
_OTHER = "is an MCAP file, but not the log of a run"


def read_log(path: Path | str) -> RunLog:
    """Read a run log, finished, unfinished or cut, in one file or in several.

    Args:
        path: the first file, which stands for all of them even where it is gone; a later one,
            for itself alone; or the directory of a run.

    Raises:
        LogError: no such file, or not the log of a run, or cut within its header.
    """
    head = log_at(Path(path))
    parts = parts_of(head)
    files: dict[int, _File] = {}
    faults: list[str] = []
    columns: Columns | None = None
    for number, place in parts.items():
        file = _File(place, columns)
        try:
            file.read()
        except LogError as error:
            if len(parts) == 1:
                raise
            faults.append(str(error))
            continue
        files[number], columns = file, file.columns
    if columns is None:
        raise LogError("; ".join(faults))
    faults += _faults_of(files, alone=len(parts) == 1)
    faults += [
        f"{part_path(head, number).name} is missing" for number in _missing(parts, files, head)
    ]
    _mark_breaks(files)
    return columns.log(head, "; ".join(faults))


def read_header(path: Path | str) -> LogHeader:
    """Return the header of a log without its ticks.

    Args:
        path: as for :func:`read_log`.

    Raises:
        LogError: no such file, or not the log of a run, or cut within its header.
    """
    head = log_at(Path(path))
    for file in parts_of(head).values():
        text = header_text(file)
        if text is not None:
            return decode_header(text, file)
    return read_log(head).header


def decode_header(text: str, path: Path) -> LogHeader:
    """Return the header of a log from its text.

    Raises:
        LogError: it is of a later version, or damaged.
    """
    try:
        found = msgspec.json.decode(text, type=_Format).format
        if found > FORMAT:
            raise LogError(f"{path} has log format {found}, this version reads up to {FORMAT}")
        return msgspec.json.decode(text, type=LogHeader)
    except (msgspec.MsgspecError, TypeError) as error:
        raise LogError(f"{path} has a damaged header: {_line(error)}") from error


class _File:
    """One file of a log.

    Args:
        path: the file.
        columns: of the files before it, which are continued; None for the first.

    Attributes:
        columns: what it holds, and what those before it do.
        begins: first row of its own.
        damage: why it is not complete, empty when it is.
        continued: whether it says that the log goes on in a further file.
        first_part: number of the oldest file that was kept when it was begun.
    """

    def __init__(self, path: Path, columns: Columns | None) -> None:
        self.path = path
        self.columns = columns
        self.begins = len(columns) if columns else 0
        self.damage = ""
        self.continued = False
        self.first_part = 0
        self._begun = self._finished = False
        self._topics: dict[int, str] = {}

    def read(self) -> None:
        """Take every whole record.

        Raises:
            LogError: not the log of a run.
        """
        try:
            with open(self.path, "rb") as stream:
                self._read(stream)
        except OSError as error:
            raise LogError(f"cannot read the log {self.path}: {error.strerror or error}") from error

    def _read(self, stream: BinaryIO) -> None:
        self._check_magic(stream.read(len(MAGIC)))
        records = RecordStream(stream, os.fstat(stream.fileno()).st_size)
        try:
            for record in records:
                self._take(record, records.crc)
                if record.opcode == Opcode.FOOTER:
                    self._finished = stream.read(len(MAGIC)) == MAGIC
                    break
        except LogError:
            raise
        except DAMAGE as error:
            self.damage = f"it is damaged after {self._ticks} ticks ({_line(error)})"
        if not self._begun:
            what = _OTHER if self._finished else "ends within its header"
            raise LogError(f"{self.path} {what}")
        if not self._finished:
            self.damage = self.damage or f"it was not finished: it ends after {self._ticks} ticks"

    @property
    def _ticks(self) -> int:
        return len(self.columns or ()) - self.begins

    def _check_magic(self, magic: bytes) -> None:
        if not magic:
            raise LogError(f"{self.path} is empty, expected the log of a run")
        if magic != MAGIC:
            cut = MAGIC.startswith(magic)
            what = "ends within its header" if cut else "is not an MCAP file"
            raise LogError(f"{self.path} {what}, expected the log of a run")

    def _take(self, record: Record, crc: int) -> None:
        kind = record.opcode
        if kind == Opcode.CHANNEL:
            channel = record.channel()
            self._topics[channel.id] = channel.topic
        elif kind == Opcode.METADATA:
            self._take_metadata(record)
        elif kind == Opcode.MESSAGE:
            self._take_message(record)
        elif kind == Opcode.DATA_END and data_end_crc(record) not in (0, crc):
            self.damage = "its checksum does not fit: bytes have changed since it was written"

    def _take_metadata(self, record: Record) -> None:
        found = record.metadata()
        if found.name == METADATA and not self._begun:
            self._begin(decode_header(found.metadata.get("header", ""), self.path))
        elif found.name == CONTINUED:
            self.continued = True

    def _begin(self, header: LogHeader) -> None:
        if self.columns is None:
            try:
                self.columns = Columns(header)
            except TypeError as error:
                raise LogError(f"{self.path} has a damaged header: {_line(error)}") from error
        self.columns.header.spec.require(header.spec, "the log's first file", str(self.path))
        self.first_part, self._begun = header.first_part, True

    def _take_message(self, record: Record) -> None:
        if not self._begun or self.columns is None:
            raise LogError(f"{self.path} {_OTHER}")
        packet = record.packet()
        topic = self._topics.get(packet.channel_id)
        if topic == TICK_TOPIC:
            self.columns.tick(packet.data)
        elif topic == EVENT_TOPIC:
            self.columns.event(packet.data)


class _Format(msgspec.Struct):
    """The one field of a header that every version has."""

    format: int


def _faults_of(files: dict[int, _File], *, alone: bool) -> list[str]:
    damaged = [file for file in files.values() if file.damage]
    return [file.damage if alone else f"{file.path.name}: {file.damage}" for file in damaged]


def _missing(parts: dict[int, Path], files: dict[int, _File], head: Path) -> list[int]:
    """Return the numbers of files that were there once and were not removed on purpose."""
    last = max(files)
    if last and parts[last] == head:
        return []  # A later file that was named itself.
    expected = range(files[last].first_part, last + 1 + files[last].continued)
    return [number for number in expected if number not in parts]


def _mark_breaks(files: dict[int, _File]) -> None:
    numbers = list(files)
    for before, number in pairwise(numbers):
        file = files[number]
        if (number != before + 1 or files[before].damage) and file.columns:
            file.columns.breaks.append(file.begins)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
