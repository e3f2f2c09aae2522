"""Reading a log while it is being written: every whole record, file after file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from controller.log_parts import identity_of, part_path, parts_of
from controller.log_records import HEAD, MAGIC, Opcode, Record, record_at
from controller.log_schema import CONTINUED

_BLOCK = 1 << 20


class LogTail:
    """Follows a log from its first file to its end, whether that is there yet or not.

    The reader shares nothing with the writer but the file: however slow it is, or dead, the
    writer does not notice.

    Args:
        head: the log's first file, which may not be there yet.

    Attributes:
        ended: the end of the log was read; there will be no more.
    """

    def __init__(self, head: Path) -> None:
        self._head = head
        self._descriptor = -1
        self._part, self._run = 0, ""
        self._offset = 0
        self._continued = self._alone = False
        self.ended = False

    @property
    def path(self) -> Path:
        """The file that is read now."""
        return self._path(self._part)

    def read(self) -> Iterator[Record]:
        """Yield the whole records that were not read yet, and stop where there are none now."""
        while not self.ended:
            if self._descriptor < 0 and not self._open():
                return
            following = self._following()
            yield from self._records()
            if self.ended or following is None:
                return
            self.close()
            self._part, self._continued = following, False

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> bool:
        if not self._run:
            self._part, path = next(iter(parts_of(self._head).items()))
            self._alone = self._part > 0 and path == self._head
        about = identity_of(self._path(self._part))
        if about is None:
            return False
        self._run = self._run or about.run
        self._descriptor = os.open(self._path(self._part), os.O_RDONLY | os.O_CLOEXEC)
        self._offset = len(MAGIC)
        return True

    def _following(self) -> int | None:
        """Return the number of the next file; once there is one, this one grows no more."""
        if self._alone:
            return None
        number = self._part + 1
        about = identity_of(self._path(number))
        if about is not None and (about.run, about.part) == (self._run, number):
            return number
        # Behind one that has removed older files meanwhile.
        later = [n for n in parts_of(self._head) if n > number] if self._continued else []
        return min(later, default=None)

    def _path(self, part: int) -> Path:
        return self._head if self._alone else part_path(self._head, part)

    def _records(self) -> Iterator[Record]:
        size = _BLOCK
        while data := os.pread(self._descriptor, size, self._offset):
            start, base = 0, self._offset
            while record := record_at(data, start):
                start = record.end
                self._offset = base + start
                self._note(record)
                yield record
            if start == 0:
                wanted = HEAD.unpack_from(data)[1] + HEAD.size if len(data) >= HEAD.size else 0
                if wanted <= size:
                    return
                size = wanted

    def _note(self, record: Record) -> None:
        if record.opcode == Opcode.METADATA and record.metadata().name == CONTINUED:
            self._continued = True
        if record.opcode == Opcode.FOOTER:
            self.ended = not self._continued or self._alone
