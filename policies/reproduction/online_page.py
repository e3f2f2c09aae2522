"""The page of learning curves: what was done, picture, table. Written by the verb alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.plots import MissingExtra
from policies.reproduction.bands import ENOUGH
from policies.reproduction.online_course import OnlineCourse
from policies.reproduction.online_picture import picture_png
from policies.reproduction.online_plan import labels
from policies.reproduction.online_results import OnlineRow, Point, merged, read_csv, to_csv
from policies.reproduction.online_tables import Group, results_table

log = logging.getLogger(__name__)

PAGE, PICTURE = "online.md", "online.png"
POINTS, RESULTS = "measurements/online.csv", "measurements/online_results.csv"

INTRO = """\
# Learning online

<!-- Written by `onebeat reproduce online`: a change here is lost. -->

Policies learned offline, improved while they run, beside policies that begin with nothing: the
second half of Ding & Jin, "Consistency Models as a Rich and Efficient Policy Class for
Reinforcement Learning" (ICLR 2024, arXiv 2309.16984).

```sh
onebeat reproduce online configs/reproduce/online_first.yaml workers=2    # what two cores do
onebeat reproduce online configs/reproduce/online.yaml                    # everything
onebeat reproduce online configs/reproduce/online.yaml only=tables        # this page alone
```

A call goes on where the last one stopped, whatever stopped it. A run is a directory: copy those of
several machines into one, or keep the two CSV files of `measurements/` beside this page, which hold
every point and every run that were ever in it.
"""

LEGEND = f"""\
- **Curves**: the version in force, scored in simulation every few thousand control steps, as it is
  served and without exploring. Thin lines are seeds, thick ones their mean. The band is the 95 %
  interval of the mean by Student's t from {ENOUGH} seeds on; **of 2 seeds it is the range of
  both**, as the interval would be 6 times wider and say nothing.
- **Steps** are control steps of all actors together, **minutes** wall-clock time of a run from its
  first step, scores included. Runs that share a machine slow each other down.
- **Before, after**: over the closing episodes of a run, of what it began from and of the version in
  force at its end; mean over the seeds, in brackets each. **95 % of it**: interval of the change by
  Student's t over the seeds, also of 2.
- **Refused**: new versions that the gate did not publish; **taken back**: published ones that did
  worse on the robot than their parent. Means over the seeds.
- **Published (T4)**: the paper's table 4, D4RL's files, 5 seeds, after a million steps of three
  environments at once. Its SAC is quoted there and had 100 000 steps. Numbers of other data
  and other steps are no attempts at it.
"""


def write(course: OnlineCourse) -> list[Path]:
    """Write page, picture and rows of a plan below its ``docs``; return the files.

    Raises:
        DataError: the rows that are kept there cannot be read.
    """
    assert course.config.docs is not None
    docs = Path(course.config.docs)
    points = merged(read_csv(docs / POINTS, Point), course.points())
    rows = merged(read_csv(docs / RESULTS, OnlineRow), course.rows())
    (docs / POINTS).parent.mkdir(parents=True, exist_ok=True)
    (docs / POINTS).write_text(to_csv(points, Point), encoding="utf-8")
    (docs / RESULTS).write_text(to_csv(rows, OnlineRow), encoding="utf-8")
    written = [docs / PAGE, docs / POINTS, docs / RESULTS]
    picture = docs / PICTURE
    try:
        if points:
            picture.write_bytes(picture_png(points, labels(course.cells)))
            written.append(picture)
    except MissingExtra as error:
        log.warning("no picture: %s", error)
    text = page_text(rows, planned(course), course.reasons(), picture=picture.is_file())
    (docs / PAGE).write_text(text, encoding="utf-8")
    return written


def planned(course: OnlineCourse) -> dict[Group, int]:
    """Return how many runs the plan has of each task, arm and number of steps, in its order."""
    counts: dict[Group, int] = {}
    for place in course.config.tasks:
        for label in course.config.arms:
            runs = [c for c in course.cells if (c.place, c.label) == (place, label)]
            if runs:
                counts[place, label, runs[0].steps] = len(runs)
    return counts


def page_text(
    rows: Sequence[OnlineRow],
    planned: Mapping[Group, int],
    reasons: Mapping[str, str],
    *,
    picture: bool = False,
) -> str:
    """Return the page.

    Args:
        rows: what came of the runs.
        planned: runs of the plan, by task, arm and steps.
        reasons: why runs are not finished, by name.
        picture: whether there is a picture beside the page.
    """
    parts = [INTRO]
    if picture:
        parts += ["## Curves", f"![Learning curves of every seed]({PICTURE})"]
    parts += ["## Before and after"]
    parts.append(results_table(rows, planned) if rows else "No run has ended yet.")
    parts += [_machines_text(rows), LEGEND, _settings_text(rows), _broken_text(rows)]
    if reasons:
        parts += ["## Not finished", "On the machine that wrote this page.", _unfinished(reasons)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _unfinished(reasons: Mapping[str, str]) -> str:
    """Return a line for each arm and reason, with the tasks and seeds of the runs it is of."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, why in reasons.items():
        task, arm, seed = name.split("/")
        seeds = groups.setdefault((arm, why), {}).setdefault(task, [])
        seeds.append(seed.removeprefix("seed_"))
    lines = []
    for (arm, why), tasks in groups.items():
        of = ", ".join(f"`{task}` ({', '.join(seeds)})" for task, seeds in tasks.items())
        lines.append(f"- `{arm}`: {why}: {of}")
    return "\n".join(lines)


def _machines_text(rows: Sequence[OnlineRow]) -> str:
    names = list(dict.fromkeys(row.machine for row in rows if row.machine))
    if not names:
        return ""
    return f"Machine{'s' if len(names) > 1 else ''}: {'; '.join(names)}."


def _settings_text(rows: Sequence[OnlineRow]) -> str:
    """Return the words of `onebeat finetune` behind every arm."""
    found: dict[tuple[str, str], None] = {}
    for row in rows:
        found[f"{row.task}, {row.arm}", row.settings] = None
    lines = [f"- `{name}`: `{words}`" for name, words in found if words]
    head = "Words of `onebeat finetune --live` beside task, parent, data, steps and seed:"
    return f"{head}\n\n" + "\n".join(lines) if lines else ""


def _broken_text(rows: Sequence[OnlineRow]) -> str:
    lines = [f"- `{row.task}`, `{row.arm}`, seed {row.seed}: {row.learner}" for row in rows
             if row.learner]  # fmt: skip
    return "Learners that ended before their time:\n\n" + "\n".join(lines) if lines else ""
