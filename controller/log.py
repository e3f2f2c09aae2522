"""The writer of run logs: one file, or several of a given size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from controller.errors import LogError
from controller.log_parts import part_path
from controller.log_schema import LogHeader
from controller.log_settings import LogSettings
from controller.log_writer import LogWriter
from controller.types import TickRecord

__all__ = ["LogFiles", "LogHeader", "McapSink"]

IN_ONE_FILE = LogSettings()


class LogFiles:
    """Writes a log, in one file or in several of a given size.

    The next file is begun before the last one is finished, and a record is in one of them, so
    that no moment of a kill loses or doubles one.

    Args:
        head: the first file.
        header: the run; dated here unless it is already.
        settings: when to begin a further file, and how many to keep.
        part: number of the file to begin with.

    Raises:
        LogError: the file cannot be created.
    """

    def __init__(
        self,
        head: Path | str,
        header: LogHeader,
        settings: LogSettings = IN_ONE_FILE,
        part: int = 0,
    ) -> None:
        self._head = Path(head)
        self._header = header.dated()
        self._max_bytes, self._keep = settings.max_bytes, settings.keep
        self.part = part
        self._writer = self._begin(part)

    def tick(self, record: TickRecord) -> None:
        """Append one tick."""
        self._room().tick(record)

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> None:
        """Append one event."""
        self._room().event(stamp_ns, kind, detail)

    def late_event(self, kind: str, detail: str) -> None:
        """Append an event at the time of the newest record: there is no clock to ask."""
        self.event(self._writer.last_ns, kind, detail)

    def finish(self) -> None:
        """Write index and footer and close the file."""
        self._writer.finish()

    def close(self) -> None:
        """Close the file as it is, after a failed write."""
        self._writer.close()

    def _room(self) -> LogWriter:
        if self._max_bytes is not None and self._writer.size >= self._max_bytes:
            following = self._begin(self.part + 1)
            following.last_ns = self._writer.last_ns
            self._writer.finish(continued=following.path.name)
            self._writer, self.part = following, self.part + 1
            self._remove_old()
        return self._writer

    def _begin(self, part: int) -> LogWriter:
        first = max(0, part + 1 - self._keep) if self._keep else 0
        header = msgspec.structs.replace(self._header, part=part, first_part=first)
        return LogWriter(part_path(self._head, part), header)

    def _remove_old(self) -> None:
        if self._keep and (old := self.part - self._keep) >= 0:
            part_path(self._head, old).unlink(missing_ok=True)


class McapSink:
    """Writes the log in the calling process: for lockstep, where nobody waits for the beat.

    Args:
        path: file to write.
        header: the run.
        settings: when to begin a further file, and how many to keep.

    Raises:
        LogError: the file cannot be created.
    """

    def __init__(
        self, path: Path | str, header: LogHeader, settings: LogSettings = IN_ONE_FILE
    ) -> None:
        self.path = Path(path)
        self._files: LogFiles | None = LogFiles(path, header, settings)
        self.dropped = 0

    def tick(self, record: TickRecord) -> bool:
        """Write one tick; False once the log is closed.

        Raises:
            LogError: the disk is full, or fails; the log so far can be read.
        """
        if self._files is not None:
            with self._told():
                self._files.tick(record)
        return self._files is not None

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Write one event; False once the log is closed.

        Raises:
            LogError: as for a tick.
        """
        if self._files is not None:
            with self._told():
                self._files.event(stamp_ns, kind, detail)
        return self._files is not None

    def close(self) -> None:
        """Finish the log; safe to call twice."""
        files, self._files = self._files, None
        if files is not None:
            with self._told():
                files.finish()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            files, self._files = self._files, None
            if files is not None:
                files.close()
            reason = error.strerror or error
            raise LogError(f"cannot write the log {self.path}: {reason}") from error
