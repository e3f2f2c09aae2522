"""What a replay service that was killed goes on from, in one small file beside its rows."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.errors import DataError
from policies.disk import replace_file
from policies.finetuning.replay.ledger import Records
from policies.finetuning.replay.publications import Publications

FORMAT = "onebeat.replay/1"


class Progress(msgspec.Struct):
    """How far learning is.

    Attributes:
        updates: that the learner said it has done.
        batches: that were handed to it.
        drawn: rows of these.
        finished: whether no more rows come.
    """

    updates: int = 0
    batches: int = 0
    drawn: int = 0
    finished: bool = False


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state beside the rows. What came after it comes again from the actors.

    Attributes:
        spec: digest of the robot's.
        capacity: rows that can be drawn.
        width: elements of a row.
        count: rows that were ever inserted.
        publications: versions, and which is in force.
        records: of the actors.
        progress: of the learner.
        generator: state of the random numbers, JSON.
        format: ``onebeat.replay/1``.
    """

    spec: str
    capacity: int
    width: int
    count: int
    publications: Publications
    records: Records
    progress: Progress
    generator: str
    format: str = FORMAT


def write_index(file: Path, index: Index) -> None:
    """Write the index; a reader finds the one before or this one, whole."""
    replace_file(file, msgspec.json.encode(index))


def read_index(file: Path, spec: str, capacity: int, width: int) -> Index | None:
    """Return the index in ``file``; None where there is none.

    Raises:
        DataError: it cannot be read, or is of another robot or capacity.
    """
    if not file.is_file():
        return None
    try:
        index = msgspec.json.decode(file.read_bytes(), type=Index)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not the index of a replay: {error}; choose another out") from None
    if index.format != FORMAT:
        raise DataError(f"{file}: format is {index.format!r}, this version reads {FORMAT!r}")
    if (index.spec, index.width) != (spec, width):
        raise DataError(f"{file}: the rows are of another robot; choose another out")
    if index.capacity != capacity:
        raise DataError(
            f"{file}: holds up to {index.capacity} rows, the settings say {capacity}: set "
            f"replay.capacity={index.capacity}, or choose another out"
        )
    return index
