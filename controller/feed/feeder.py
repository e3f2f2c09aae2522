"""What feeds a loop's log to the replay service: the loop itself knows nothing of learning.

A feeder reads the log as it grows, and nothing else, so it may be slow, killed and started again at
any time. It keeps no state: from the beginning of a log the same rows come every time, and the
service tells which of them it has.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.errors import ConfigError
from controller.feed.client import ReplayClient
from controller.feed.stream import RowStream
from controller.interfaces import Clock
from controller.key_settings import NO_CLIENT_KEYS, ClientKeySettings
from controller.keys import client_keys
from controller.log_columns import Columns
from controller.log_parts import identity_of
from controller.log_reader import decode_header
from controller.log_records import Opcode, Record
from controller.log_schema import METADATA, TICK_TOPIC, LogHeader
from controller.log_tail import LogTail
from controller.signals import StopFlag
from controller.spec import Spec
from controller.tuning.settings import PartConfig
from controller.yaml_source import read_mapping

logger = logging.getLogger(__name__)

POLL_S = 0.03
"""Between two looks at a log in which there is nothing new."""
ANOTHER_S = 0.5
"""Between two looks for another log in its place."""
BLOCK = 1024
"""Records taken in one turn, with which a long log is caught up."""
FAREWELL_S = 1.0
"""Time that the last rows have to arrive when the feeder is told to end."""
NICENESS = 5
"""Above the learner's: a row takes some 30 µs, and what is learned from it waits for it."""

Connect = Callable[[Spec, str], ReplayClient]
"""Makes the client for a robot and the name of an actor."""


class LogFeed:
    """The rows of one log on their way to the service.

    Args:
        head: the log's first file, which may not be there yet.
        name: of the actor. Its rows are kept under ``NAME/RUN``, with the identity of the run, so
            that their numbers are never those of another log; ``NAME/RUN+PART`` where the first
            files of the log are gone.
        connect: makes the client once it is known what the robot is.

    Attributes:
        header: of the log; None before it could be read.
        client: of the service; None likewise.
        complete: whether nothing more will be written, whatever the log says.
        ended: the last row was offered; no more will come.
        skipped: ticks that could not be decoded.
    """

    def __init__(self, head: Path, name: str, connect: Connect) -> None:
        self._head, self._name, self._connect = head, name, connect
        self.header: LogHeader | None = None
        self.client: ReplayClient | None = None
        self.complete = self.ended = False
        self.skipped = 0
        self._block = 2
        self._begin()

    @property
    def done(self) -> bool:
        """Whether the service has everything."""
        return self.ended and (self.client is None or not self.client.behind)

    def turn(self) -> bool:
        """Take what is new in the log, and send; return whether there was anything.

        Raises:
            Refused: the service does not want this client.
            LogError: the log is of a later version of this program.
        """
        if self.client is not None:
            self.client.pump()
            if self.client.outbox.torn:
                logger.warning("%s: the service lost rows; reading again", self._head)
                self._again(self.client)
            # A turn gives at most as many rows as ticks, the one held back, and the last one.
            if not self.client.outbox.known or self.client.room < self._block + 2:
                return False
        new = self._read()
        self._offer(last=self._tail.ended or (self.complete and not new))
        return new

    def close(self) -> None:
        """Leave the service, and the log; safe to call twice."""
        self._tail.close()
        if self.client is not None:
            self.client.close()

    def _begin(self) -> None:
        self._tail = LogTail(self._head)
        self._topics: dict[int, str] = {}
        self._columns: Columns | None = None
        self._stream: RowStream | None = None
        self.ended = False

    def _again(self, client: ReplayClient) -> None:
        """Read from the beginning, unless another log has taken the place of this one."""
        client.outbox.rewind()
        self._tail.close()
        self._begin()
        about = identity_of(self._head)
        if self.header is not None and about is not None and about.run != self.header.run:
            self.ended = True

    def _read(self) -> bool:
        count = 0
        if not self.ended:
            for record in islice(self._tail.read(), self._block):
                count += 1
                self._take(record)
        return count > 0

    def _take(self, record: Record) -> None:
        if record.opcode == Opcode.MESSAGE:
            if self._columns is not None:
                self._tick(self._columns, record)
        elif record.opcode == Opcode.CHANNEL:
            channel = record.channel()
            self._topics[channel.id] = channel.topic
        elif record.opcode == Opcode.METADATA and self._columns is None:
            found = record.metadata()
            if found.name == METADATA:
                self._open(decode_header(found.metadata.get("header", ""), self._head))

    def _open(self, header: LogHeader) -> None:
        self.header, self._columns = header, Columns(header)
        self._stream = RowStream(header.spec)
        if self.client is None:
            part = f"+{header.part}" if header.part else ""
            self.client = self._connect(header.spec, f"{self._name}/{header.run}{part}")
            self.client.ask()
            self._block = max(1, min(BLOCK, self.client.outbox.capacity // 8))

    def _tick(self, columns: Columns, record: Record) -> None:
        try:
            packet = record.packet()
            if self._topics.get(packet.channel_id) == TICK_TOPIC:
                columns.tick(packet.data)
        except (DecodeError, ValueError, struct.error) as error:
            self.skipped += 1
            logger.warning("%s: a tick that is damaged: %s", self._head, error)

    def _offer(self, *, last: bool) -> None:
        """Make rows of the ticks that were read, and send them.

        Args:
            last: no more ticks will come.
        """
        if self.client is None or self._stream is None or self._columns is None:
            self.ended |= last
            return
        if len(self._columns):
            for record in self._columns.log(self._head, "").records():
                self._stream.add(record)
            self._columns = Columns(self._columns.header)
            self.client.offer(*self._stream.take())
        if last and not self.ended:
            self.client.offer(*self._stream.finish())
            self.ended = True
        self.client.pump()


class Feeder:
    """Feeds the log at a path, and the next one there when a loop begins another.

    Args:
        head: the log's first file, which may not be there yet.
        name: of the actor.
        connect: makes a client.
        clock: time.

    Attributes:
        feed: the log that is fed now.
        over: all of it has arrived, and there is no other.
    """

    def __init__(self, head: Path, name: str, connect: Connect, clock: Clock) -> None:
        self._head, self._clock = head, clock
        self._make: Callable[[], LogFeed] = lambda: LogFeed(head, name, connect)
        self.feed = self._make()
        self.over = False
        self._looked_ns = clock.now_ns()

    def turn(self) -> bool:
        """Feed what is new; return whether there was anything.

        Raises:
            Refused: see :meth:`LogFeed.turn`.
            LogError: likewise.
        """
        if self.feed.turn():
            return True
        now_ns = self._clock.now_ns()
        if not self.feed.done and now_ns - self._looked_ns < ANOTHER_S * 1e9:
            return False
        self._looked_ns = now_ns
        replaced = self._replaced()
        self.feed.complete |= replaced
        if replaced and self.feed.done:
            self.feed.close()
            self.feed = self._make()
            return True
        self.over = self.feed.done
        return False

    def farewell(self) -> None:
        """Send what is there, for as long as a second, and leave."""
        if self.feed.client is not None and self.feed.client.ready:
            self.feed.turn()
            self.feed.client.flush(FAREWELL_S)
        self.feed.close()

    def _replaced(self) -> bool:
        """Return whether there is another log in the place of the one that is fed."""
        mine, there = self.feed.header, identity_of(self._head)
        return mine is not None and there is not None and there.run != mine.run


class _Service(msgspec.Struct, frozen=True):
    """The part of a fine-tuning's settings that says where the replay service is."""

    endpoint: str | None = None
    client_keys: ClientKeySettings = NO_CLIENT_KEYS


class _Finetuning(msgspec.Struct, frozen=True):
    """The part of its settings that a feeder needs; the rest needs what is not known here."""

    replay: _Service = _Service()


def feed(config: PartConfig, arguments: Arguments) -> int:
    """Feed an actor's log until all of it has arrived, or until SIGTERM.

    Raises:
        ConfigError: the settings name no replay service.
        Refused: the service does not want this actor.
    """
    clock, settings = MonotonicClock(), Path(config.settings)
    about = _service(settings)
    assert about.endpoint is not None
    endpoint, keys = about.endpoint, client_keys(about.client_keys)
    out = Path(config.out) if config.out else settings.parent / "actors" / config.name
    head = Path(config.log) if config.log else out / "log.mcap"

    def connect(spec: Spec, name: str) -> ReplayClient:
        return ReplayClient(endpoint, spec, clock, name, keys, replays=True)

    os.nice(NICENESS)
    with StopFlag() as stop:
        feeder = Feeder(head, config.name, connect, clock)
        try:
            while not stop() and not feeder.over:
                if not feeder.turn():
                    clock.sleep_until(clock.now_ns() + round(POLL_S * 1e9))
        finally:
            feeder.farewell()
    return 0


def _service(settings: Path) -> _Service:
    """Return where the replay service of a fine-tuning is.

    Raises:
        ConfigError: there are no such settings, or they name none.
    """
    tree = read_mapping(settings)
    try:
        found = msgspec.convert(tree, _Finetuning).replay
    except msgspec.ValidationError as error:
        raise ConfigError(f"{settings}: {error}") from None
    if found.endpoint is None:
        raise ConfigError(
            f"{settings}: replay.endpoint: expected the address of the replay service, got null"
        )
    return found
