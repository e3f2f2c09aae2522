"""What came of the runs: a row each, in a file beside the run and in the CSV of all."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable
from pathlib import Path

import msgspec

from controller.errors import DataError
from controller.scores import Evaluation
from policies.manifest import Manifest
from policies.metrics import METRICS, read_lines
from policies.reproduction.origin import Origin
from policies.reproduction.plan import Cell

RESULT = "result.json"
DIGITS = 6
"""Significant ones of a number in the CSV."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run.

    Attributes:
        dataset: name of the data.
        algorithm: how it was learned.
        variant: change of the plan's settings; empty for none.
        preset: what the settings began with.
        updates: it had.
        seed: of the run.
        settings: words laid over the preset that make another experiment of it.
        data: digest of the data.
        rows: of the data.
        task: it was scored on.
        episodes: it was scored over.
        episodes_seed: of these.
        selection: how its checkpoint was chosen.
        score: mean normalised score; None without reference returns.
        score_low: lower end of its 95 % interval over the episodes.
        score_high: upper end.
        return_mean: mean return.
        success: share of successes; None for a task without.
        length_mean: mean length of the episodes, in control steps.
        calls: network evaluations per action.
        candidates: actions drawn, of which the critics chose one.
        select: how they chose; None with one candidate.
        updates_per_s: median of the rates in the log of the run.
        ms_per_update: its inverse.
        side_by_side: seeds that were trained at once in the process.
        trained_on: machine of the training.
        action_us: median time of one action, drawn once; None before it is measured.
        action_us_50: the same, the best of 50 by the critics; None also without
            critics.
        scored_on: machine of the episodes and of the times of an action.
        version: of the bundle.
        commit: of the product that trained it; empty where that is not known.
    """

    dataset: str
    algorithm: str
    variant: str
    preset: str
    updates: int
    seed: int
    settings: str
    data: str
    rows: int
    task: str
    episodes: int
    episodes_seed: int
    selection: str
    score: float | None
    score_low: float | None
    score_high: float | None
    return_mean: float
    success: float | None
    length_mean: float
    calls: int
    candidates: int
    select: str | None
    updates_per_s: float | None
    ms_per_update: float | None
    side_by_side: int
    trained_on: str
    action_us: float | None
    action_us_50: float | None
    scored_on: str
    version: str
    commit: str

    @property
    def key(self) -> tuple[str, str, str, str, int, int]:
        """What makes it another run's row."""
        return (
            self.dataset, self.algorithm, self.variant, self.preset, self.updates, self.seed,
        )  # fmt: skip

    def of(self, cell: Cell, updates: int) -> bool:
        """Whether it is of the run of a cell, which is to have this many updates."""
        have = (self.dataset, self.algorithm, self.variant, self.preset, self.seed, self.settings)
        want = (cell.dataset, cell.algorithm, cell.variant, cell.preset, cell.seed, cell.settings)
        return have == want and self.updates == updates


def make_row(
    cell: Cell, store: Path, manifest: Manifest, scored: Evaluation, origin: Origin, machine: str
) -> Row:
    """Return the row of a run.

    Args:
        cell: the run.
        store: its directory.
        manifest: of the bundle that was scored.
        scored: what its episodes came to.
        origin: where it was trained.
        machine: where it was scored.
    """
    rates = [line["updates_per_s"] for line in read_lines(store / METRICS) if rated(line)]
    rate = statistics.median(rates) if rates else None
    low, high = scored.score_ci95 or (None, None)
    data = manifest.data[0]
    return Row(
        dataset=cell.dataset,
        algorithm=cell.algorithm,
        variant=cell.variant,
        preset=cell.preset,
        updates=manifest.training["steps"],
        seed=cell.seed,
        settings=cell.settings,
        data=data.digest,
        rows=data.rows,
        task=scored.task,
        episodes=scored.episodes,
        episodes_seed=scored.seed,
        selection=scored.selection,
        score=scored.score_mean,
        score_low=low,
        score_high=high,
        return_mean=scored.return_mean,
        success=scored.success,
        length_mean=scored.length_mean,
        calls=scored.steps,
        candidates=scored.candidates,
        select=scored.select,
        updates_per_s=rate,
        ms_per_update=1000.0 / rate if rate else None,
        side_by_side=origin.side_by_side,
        trained_on=origin.machine,
        action_us=None,
        action_us_50=None,
        scored_on=machine,
        version=scored.version,
        commit=origin.commit,
    )


def rated(line: dict[str, object]) -> bool:
    """Whether a line of metrics has a rate; the first of a run may have 0."""
    rate = line.get("updates_per_s")
    return isinstance(rate, float) and rate > 0


def write_row(store: Path, row: Row) -> None:
    """Write the row of a run; a reader finds all of it or none."""
    scratch = store / f".{RESULT}.part"
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(row), indent=1))
    scratch.replace(store / RESULT)


def read_row(store: Path) -> Row | None:
    """Return the row of a run, None where there is none yet, or none that can be read."""
    try:
        return msgspec.json.decode((store / RESULT).read_bytes(), type=Row)
    except (OSError, msgspec.DecodeError):
        return None


def find_rows(out: Path) -> list[Row]:
    """Return the rows of all runs below a directory of runs."""
    files = sorted(out.glob(f"*/*/seed_*/{RESULT}"))
    return [row for file in files if (row := read_row(file.parent)) is not None]


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return old and new rows in a fixed order; of the same run the new one."""
    rows = {row.key: row for row in (*old, *new)}
    return [rows[key] for key in sorted(rows)]


def to_csv(rows: Iterable[Row]) -> str:
    """Return rows as CSV with a head; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row.__struct_fields__)
    for row in rows:
        writer.writerow([csv_value(getattr(row, name)) for name in Row.__struct_fields__])
    return text.getvalue()


def csv_value(value: object) -> object:
    """Return what stands for a value in a CSV."""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return "" if value is None else value


def read_csv(file: Path) -> list[Row]:
    """Return the rows of a CSV, none where there is no such file.

    Raises:
        DataError: it is not one of :func:`to_csv`.
    """
    if not file.is_file():
        return []
    optional = {
        field.name for field in msgspec.structs.fields(Row) if field.type not in (str, int, float)
    }
    with file.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    rows: list[Row] = []
    for number, line in enumerate(lines, start=2):
        values = {k: None if v == "" and k in optional else v for k, v in line.items()}
        try:
            rows.append(msgspec.convert(values, Row, strict=False))
        except (msgspec.ValidationError, TypeError) as error:
            raise DataError(f"{file}:{number}: not a row of a reproduction: {error}") from error
    return rows
