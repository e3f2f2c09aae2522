"""A small board of counters that a run shows to other processes while it runs.

The board is a file of 64-bit integers that both sides map into memory: the loop stores numbers,
any process reads them, and neither ever waits for the other. One number is always whole; two
numbers may come from neighbouring ticks.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import Final

from controller.errors import ControllerError
from controller.types import Mode, TickRecord

MAGIC: Final = 0x6F6E656265617401
"""First integer of the file: name and version of the layout."""

FIELDS: Final = (
    "ticks",
    "missed",
    "skipped",
    "fresh",
    "tail",
    "local",
    "hold",
    "stop",
    "human",
    "episodes",
    "successes",
    "dropped",
    "mode",
    "tick",
    "sent_ns",
    "total_ns",
    "finished",
)
"""Fields in file order. ``ticks``, ``missed``, ``skipped``, the rungs, ``episodes``,
``successes`` and ``dropped`` (records the sink could not take) count from the start of the run;
``mode`` is a ``Mode``; ``tick``, ``sent_ns`` and ``total_ns`` are of the last tick; ``finished``
is 1 once the run is over."""

_INDEX: Final = {name: index + 1 for index, name in enumerate(FIELDS)}
_BYTES: Final = 8 * (len(FIELDS) + 1)


class StatusError(ControllerError, OSError):
    """A file is not the status board of a run."""


class StatusBoard:
    """Counters of one run in a mapped file.

    Args:
        path: the file.
        create: make it, all zero, to be written; otherwise it is opened read-only.

    Raises:
        StatusError: the file is missing, too short or something else.
    """

    def __init__(self, path: Path | str, create: bool = False) -> None:
        self.path = Path(path)
        if create:
            _create(self.path)
        access = mmap.ACCESS_WRITE if create else mmap.ACCESS_READ
        try:
            with self.path.open("r+b" if create else "rb") as file:
                _check_length(self.path, file.seek(0, 2))
                self._map = mmap.mmap(file.fileno(), _BYTES, access=access)
        except OSError as error:
            if isinstance(error, StatusError):
                raise
            raise StatusError(
                f"no status board at {self.path} ({error.strerror}): is the run still starting?"
            ) from None
        self._cells = memoryview(self._map).cast("q")
        if self._cells[0] != MAGIC:
            self.close()
            raise StatusError(f"{self.path} is not a status board of this version")

    def read(self) -> dict[str, int]:
        """Return all fields by name."""
        return dict(zip(FIELDS, self._cells[1:].tolist(), strict=True))

    def write(self, **fields: int) -> None:
        """Store the given fields; only on a board made with ``create``."""
        for name, value in fields.items():
            self._cells[_INDEX[name]] = value

    def add(self, name: str, amount: int = 1) -> None:
        """Raise a counter."""
        self._cells[_INDEX[name]] += amount

    def close(self) -> None:
        """Unmap the file, which stays; safe to call twice."""
        self._cells.release()
        self._map.close()

    def __enter__(self) -> StatusBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Tally:
    """Counts what the loop did, and shows it on a board.

    Args:
        board: where to show it.
        period_ns: period of the loop, for the count of missed ticks.
    """

    def __init__(self, board: StatusBoard, period_ns: int) -> None:
        self._board = board
        self._period_ns = period_ns
        self._next_tick = 0

    def tick(self, record: TickRecord, taken: bool) -> None:
        """Count one tick; ``taken`` says whether the sink took the record.

        A tick is missed when its command leaves after the next deadline, and every skipped
        period counts as one.
        """
        board, skipped = self._board, record.tick - self._next_tick
        self._next_tick = record.tick + 1
        late = record.sent_ns > record.deadline_ns + self._period_ns
        board.add("ticks")
        board.add(record.rung.name.lower())
        board.add("skipped", skipped)
        board.add("missed", skipped + late)
        board.add("dropped", not taken)
        board.write(
            mode=record.mode, tick=record.tick, sent_ns=record.sent_ns, total_ns=record.total_ns
        )

    def episode(self, success: bool) -> None:
        """Count one complete episode."""
        self._board.add("episodes")
        self._board.add("successes", success)

    def mode(self, mode: Mode) -> None:
        """Show the state of the loop; STOPPED also shows that the run is over."""
        self._board.write(mode=mode, finished=mode is Mode.STOPPED)


def _create(path: Path) -> None:
    # A reader must never map a board without its magic, so the file appears whole.
    blank = memoryview(bytearray(_BYTES)).cast("q")
    blank[0] = MAGIC
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_bytes(blank)
        draft.replace(path)
    except OSError as error:
        raise StatusError(f"cannot make a status board at {path}: {error.strerror}") from None


def _check_length(path: Path, length: int) -> None:
    if length < _BYTES:
        raise StatusError(
            f"{path} is not a whole status board: {length} bytes, expected at least {_BYTES}"
        )
