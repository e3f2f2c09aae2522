"""Showing a run: a log as it grows, or a finished one at the pace at which it was recorded.

The viewer reads the log's files and nothing else, in a process of its own. Neither loop nor
recorder knows of it, so that one that is slow, stopped or killed costs no tick and no record; the
price is that a record is shown when the recorder has written it and the viewer looks again, some
``POLL_S`` after the tick.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mcap.records import Channel, Schema

from controller.interfaces import Clock
from controller.log_records import Opcode, Packet, Record
from controller.log_tail import LogTail

POLL_S = 0.02
"""Between two looks at a log that is being written."""
LINGER_S = 0.5
"""Kept up after the last record, so that it still reaches whoever looks."""
FRESH_S = 5.0
"""A log that was written to this recently, and is not finished, is being written."""


class Screen(Protocol):
    """Where messages are shown."""

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        ...

    def open(self, topic: str, encoding: str, schema: Schema) -> None:
        """Announce a topic, before its first message."""
        ...

    def show(self, topic: str, data: bytes, log_time_ns: int) -> None:
        """Show a message; never waits for whoever looks."""
        ...


class Projector:
    """Puts the messages of a log on a screen, whole and unchanged.

    Args:
        tail: the log.
        screen: where to show it.

    Attributes:
        shown: messages shown so far.
    """

    def __init__(self, tail: LogTail, screen: Screen) -> None:
        self.tail, self._screen = tail, screen
        self._schemas: dict[int, Schema] = {}
        self._topics: dict[int, str] = {}
        self._opened: set[str] = set()
        self.shown = 0

    def catch_up(self, *, quietly: bool = False) -> int:
        """Show what is new; return how many messages that was.

        Args:
            quietly: pass over them instead, to go on with what comes next.
        """
        before = self.shown
        for record in self.tail.read():
            packet = self.take(record)
            if packet is not None:
                self.shown += 1
                if not quietly:
                    self.show(packet)
        return self.shown - before

    def take(self, record: Record) -> Packet | None:
        """Return the message of a record; take note of any other record."""
        if record.opcode == Opcode.MESSAGE:
            return record.packet()
        if record.opcode == Opcode.SCHEMA:
            schema = record.schema()
            self._schemas[schema.id] = schema
        elif record.opcode == Opcode.CHANNEL:
            self._open(record.channel())
        return None

    def show(self, packet: Packet) -> None:
        """Show one message."""
        self._screen.show(self._topics[packet.channel_id], packet.data, packet.log_time)

    def _open(self, channel: Channel) -> None:
        self._topics[channel.id] = channel.topic
        if channel.topic not in self._opened:
            self._opened.add(channel.topic)
            schema = self._schemas[channel.schema_id]
            self._screen.open(channel.topic, channel.message_encoding, schema)


def follow(projector: Projector, clock: Clock, wanted: Callable[[], bool]) -> None:
    """Show a log while it is being written, to its end or until it is no longer wanted."""
    while not projector.tail.ended and wanted():
        if not projector.catch_up():
            _pause(clock, POLL_S)
    _pause(clock, LINGER_S)


def play(
    projector: Projector,
    screen: Screen,
    clock: Clock,
    wanted: Callable[[], bool],
    *,
    speed: float = 1.0,
    wait: bool = True,
) -> None:
    """Show a finished log as a film.

    Args:
        projector: of the log.
        screen: that of the projector.
        clock: paces it.
        wanted: whether to go on.
        speed: how much faster than it was recorded.
        wait: begin once somebody looks.
    """
    first_ns: int | None = None
    start_ns = 0
    for record in projector.tail.read():
        packet = projector.take(record)
        if packet is None:
            continue
        if first_ns is None:
            while wait and wanted() and not screen.watched:
                _pause(clock, POLL_S)
            first_ns, start_ns = packet.log_time, clock.now_ns()
        due_ns = start_ns + round((packet.log_time - first_ns) / speed)
        while wanted() and (left_ns := due_ns - clock.now_ns()) > 0:
            _pause(clock, min(left_ns / 1e9, POLL_S))
        if not wanted():
            return
        projector.show(packet)
        projector.shown += 1
    _pause(clock, LINGER_S)


def is_growing(head: Path, now_s: float) -> bool:
    """Return whether a log is being written, by the look of it.

    Args:
        head: its first file.
        now_s: Unix time.
    """
    tail = LogTail(head)
    for _ in tail.read():
        pass
    tail.close()
    written_s = tail.path.stat().st_mtime if tail.path.exists() else 0.0
    return not tail.ended and now_s - written_s < FRESH_S


def _pause(clock: Clock, seconds: float) -> None:
    clock.sleep_until(clock.now_ns() + round(seconds * 1e9))
