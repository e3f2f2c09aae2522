"""Rows on their way to the replay service: numbered, sent in order, kept beyond their arrival.

The service confirms how many rows of an actor it has. What is not confirmed is sent again from
there (go-back-N, with the service in the receiver's place). Confirmed rows stay until their room is
needed, for a service that was killed may come back without the newest of them.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from controller.errors import ConfigError
from controller.feed.rows import Float32, RowLayout
from controller.replay_messages import MAX_ROWS
from controller.wire_base import MAX_FRAME_BYTES

PARCEL_BYTES = 256 * 1024
"""Rows that go in one message, unless one row alone is longer."""
PARCEL_VERSIONS = 64
"""Versions of one message: their names fit a header, however long they are."""
WINDOW = 8
"""Messages on their way."""
KEPT_BYTES = 64 * 1024 * 1024
"""Rows that are kept, on their way and after it."""
AGAIN_NS = 200_000_000
"""Rows are sent again at most this often for want of a confirmation."""


class Parcel(NamedTuple):
    """What goes in one message.

    Attributes:
        first: number of the first row, as the service counts.
        rows: (n, width).
        versions: those that the rows' column ``version`` counts from 0.
    """

    first: int
    rows: Float32
    versions: tuple[str, ...]


class Outbox:
    """The rows of one actor.

    Own numbers run from 0 in the order of :meth:`put`. Those of the service are higher by what it
    had before, unless the rows are put again from the first at every start (``replays``).

    Args:
        layout: of the rows.
        replays: the rows come from a log that is read from its beginning.
        capacity: rows to keep at most, confirmed or not; None for 64 MiB of them, at most 65 536.

    Attributes:
        capacity: as above.
        known: whether the service has said where to go on, since it was last asked.
        lost: rows that the service confirmed and forgot, and that are gone here too.
        torn: the service wants rows that are gone here: put them anew, after :meth:`rewind`. Only
            with ``replays``; without it, numbering goes on with what there is.

    Raises:
        ConfigError: a row does not fit a message.
    """

    def __init__(
        self, layout: RowLayout, *, replays: bool = False, capacity: int | None = None
    ) -> None:
        row_bytes = 4 * layout.width
        if row_bytes > MAX_FRAME_BYTES:
            raise ConfigError(
                f"a row of this robot has {row_bytes} bytes, at most {MAX_FRAME_BYTES} fit a "
                "message: leave pictures out of what is learned online"
            )
        self._most = max(1, min(MAX_ROWS, PARCEL_BYTES // row_bytes))
        self.capacity = capacity or max(WINDOW, min(MAX_ROWS, KEPT_BYTES // row_bytes))
        self._ring = np.empty((self.capacity, layout.width), np.float32)
        self._column = layout.number("version")
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._replays = replays
        self._begin = self._kept = self._sent = self._end = 0
        self._shift: int | None = 0 if replays else None
        self._ways: deque[int] = deque()
        self._again_ns = 0
        self.known = self.torn = False
        self.lost = 0

    @property
    def behind(self) -> int:
        """Rows that are not confirmed."""
        return max(0, self._end - self._kept)

    @property
    def room(self) -> int:
        """Rows that can be put now."""
        return max(0, self.capacity // 2 - self.behind)

    @property
    def kept(self) -> int:
        """Own number of the first row that is not confirmed: with ``replays`` maybe one to come."""
        return self._kept

    @property
    def waiting(self) -> bool:
        """Whether an answer of the service is due."""
        return not self.known or bool(self._ways)

    def put(self, rows: Float32, versions: tuple[str, ...]) -> None:
        """Take rows; those that the service has already are passed over.

        Args:
            rows: (n, width); copied.
            versions: those that the rows' column ``version`` counts from 0.

        Raises:
            ValueError: there is no room for as many.
        """
        skip = min(len(rows), max(0, self._kept - self._end))
        if len(rows) - skip > self.room:
            raise ValueError(f"{len(rows) - skip} rows, there is room for {self.room}")
        if skip:
            self._end += skip
            self._begin, rows = self._end, rows[skip:]
        if not len(rows):
            return
        places = np.arange(self._end, self._end + len(rows)) % self.capacity
        self._ring[places] = rows
        table = np.array([self._number(name) for name in versions], np.float32)
        self._ring[places, self._column] = table[rows[:, self._column].astype(np.int64)]
        self._end += len(rows)
        self._begin = max(self._begin, self._end - self.capacity)

    def parcel(self) -> Parcel | None:
        """Return what to send next; None while there is nothing, or enough is on its way."""
        if not self.known or self.torn or self._sent >= self._end or len(self._ways) >= WINDOW:
            return None
        assert self._shift is not None
        count = min(self._most, self._end - self._sent)
        rows = self._ring[np.arange(self._sent, self._sent + count) % self.capacity]
        numbers, places = np.unique(rows[:, self._column], return_inverse=True)
        if len(numbers) > PARCEL_VERSIONS:
            rows = rows[:PARCEL_VERSIONS]
            numbers, places = np.unique(rows[:, self._column], return_inverse=True)
        rows[:, self._column] = places
        names = tuple(self._names[int(number)] for number in numbers)
        return Parcel(self._sent + self._shift, rows, names)

    def question(self) -> Parcel:
        """Return the message without rows that asks where to go on."""
        return Parcel(0, self._ring[:0], ())

    def sent(self, parcel: Parcel) -> None:
        """Take note that the newest parcel is on its way."""
        self._sent += len(parcel.rows)
        self._ways.append(self._sent)

    def ask(self) -> None:
        """Hold everything until the service has said where to go on."""
        self.known = False

    def confirm(self, rows: int, now_ns: int) -> None:
        """Take note that the service has so many rows of this actor.

        Args:
            rows: number of the row that it wants next.
            now_ns: monotonic time.
        """
        kept = self._own(rows)
        if not self.known or kept < self._kept:
            self._go_on(kept)
            self.known = True
        elif kept > self._kept:
            self._kept, self._sent = kept, max(self._sent, kept)
            while self._ways and self._ways[0] <= kept:
                self._ways.popleft()
        elif self._ways and now_ns - self._again_ns > AGAIN_NS:
            # It answers in order, so what was sent before is lost.
            self._again_ns = now_ns
            self._go_on(kept)

    def rewind(self) -> None:
        """Begin anew: the next row put is number 0."""
        self._begin = self._end = 0
        self._go_on(self._kept)
        self.torn = False

    def _go_on(self, kept: int) -> None:
        self._kept = self._sent = kept
        self._ways.clear()

    def _own(self, rows: int) -> int:
        """Return the own number of a row of the service's, and agree on new ones where needed."""
        if self._shift is None:
            self._shift = rows - self._kept
        kept = rows - self._shift
        if self._begin <= kept <= self._end:
            return kept
        if self._replays:
            self.torn |= kept < self._begin
            return kept
        self.lost += max(0, self._begin - kept)
        kept = self._begin if kept < self._begin else self._kept
        self._shift = rows - kept
        return kept

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
        return number
