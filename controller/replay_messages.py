"""Messages of experience: actors insert rows, the learner draws batches, actors fetch weights.

Rows travel as one float32 frame (n, width), columns as in :mod:`controller.feed.rows`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.wire_base import MAX_TEXT, Count, Message, Name

MAX_ROWS = 65_536
"""Rows of one message; with the frame's own limit whichever is less."""
MAX_NAMES = 256
MAX_FILES = 16
"""Files of one bundle."""

RowCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_ROWS)]
Path = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class Insert(Message, frozen=True, tag="insert"):
    """Rows of one actor; one frame (rows, width) of float32 follows.

    Rows of an actor are numbered from 0 in the order of its log, so that one sent twice is
    taken once.

    Attributes:
        actor: who went through them: the same name again goes on where it ended.
        first: number of the first row.
        rows: how many; 0 asks where to go on.
        versions: policy versions that the rows' column ``version`` counts from 0.
    """

    actor: Name
    first: Count
    rows: RowCount
    versions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_NAMES)] = ()


class Inserted(Message, frozen=True, tag="inserted"):
    """The answer to an insert.

    Attributes:
        actor: echo.
        rows: rows of this actor that are kept: the number of the next one to send.
        wait_ms: pause that an actor in lockstep should make, for the learner is behind; one
            in real time never does.
        version: newest published policy version; empty before the first.
        bundle: where its bundle is on the service's disk.
    """

    actor: Name
    rows: Count
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)]
    version: Name
    bundle: Path


class Draw(Message, frozen=True, tag="draw"):
    """The learner asks for batches.

    Attributes:
        batches: how many at once; 0 only tells how far the learner is.
        size: rows of each.
        updates: updates that the learner has done since it began.
        version: version it improves on: that of its newest candidate.
    """

    batches: Annotated[int, msgspec.Meta(ge=0, le=1024)]
    size: RowCount
    updates: Count
    version: Name


class Drawn(Message, frozen=True, tag="drawn"):
    """The answer to a draw; with batches one frame (batches * size, width) of float32 follows.

    Attributes:
        batches: how many came; 0 while there are too few rows, or the learner is as far as the
            actors let it be.
        size: rows of each.
        inserted: rows that were ever inserted.
        rows: rows that can be drawn now.
        allowed: updates, since the learner began, that the rows so far allow.
        version: version in force.
        rollbacks: how often a version was taken back.
        finished: no more rows will come; the learner may end.
    """

    batches: Annotated[int, msgspec.Meta(ge=0, le=1024)]
    size: RowCount
    inserted: Count
    rows: Count
    allowed: Count
    version: Name
    rollbacks: Count
    finished: bool


class Fetch(Message, frozen=True, tag="fetch"):
    """An actor on another machine asks for the files of a published version."""

    version: Name


class Files(Message, frozen=True, tag="files"):
    """The answer to a fetch: the files of a bundle, one frame of bytes each.

    Attributes:
        version: echo.
        names: of the files; none where the version is not known.
    """

    version: Name
    names: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_FILES)]
