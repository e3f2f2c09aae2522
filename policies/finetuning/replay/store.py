"""Everything a replay service keeps; nothing here knows a socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError, WireError
from controller.feed.rows import Float32, RowLayout
from controller.replay_messages import MAX_ROWS
from controller.spec import Spec
from controller.wire import MAX_FRAME_BYTES
from policies.disk import hold
from policies.finetuning.replay.checks import require_rows
from policies.finetuning.replay.freshness import LOOK, Freshness
from policies.finetuning.replay.index import Index, Progress, read_index, write_index
from policies.finetuning.replay.ledger import Ledger, Records
from policies.finetuning.replay.publications import MAX_VERSIONS, Publications
from policies.finetuning.replay.ring import Ring

ROWS, INDEX, LOCK = "rows.f32", "index.json", "lock"
MAX_ACTORS = 4096
MAX_TABLES = 1024


class Places(NamedTuple):
    """Where a store is, and how large.

    Attributes:
        directory: of its files.
        capacity: rows that can be drawn.
    """

    directory: Path
    capacity: int


class Store:
    """Rows, versions and records, and their way back after a kill.

    The rows after the last :meth:`save` are forgotten by a process that dies: the actors' counts
    tell them to send these again. Nothing is kept twice.

    Args:
        spec: the robot.
        places: where and how large.
        seed: of the draws.

    Raises:
        DataError: another service is at work there; there is no room; or what lies there is
            damaged or of another robot.

    Attributes:
        layout: of a row.
        ring: the rows.
        ledger: records of the actors.
        publications: versions.
        progress: how far learning is.
        freshness: of the drawn rows.
    """

    def __init__(self, spec: Spec, places: Places, seed: int) -> None:
        self.layout, self._digest = RowLayout.of(spec), spec.digest()
        self._directory = places.directory
        self._lock = _lock(places.directory)
        width = self.layout.width
        index = read_index(places.directory / INDEX, self._digest, places.capacity, width)
        # One message always fits between two indices.
        slack = min(MAX_ROWS, MAX_FRAME_BYTES // (4 * width))
        count = index.count if index else None
        self.ring = Ring(places.directory / ROWS, places.capacity, slack, width, count)
        self.ledger = Ledger(self.layout, index.records if index else Records())
        self.publications = index.publications if index else Publications()
        self.progress = index.progress if index else Progress()
        self.freshness = Freshness()
        self._rng = np.random.default_rng(seed)
        if index:
            self._rng.bit_generator.state = json.loads(index.generator)
        self._version = self.layout.number("version")
        self._tables: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._saved = self.ring.count, 0
        self.save()

    def insert(self, actor: str, first: int, versions: tuple[str, ...], rows: Float32) -> int:
        """Keep what is new of an actor's rows, and return how many were.

        Rows that are kept already are passed over; after a gap none is taken.

        Args:
            actor: its name.
            first: number of the first row.
            versions: names of the versions that the column ``version`` counts.
            rows: (n, width).

        Raises:
            WireError: they are no rows; nothing is kept.
            DataError: see :meth:`save`; likewise.
        """
        kept = self.ledger.rows_of(actor)
        if first > kept or first + len(rows) <= kept:
            return 0
        require_rows(rows, self.layout, len(versions))
        if kept == 0 and len(self.ledger.records.actors) >= MAX_ACTORS:
            raise WireError(f"{actor}: more than {MAX_ACTORS} actors")
        table = self._table(versions)
        fresh = rows[kept - first :].copy()
        numbers = table[fresh[:, self._version].astype(np.int64)]
        fresh[:, self._version] = numbers
        if self.ring.count + len(fresh) - self._saved[0] > self.ring.slack:
            self.save()
        self.ledger.note(actor, fresh, numbers, self.ring.count, self.publications.names)
        self.publications.count(numbers)
        self.ring.append(fresh)
        return len(fresh)

    def draw(self, batches: int, size: int, counted: bool) -> Float32:
        """Return rows (batches * size, width) drawn evenly with replacement.

        Args:
            batches: how many.
            size: rows of each.
            counted: whether this is learning.
        """
        numbers, rows = self.ring.draw(batches * size, self._rng)
        if counted:
            self.progress.batches += batches
            self.progress.drawn += batches * size
            staleness = self.publications.staleness(rows[:LOOK, self._version])
            self.freshness.note(staleness, self.ring.count - 1 - numbers[:LOOK])
        return rows

    def save(self) -> None:
        """Write what a service that starts again goes on from, after the rows it tells of.

        Raises:
            DataError: the disk is full or broken; what was saved before is there still.
        """
        index = Index(
            spec=self._digest,
            capacity=self.ring.capacity,
            width=self.layout.width,
            count=self.ring.count,
            publications=self.publications,
            records=self.ledger.records,
            progress=self.progress,
            generator=json.dumps(self._rng.bit_generator.state),
        )
        try:
            self.ring.flush(self._saved[0])
            write_index(self._directory / INDEX, index)
        except OSError as error:
            raise DataError(f"{self._directory}: cannot be written: {error.strerror}") from error
        self._saved = self.ring.count, self.progress.batches

    @property
    def stale(self) -> bool:
        """Whether there is something to save."""
        return (self.ring.count, self.progress.batches) != self._saved

    def close(self) -> None:
        """Save, and let another process have the place; safe to call twice."""
        if not self._lock.closed:
            self.save()
            self._lock.close()

    def facts(self) -> dict[str, Any]:
        """Return counts and figures."""
        inserted, progress = self.ring.count, self.progress
        return {
            "inserted": inserted,
            "rows": len(self.ring),
            "capacity": self.ring.capacity,
            "episodes": self.ledger.records.ended,
            "updates": progress.updates,
            "drawn_batches": progress.batches,
            "samples_per_insert": round(progress.drawn / inserted, 3) if inserted else 0.0,
            **self.freshness.facts(),
            "version": self.publications.version,
            "bundle": self.publications.bundle,
            "rollbacks": self.publications.rollbacks,
            "finished": progress.finished,
        }

    def _table(self, versions: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the number of each of a message's versions."""
        table = self._tables.get(versions)
        if table is None:
            if len(self.publications.names) + len(versions) > MAX_VERSIONS:
                raise WireError(f"more than {MAX_VERSIONS} versions")
            if len(self._tables) >= MAX_TABLES:
                self._tables.clear()
            table = self._tables[versions] = self.publications.numbers(versions)
        return table


def _lock(directory: Path) -> IO[bytes]:
    try:
        lock = hold(directory / LOCK)
    except OSError as error:
        raise DataError(f"{directory}: {error.strerror}: choose another out") from error
    if lock is None:
        raise DataError(f"{directory}: another replay service is at work there")
    return lock
