"""The page of a reproduction: what it is, tables, picture. Written by the verb alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from controller.plots import MissingExtra
from policies.reproduction.course import Course
from policies.reproduction.lines import Line, Planned, lines_of
from policies.reproduction.picture import picture_png
from policies.reproduction.plan import paper_updates
from policies.reproduction.results import Row, find_rows, merged, read_csv, to_csv
from policies.reproduction.tables import OTHER_DATA, absent_table, letter, results_table

log = logging.getLogger(__name__)

PAGE, PICTURE, LEDGER = "reproduction.md", "reproduction.png", "measurements/reproduction.csv"

INTRO = """\
# Reproduction

<!-- Written by `onebeat reproduce`: a change here is lost. -->

Ding & Jin, "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning"
(ICLR 2024, arXiv 2309.16984): what their algorithms reach here, beside what they published.

```sh
onebeat reproduce configs/reproduce/first.yaml workers=2     # trains, scores, writes this page
onebeat reproduce configs/reproduce/paper.yaml only=tables   # this page, with all that is left
onebeat reproduce configs/reproduce/paper.yaml datasets=[kitchen-complete-v0] seeds=[0] only=train
```

A call goes on where the last one stopped, whatever stopped it. A run is a directory, and its row a
file in it: copy the directories of several machines into one, or keep
`measurements/reproduction.csv` beside this page, which holds every row that was ever in it. A
machine without the simulator trains (`only=train`), another scores (`only=score`). With a GPU,
`together=true device=cuda` trains all seeds of a line in one process.
"""

LEGEND = f"""\
- **Updates** stand beside those of the paper's run: a score after fewer is no attempt at its
  number.
- **Score**: D4RL's normalised score of the last checkpoint, mean ± standard deviation (of the
  population) over the seeds, from 4 seeds on with the interquartile mean. The paper's ± is over 5
  seeds, of a checkpoint chosen by its imitation loss; T1, T2, T3, A1, A2 are its tables. T2 has for
  Consistency-AC the best of four variants of each task, A2 the one that the released code is.
- {OTHER_DATA}: published for D4RL's file. Here the data were made anew, with other behaviour
  policies: the two numbers are of different data.
- **ms/update**: median of the rates in the log of a run, each the mean since its start, with the
  compilation. Runs that share a machine slow each other down. The paper's figure may hold its
  evaluations too.
- **Calls**: network evaluations per action. **µs/action**: numpy engine, one observation, back to
  back, drawn once, and the best of 50 candidates by the critics; the paper's is of 50 candidates,
  on its authors' machine.
"""

NOT_RUN = """\
Why, on the machine that wrote this page, and what was published of each.
"""


def write(course: Course) -> list[Path]:
    """Write page, picture and rows of a plan below its ``docs``; return the files.

    Raises:
        DataError: the rows that are kept there cannot be read.
    """
    config = course.config
    assert config.docs is not None
    docs = Path(config.docs)
    ledger = docs / LEDGER
    rows = merged(read_csv(ledger), find_rows(Path(config.out)))
    ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_text(to_csv(rows), encoding="utf-8")
    lines = lines_of(rows, planned(course, rows))
    written = [docs / PAGE, ledger]
    picture = docs / PICTURE
    try:
        if any(line.rows for line in lines):
            picture.write_bytes(picture_png(lines))
            written.append(picture)
    except MissingExtra as error:
        log.warning("no picture: %s", error)
    (docs / PAGE).write_text(page_text(lines, picture=picture.is_file()), encoding="utf-8")
    return written


def planned(course: Course, rows: Sequence[Row]) -> list[Planned]:
    """Return the runs of a plan, with the reason where there is no row of one."""
    have, reasons = {row.key for row in rows}, course.reasons()
    found = []
    for cell in course.cells:
        about = (cell.dataset, cell.algorithm, cell.variant, cell.preset, course.updates(cell))
        reason = "" if (*about, cell.seed) in have else reasons.get(cell.name, "")
        found.append(Planned(*about, cell.seed, reason))
    return found


def page_text(lines: Sequence[Line], *, picture: bool = False) -> str:
    """Return the page.

    Args:
        lines: every experiment.
        picture: whether there is a picture beside the page.
    """
    begun = {line.dataset for line in lines if line.rows}
    shown = [line for line in lines if line.dataset in begun]
    machines = _machines(shown)
    main = [line for line in shown if not line.variant]
    parts = [INTRO, _warning(shown), "## Scores and times"]
    parts.append(results_table(main, machines) if main else "No run has been scored yet.")
    parts += [_unfinished(shown), _machines_text(machines), LEGEND if shown else ""]
    if picture and main:
        parts.append("![Scores of every seed, and the published means](reproduction.png)")
    ablations = _ablations(shown)
    if ablations:
        parts += ["## Ablations", results_table(ablations, machines, variants=True)]
    absent = [line for line in lines if line.dataset not in begun]
    if absent:
        parts += ["## Not run", NOT_RUN, absent_table(absent)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _warning(lines: Sequence[Line]) -> str:
    """Return how far the runs are from the paper's number of updates."""
    shares = [
        line.updates / paper
        for line in lines
        if line.rows and (paper := paper_updates(line.dataset, line.algorithm))
    ]
    short = [share for share in shares if share < 1]
    if not short:
        return ""
    which = "Every run" if len(short) == len(shares) else f"{len(short)} of {len(shares)} lines"
    verb = "has" if len(short) == len(shares) else "have"
    low, high = f"{100 * min(short):.3g} %", f"{100 * max(short):.3g} %"
    share = low if low == high else f"{low} to {high}"
    return f"**{which} below {verb} fewer updates than the paper's: {share} of them.**"


def _unfinished(lines: Sequence[Line]) -> str:
    """Return the runs that are missing from lines that have others."""
    missing = [
        f"- `{line.dataset}`, `{line.algorithm}`"
        + (f", `{line.variant}`" if line.variant else "")
        + f", seed {seed}: {reason}"
        for line in lines
        if line.rows
        for seed, reason in line.reasons.items()
    ]
    return "Not there yet:\n\n" + "\n".join(missing) if missing else ""


def _machines(lines: Sequence[Line]) -> list[str]:
    every = [row for line in lines for row in line.rows]
    return list(dict.fromkeys(name for row in every for name in (row.trained_on, row.scored_on)))


def _machines_text(machines: Sequence[str]) -> str:
    if len(machines) == 1:
        return f"Machine: {machines[0]}."
    named = [f"{letter(number)}: {name}" for number, name in enumerate(machines)]
    return "Machines: " + "; ".join(named) + "." if named else ""


def _ablations(lines: Sequence[Line]) -> list[Line]:
    """Return the variants, each dataset and algorithm with the lines they are changes of."""
    changed = {(line.dataset, line.algorithm) for line in lines if line.variant}
    return [line for line in lines if (line.dataset, line.algorithm) in changed]
