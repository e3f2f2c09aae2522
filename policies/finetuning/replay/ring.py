"""The newest rows of experience, in a file that outlives the process."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controller.feed.rows import Float32
from policies.disk import map_file

Index = NDArray[np.int64]


class Ring:
    """The newest ``capacity`` rows, and room for ``slack`` more.

    A row is overwritten no sooner than ``slack`` rows after it could be drawn for the last time:
    whoever goes on from a count up to ``slack`` rows earlier finds every row as it was.

    Args:
        file: where the rows are.
        capacity: rows that can be drawn.
        slack: further rows.
        width: elements of a row.
        count: rows that the file got before; None makes the file.

    Raises:
        DataError: there is no room for the file, or it is not the one that got the rows.

    Attributes:
        count: rows that were ever added.
        capacity: rows that can be drawn.
        slack: further rows.
    """

    def __init__(
        self, file: Path, capacity: int, slack: int, width: int, count: int | None = None
    ) -> None:
        self.capacity, self.slack = capacity, slack
        self.count = count or 0
        self._size = capacity + slack
        self._bytes = map_file(file, 4 * width * self._size, fresh=count is None)
        self._table: Float32 = np.frombuffer(self._bytes, np.float32).reshape(-1, width)

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    def append(self, rows: Float32) -> None:
        """Add rows (n, width), n at most ``slack``."""
        start, n = self.count % self._size, len(rows)
        fit = min(n, self._size - start)
        self._table[start : start + fit] = rows[:fit]
        self._table[: n - fit] = rows[fit:]
        self.count += n

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Index, Float32]:
        """Return the numbers (n,) and a copy (n, width) of rows drawn evenly with replacement."""
        numbers = rng.integers(self.count - len(self), self.count, n)
        rows: Float32 = self._table.take(numbers % self._size, axis=0)
        return numbers, rows

    def column(self, index: int) -> Float32:
        """Return a copy of one column of the rows that can be drawn, oldest first."""
        numbers = np.arange(self.count - len(self), self.count)
        column: Float32 = self._table[numbers % self._size, index]
        return column

    def flush(self, since: int) -> None:
        """Have the disk take the rows from number ``since`` on; waits for it."""
        start, end = since % self._size, self.count % self._size
        if self.count == since:
            return
        if self.count - since >= self._size:
            start, end = 0, self._size
        if start < end:
            self._flush(start, end)
        else:
            self._flush(start, self._size)
            self._flush(0, end)

    def _flush(self, start: int, end: int) -> None:
        """Flush rows by their places; a mapping is flushed by whole pages."""
        row = 4 * self._table.shape[1]
        first = start * row // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            self._bytes.flush(first, end * row - first)
