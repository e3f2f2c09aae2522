"""What came of live fine-tunings: points of learning curves and a row for each run, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from controller.errors import DataError
from policies.finetuning.curve import CURVE
from policies.finetuning.curve import Point as CurvePoint
from policies.metrics import read_lines
from policies.reproduction.online_plan import OnlineCell
from policies.reproduction.origin import Origin, machine, read_origin
from policies.reproduction.results import csv_value

RESULT = "result.json"

Key = tuple[str, str, int, int]
"""Task, arm, planned steps and seed of a run."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One score of one run.

    Attributes:
        task: name of the task in its plan.
        arm: name of the way of learning.
        steps: control steps that the run is to have.
        seed: of the run.
        env_steps: control steps so far.
        wall_s: seconds since it began.
        updates: of the learner.
        version: that was scored.
        return_mean: mean return.
        return_std: standard deviation over the episodes.
        score_mean: mean normalised score; None without reference returns.
        success: share of episodes that succeeded; None for a task without.
        training_return_mean: mean return of the newest episodes that were learned from; None
            before the first.
    """

    task: str
    arm: str
    steps: int
    seed: int
    env_steps: int
    wall_s: float
    updates: int
    version: str
    return_mean: float
    return_std: float
    score_mean: float | None
    success: float | None
    training_return_mean: float | None

    @property
    def key(self) -> Key:
        """Which run it is of."""
        return self.task, self.arm, self.steps, self.seed


class OnlineRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run.

    Attributes:
        task: name of the task in its plan.
        arm: name of the way of learning.
        steps: control steps that it was to have.
        seed: of the run.
        settings: words of the plan that make the experiment.
        published: task of the paper that it stands beside; empty for none.
        column: of the paper's table 4; empty for none.
        env_steps: control steps that it had.
        updates: of the critics.
        wall_s: seconds that it took.
        score_before: mean normalised score of what it began from, over the closing episodes;
            None from scratch, or without reference returns.
        score_after: the same of the version in force at the end.
        return_before: mean return, as above.
        return_after: mean return.
        success_before: share of successes; None for a task without.
        success_after: the same.
        versions: that were in force.
        rejected: candidates that were not published.
        rolled_back: times that a version was taken back.
        learner: why the learner ended before its time; empty where it did not.
        machine: where it ran.
        commit: of the product; empty where that is not known.
    """

    task: str
    arm: str
    steps: int
    seed: int
    settings: str
    published: str
    column: str
    env_steps: int
    updates: int
    wall_s: float
    score_before: float | None
    score_after: float | None
    return_before: float | None
    return_after: float | None
    success_before: float | None
    success_after: float | None
    versions: int
    rejected: int
    rolled_back: int
    learner: str
    machine: str
    commit: str

    @property
    def key(self) -> Key:
        """Which run it is of."""
        return self.task, self.arm, self.steps, self.seed


Record = TypeVar("Record", Point, OnlineRow)


def read_curve(cell: OnlineCell, out: str | Path) -> list[Point]:
    """Return the points of a run so far, by environment steps; those of no sense are left out."""
    found: dict[int, Point] = {}
    for line in read_lines(cell.store(out) / CURVE):
        try:
            point = msgspec.convert(line, CurvePoint)
        except msgspec.ValidationError:
            continue
        about: dict[str, Any] = {
            "task": cell.place,
            "arm": cell.label,
            "steps": cell.steps,
            "seed": cell.seed,
        }
        found[point.env_steps] = Point(**about, **msgspec.structs.asdict(point))
    return [found[steps] for steps in sorted(found)]


def read_result(cell: OnlineCell, out: str | Path) -> dict[str, Any]:
    """Return what the run said of itself at its end, nothing where it has not ended."""
    try:
        result = msgspec.json.decode((cell.store(out) / RESULT).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
    return result


def make_row(cell: OnlineCell, out: str | Path, published: str) -> OnlineRow:
    """Return the row of a run that has ended.

    Args:
        cell: the run.
        out: directory of the runs.
        published: task of the paper that it stands beside.
    """
    result, points = read_result(cell, out), read_curve(cell, out)
    # A run without a note was stopped in its last moments, and is taken to be of this machine.
    origin = read_origin(cell.store(out)) or Origin(machine())
    before, after = result.get("before") or {}, result.get("after") or {}
    learner = result.get("learner") or {}
    return OnlineRow(
        task=cell.place,
        arm=cell.label,
        steps=cell.steps,
        seed=cell.seed,
        settings=" ".join(cell.words),
        published=published,
        column=cell.arm.published,
        env_steps=int(result.get("env_steps") or 0),
        updates=int(result.get("updates") or 0),
        # Of a run that was stopped and gone on with, only the curve has the whole time.
        wall_s=max([float(result.get("seconds") or 0.0), *(point.wall_s for point in points)]),
        score_before=before.get("score_mean"),
        score_after=after.get("score_mean"),
        return_before=before.get("return_mean"),
        return_after=after.get("return_mean"),
        success_before=before.get("success"),
        success_after=after.get("success"),
        versions=len(result.get("versions") or ()),
        rejected=int(result.get("rejected_versions") or 0),
        rolled_back=int(result.get("rolled_back") or 0),
        learner=str(learner.get("failure") or ""),
        machine=origin.machine,
        commit=origin.commit,
    )


def merged(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Return old and new records by run, in a fixed order; of the same run only the new ones."""
    groups: dict[Key, list[Record]] = {}
    for records in (list(old), list(new)):
        fresh: dict[Key, list[Record]] = {}
        for record in records:
            fresh.setdefault(record.key, []).append(record)
        groups |= fresh
    return [record for key in sorted(groups) for record in groups[key]]


def to_csv(records: Sequence[Record], kind: type[Record]) -> str:
    """Return records as CSV with a head; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = kind.__struct_fields__
    writer.writerow(names)
    for record in records:
        writer.writerow([csv_value(getattr(record, name)) for name in names])
    return text.getvalue()


def read_csv(file: Path, kind: type[Record]) -> list[Record]:
    """Return the records of a CSV of :func:`to_csv`, none where there is no such file.

    Raises:
        DataError: it is not one.
    """
    if not file.is_file():
        return []
    texts = {field.name for field in msgspec.structs.fields(kind) if field.type is str}
    with file.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    found: list[Record] = []
    for number, line in enumerate(lines, start=2):
        values = {k: None if v == "" and k not in texts else v for k, v in line.items()}
        try:
            found.append(msgspec.convert(values, kind, strict=False))
        except (msgspec.ValidationError, TypeError) as error:
            raise DataError(f"{file}:{number}: not a line of {kind.__name__}: {error}") from error
    return found


def measure_of(points: Iterable[Point]) -> tuple[str, Callable[[Point], float | None]]:
    """Return the name of what curves show, and what takes it from a point.

    Scores where there are any; else shares of success, else returns.
    """
    every = list(points)
    if any(point.score_mean is not None for point in every):
        return "normalised score", lambda point: point.score_mean
    if any(point.success is not None for point in every):
        return "success, %", lambda p: None if p.success is None else 100.0 * p.success
    return "return", lambda point: point.return_mean
