"""The records of an MCAP file, one by one: opcode, length, content.

Layout after the MCAP specification, version 0 (https://mcap.dev/spec): eight bytes of magic, then
records of a byte of opcode, eight bytes of length and as many of content, little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple, cast

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Metadata, Schema
from mcap.writer import MCAP0_MAGIC as MAGIC

__all__ = ["MAGIC", "Opcode", "Packet", "Record", "RecordStream", "data_end_crc", "record_at"]

HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_CRC = struct.Struct("<I")


class Record(NamedTuple):
    """One record.

    Attributes:
        opcode: kind of record.
        start: offset of its first byte in the file.
        content: what follows opcode and length.
        end: offset of the byte after it.
    """

    opcode: int
    start: int
    content: bytes
    end: int

    def channel(self) -> Channel:
        """Decode a channel; any exception means damage."""
        return cast("Channel", Channel.read(_stream(self.content)))

    def schema(self) -> Schema:
        """Decode a schema; any exception means damage."""
        return cast("Schema", Schema.read(_stream(self.content)))

    def metadata(self) -> Metadata:
        """Decode metadata; any exception means damage."""
        return cast("Metadata", Metadata.read(_stream(self.content)))

    def packet(self) -> Packet:
        """Decode a message.

        Raises:
            struct.error: it is too short for one.
        """
        channel_id, sequence, log_time, publish_time = _MESSAGE.unpack_from(self.content)
        data = self.content[_MESSAGE.size :]
        return Packet(channel_id, sequence, log_time, publish_time, data)


class Packet(NamedTuple):
    """One message, not decoded: its channel, its number, two times and what it carries."""

    channel_id: int
    sequence: int
    log_time: int
    publish_time: int
    data: bytes


class RecordStream:
    """The records of an open file from its magic on, until the first that is not whole.

    Args:
        stream: at the beginning of the file, behind the magic.
        size: length of the file; what is appended later is not looked at.

    Attributes:
        crc: checksum of everything before the newest record, as ``DataEnd`` has it.
        offset: where the next record begins.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size
        self.offset = len(MAGIC)
        self.crc = self._crc = zlib.crc32(MAGIC)

    def __iter__(self) -> Iterator[Record]:
        """Yield whole records.

        Raises:
            ValueError: a length that no record of this file can have.
        """
        while self.offset + HEAD.size <= self._size:
            head = self._stream.read(HEAD.size)
            if len(head) < HEAD.size:
                return
            opcode, length = HEAD.unpack(head)
            end = self.offset + HEAD.size + length
            if length > self._size:
                raise ValueError(f"a record of {length} bytes at {self.offset}")
            content = self._stream.read(length) if end <= self._size else b""
            if end > self._size or len(content) < length:
                return
            start, self.offset = self.offset, end
            self.crc, self._crc = self._crc, zlib.crc32(content, zlib.crc32(head, self._crc))
            yield Record(opcode, start, content, end)


def record_at(data: bytes, start: int) -> Record | None:
    """Return the record that begins at ``start``, None where the data end before it does."""
    if start + HEAD.size > len(data):
        return None
    opcode, length = HEAD.unpack_from(data, start)
    begin = start + HEAD.size
    if begin + length > len(data):
        return None
    return Record(opcode, start, data[begin : begin + length], begin + length)


def data_end_crc(record: Record) -> int:
    """Return the checksum that the end of the data carries, 0 for none."""
    value: int = _CRC.unpack_from(record.content)[0]
    return value


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(content))
