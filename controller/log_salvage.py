"""Finding the records of a damaged file.

Every record says how long it is, so that one damaged record costs itself alone. Where a length is
damaged, the next record is searched for byte by byte; what lies before it is then tried as one
record. A message is believed when it decodes as one of this robot's and the times and the number
outside of it are those inside.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.errors import LogError
from controller.log_columns import check_tick
from controller.log_messages import messages_for
from controller.log_reader import DAMAGE, decode_header
from controller.log_records import HEAD, Opcode, Packet, Record, data_end_crc, record_at
from controller.log_schema import CONTINUED, METADATA, LogHeader

TICKS, EVENTS = 1, 2
"""Channels as the writer numbers them."""
_MARK = len(METADATA).to_bytes(4, "little") + METADATA.encode()
_DATA_END = HEAD.pack(Opcode.DATA_END, 4)
_MESSAGE_OPCODE = bytes([Opcode.MESSAGE])
_CHANNELS = frozenset(channel.to_bytes(2, "little") for channel in (TICKS, EVENTS))
_CONTINUED = len(CONTINUED).to_bytes(4, "little") + CONTINUED.encode()
_OPCODES = frozenset((Opcode.MESSAGE, Opcode.METADATA, Opcode.DATA_END))
"""What stands behind the header."""


@dataclass(frozen=True)
class Hole:
    """Bytes of a file that are no records.

    Attributes:
        file: name of the file.
        start: offset of the first byte.
        size: number of bytes.
    """

    file: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}: {self.size} bytes at {self.start} cannot be read"


@dataclass(frozen=True)
class Found:
    """A message that was found.

    Attributes:
        packet: the message, bit for bit.
        message: the same, decoded.
        is_event: whether it is an event.
        after_hole: whether bytes before it could not be read.
    """

    packet: Packet
    message: Any
    is_event: bool
    after_hole: bool = False


def find_header(data: bytes, path: Path) -> tuple[LogHeader, int] | None:
    """Return the header in a file and the offset behind it, None where it cannot be read."""
    mark = -1
    while (mark := data.find(_MARK, mark + 1)) >= 0:
        length = int.from_bytes(data[mark + len(_MARK) :][:4], "little")
        end = mark + len(_MARK) + 4 + length
        if end > len(data):
            continue
        try:
            text = Record(Opcode.METADATA, mark, data[mark:end], end).metadata().metadata["header"]
            return decode_header(text, path), end
        except (LogError, *DAMAGE):
            continue
    return None


class Salvage:
    """The messages of one file.

    Args:
        data: the file.
        name: of the file.
        header: of the run.
        start: offset behind the header.

    Attributes:
        holes: what could not be read, filled in while the messages are taken.
        mended: records whose opcode or length was wrong, and could be guessed.
        complete: whether the end of the data was found.
        doubtful: whether the checksum does not fit although every record could be read.
        continued: whether the file says that the log goes on in a further one.
    """

    def __init__(self, data: bytes, name: str, header: LogHeader, start: int) -> None:
        self._data, self._name, self._start = data, name, start
        self._spec, self._offset_ns = header.spec, header.wall_offset_ns
        self._messages = messages_for(header.spec)
        self._newest: tuple[Record | None, Found | None] = (None, None)
        self.holes: list[Hole] = []
        self.mended = 0
        self.complete = self.doubtful = self.continued = False

    def messages(self) -> Iterator[Found]:
        """Yield what can be read, in the order of the file."""
        position, broken = self._start, False
        while position < len(self._data) and not self.complete:
            record = self._record(position)
            if record is None:
                end = self._next(position + 1)
                self.holes.append(Hole(self._name, position, end - position))
                position, broken = end, True
                continue
            position = record.end
            found = self._decoded(record)
            if found is None:
                self._take_other(record)
            else:
                yield replace(found, after_hole=broken)
                broken = False

    def _record(self, start: int) -> Record | None:
        """Return the record at an offset, mended if need be; None where there is none."""
        record = record_at(self._data, start)
        if record and self._is_sound(record) and self._is_followed(record):
            return record
        end = self._next(start + 1)
        mended = Record(Opcode.MESSAGE, start, self._data[start + HEAD.size : end], end)
        found = self._decoded(mended) if end < len(self._data) else None
        # A tick that lost its end would decode; its round trip, among the last fields, is not 0.
        if found and (found.is_event or found.message.rtt_ns):
            self.mended += 1
            return mended
        # One that reaches into the next message has lost a byte, and took that one's for it.
        whole = record is not None and record.end <= end and self._decoded(record)
        return record if whole else None

    def _next(self, start: int) -> int:
        """Return the offset of the next sound message, or of the end of the data."""
        last = self._data.find(_DATA_END, start)
        last = len(self._data) if last < 0 else last
        while 0 <= (start := self._data.find(_MESSAGE_OPCODE, start)) < last:
            record = record_at(self._data, start)
            if record and record.content[:2] in _CHANNELS and self._decoded(record):
                return start
            start += 1
        return last

    def _is_sound(self, record: Record) -> bool:
        match record.opcode:
            case Opcode.MESSAGE:
                return self._decoded(record) is not None
            case Opcode.METADATA:
                return record.content.startswith(_CONTINUED)
            case Opcode.DATA_END:
                return len(record.content) == 4
        return False

    def _is_followed(self, record: Record) -> bool:
        """Return whether behind a record stands what may stand there."""
        if record.opcode == Opcode.DATA_END or record.end == len(self._data):
            return True
        following = record_at(self._data, record.end)
        return following is not None and following.opcode in _OPCODES

    def _decoded(self, record: Record) -> Found | None:
        """Return the message of a record, None where it is none or contradicts itself."""
        if record.opcode != Opcode.MESSAGE:
            return None
        if self._newest[0] != record:
            self._newest = record, self._decode(record)
        return self._newest[1]

    def _decode(self, record: Record) -> Found | None:
        try:
            packet = record.packet()
            is_event = packet.channel_id == EVENTS
            if is_event:
                message = self._messages.event.FromString(packet.data)
                stamp_ns, number = message.stamp_ns, 0
            else:
                message = check_tick(self._messages, self._spec, packet.data)
                stamp_ns, number = message.sent_ns, message.tick & 0xFFFFFFFF
        except DAMAGE:
            return None
        wall_ns = max(0, stamp_ns + self._offset_ns)
        envelope = (packet.sequence, packet.log_time, packet.publish_time)
        honest = packet.channel_id in (TICKS, EVENTS) and envelope == (number, wall_ns, wall_ns)
        return Found(packet, message, is_event) if honest else None

    def _take_other(self, record: Record) -> None:
        if record.opcode == Opcode.METADATA:
            self.continued = True
        elif record.opcode == Opcode.DATA_END:
            self.complete = True
            told = data_end_crc(record)
            fits = told in (0, zlib.crc32(self._data[: record.start]))
            self.doubtful = not (fits or self.holes or self.mended)
