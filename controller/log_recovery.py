"""Writing what can be read of a log, cut, unfinished or damaged, into a new and finished one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import LogError
from controller.log_parts import RECOVERED, log_at, part_path, parts_of
from controller.log_salvage import Found, Hole, Salvage, find_header
from controller.log_schema import DROPPED, Drop, LogHeader
from controller.log_writer import LogWriter

EVENT = "recovered"
"""Kind of the event with which a recovered log ends: what it was made of, and what is missing."""


@dataclass
class Recovery:
    """What was saved, and what was lost.

    Attributes:
        log: the log that was read.
        out: the log that was written.
        ticks: ticks in it.
        events: events in it, as they were recorded.
        holes: bytes that could not be read.
        mended: records that could be read although their opcode or length was wrong.
        lost: ticks that are missing by their numbers; what came after the last one cannot be
            counted.
        remarks: what else a reader should know, one line each.
    """

    log: Path
    out: Path
    ticks: int = 0
    events: int = 0
    holes: list[Hole] = field(default_factory=list)
    mended: int = 0
    lost: int = 0
    remarks: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return what ``onebeat data recover`` shows."""
        return {
            "log": str(self.log),
            "out": str(self.out),
            "ticks": self.ticks,
            "events": self.events,
            "lost_ticks": self.lost,
            "mended_records": self.mended,
            "unreadable_bytes": sum(hole.size for hole in self.holes),
            "unreadable": [str(hole) for hole in self.holes],
            "remarks": self.remarks,
        }


def recover(log: Path | str, out: Path | str | None = None) -> Recovery:
    """Write everything of a log that can be read, in all of its files, into one new file.

    Where ticks are missing the new log says so as a sink does that dropped them.

    Args:
        log: first file of a log, or the directory of a run.
        out: file to write; None for NAME-recovered.mcap beside it.

    Raises:
        LogError: no log, none with a header that can be read, or ``out`` exists.
    """
    head = log_at(Path(log))
    target = Path(out) if out else head.with_name(f"{head.stem}{RECOVERED}{head.suffix}")
    if target.exists():
        raise LogError(f"{target} exists and is left alone; name another with out=FILE")
    parts = parts_of(head)
    header = _header(parts)
    draft = target.with_name(f"{target.name}.new")
    writer = LogWriter(draft, msgspec.structs.replace(header, part=0, first_part=0))
    work = _Work(Recovery(head, target), writer)
    try:
        for number, path in parts.items():
            work.take_file(number, path, header)
        work.finish(part_path(head, max(parts) + 1))
    except BaseException:
        writer.close()
        draft.unlink(missing_ok=True)
        raise
    draft.rename(target)
    return work.recovery


class _Work:
    """A recovery under way."""

    def __init__(self, recovery: Recovery, writer: LogWriter) -> None:
        self.recovery, self._writer = recovery, writer
        self._last_tick: int | None = None
        self._told = 0
        self._broken = False
        self._next_part: int | None = None
        self._continued = False

    def take_file(self, number: int, path: Path, header: LogHeader) -> None:
        """Take the messages of one file."""
        for gone in range(number if self._next_part is None else self._next_part, number):
            self._broken = True
            self._remark(f"{part_path(self.recovery.log, gone).name} is missing")
        data = _content(path)
        found = find_header(data, path)
        if found is None:
            self._remark(f"{path.name}: the header cannot be read")
        salvage = Salvage(data, path.name, header, found[1] if found else 0)
        for message in salvage.messages():
            self._take(message)
        self._continued = salvage.continued
        self._broken = self._broken or not salvage.complete
        self._next_part = number + 1
        self.recovery.holes += salvage.holes
        self.recovery.mended += salvage.mended
        if not salvage.complete:
            self._remark(f"{path.name} was not finished")
        if salvage.doubtful:
            self._remark(f"{path.name}: the checksum does not fit: a number may have changed")

    def finish(self, following: Path) -> None:
        """Say in the log what it was made of, and close it."""
        if self._continued:
            self._remark(f"{following.name} is missing")
        lost = f"{self.recovery.lost} ticks lost"
        detail = "; ".join([f"from {self.recovery.log.name}", lost, *self.recovery.remarks])
        self._writer.event(self._writer.last_ns, EVENT, detail)
        self._writer.finish()

    def _remark(self, text: str) -> None:
        self.recovery.remarks.append(text)

    def _take(self, found: Found) -> None:
        if found.after_hole:
            self._broken = True
        if found.is_event:
            self.recovery.events += 1
            if found.message.kind == DROPPED:
                self._told += _dropped(found.message.detail)
        else:
            self._count(found.message.tick, found.message.sent_ns)
            self.recovery.ticks += 1
        self._writer.append(found.packet, event=found.is_event)

    def _count(self, tick: int, sent_ns: int) -> None:
        """Report the ticks between the last one and this, where there is a hole between."""
        if self._broken and self._last_tick is not None:
            missing = tick - self._last_tick - 1 - self._told
            if missing > 0:
                self.recovery.lost += missing
                drop = Drop(ticks=missing, first=self._last_tick + 1, last=tick - 1)
                self._writer.event(sent_ns, DROPPED, msgspec.json.encode(drop).decode())
        self._last_tick, self._told, self._broken = tick, 0, False
        self._writer.last_ns = sent_ns


def _header(parts: dict[int, Path]) -> LogHeader:
    for path in parts.values():
        found = find_header(_content(path), path)
        if found is not None:
            return found[0]
    names = ", ".join(str(path) for path in parts.values())
    raise LogError(f"{names}: no header of a run log can be read, and nothing without it")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LogError(f"cannot read the log {path}: {error.strerror or error}") from error


def _dropped(detail: str) -> int:
    try:
        return msgspec.json.decode(detail, type=Drop).ticks
    except msgspec.MsgspecError:
        return 0
