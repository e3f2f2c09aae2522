"""The logs of a robot's runs as rows to learn from: which there are, whose, and for what.

A plant in real time often makes its step with the command before: the one that answers an
observation is on its way while the step begins. So a row has two actions. Its own is the answer to
its observation: the policy imitates that. What led to its successor is the command that was the
newest then, which the log names: the critics learn from that one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError, LogError
from controller.log_parts import log_at, runs_in
from controller.log_reader import read_log
from controller.spec import Spec
from controller.transitions import Transitions, concatenate
from policies.finetuning.rules import Rules, closed, kinds_of

log = logging.getLogger(__name__)

Flags = NDArray[np.bool_]

RUN_EPISODE = "run_episode"
"""Column: the episode's number, over all runs."""
ACTED = "acted"
"""Column (N, A): the command that acted; where there is none, the row's own did."""


@dataclass(frozen=True)
class Logs:
    """What the logs of runs hold.

    Attributes:
        rows: all of it, in the layout of the spec; ``info`` has ``kind``, ``run_episode`` and
            ``acted``.
        files: the logs that were read, by their first file.
        notes: one line for each that is not whole.
    """

    rows: Transitions
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Rows to learn from and rows to judge by.

    Attributes:
        teaching: rows that the critics learn from, with the actions that acted.
        imitated: rows that the policy imitates, with those that answered.
        held_out: rows that no update saw.
        rules: applied, with the count of every row.
    """

    teaching: Transitions
    imitated: Transitions
    held_out: Transitions
    rules: Rules

    @property
    def alike(self) -> bool:
        """Whether critics and policy learn from the same rows and actions."""
        one, other = self.teaching.actions, self.imitated.actions
        return one.shape == other.shape and bool((one == other).all())


def logs_at(path: Path) -> list[Path]:
    """Return the logs that a path means: one log, those of a run's directory, or of several.

    Raises:
        LogError: nothing is there, or no log.
    """
    if not path.is_dir():
        if not path.exists() and not path.suffix:
            raise LogError(f"{path}: no such log or directory of runs")
        return [log_at(path)]
    found = runs_in(path)
    for inner in sorted(path.iterdir()) if not found else ():
        if inner.is_dir():
            found += runs_in(inner)
    if not found:
        raise LogError(f"{path} is a directory, expected logs of runs: there are none in it")
    return found


def read_logs(paths: Sequence[str | Path], spec: Spec) -> Logs:
    """Read logs, each up to where it is damaged.

    One that cannot be read at all is left out with a note, as long as there is another.

    Args:
        paths: logs, directories of runs, or directories of such.
        spec: the robot of the policy.

    Raises:
        SpecMismatch: a log is of another robot.
        LogError: no log can be read.
        DataError: no row among them can be learned from.
    """
    heads = list(dict.fromkeys(head.resolve() for path in paths for head in logs_at(Path(path))))
    parts: list[Transitions] = []
    files: list[str] = []
    notes: list[str] = []
    faults: list[LogError] = []
    first = 0
    for head in heads:
        try:
            found = read_log(head)
        except LogError as error:
            faults.append(error)
            notes.append(f"left out: {error}")
            continue
        spec.require(found.header.spec, "the policy", str(head))
        if found.truncated:
            notes.append(f"{head}: used up to its damage: {found.damage}")
        rows = found.transitions()
        files.append(str(head))
        if len(rows):
            rows = _numbered(rows.validate(str(head)), first)
            first = int(rows.info[RUN_EPISODE].max()) + 1
            parts.append(rows)
    if not files:
        raise faults[0]
    for note in notes:
        log.warning("%s", note)
    if not parts:
        raise DataError(
            f"no row of the logs can be learned from: {_names(files)} hold no two ticks in RUN, "
            "one after the other, of one episode"
        )
    return Logs(concatenate(parts), tuple(files), tuple(notes))


def split(logs: Logs, rules: Rules, share: float, seed: int) -> Split:
    """Divide rows by episodes into those that teach and those that judge; count them all.

    Of a single episode the end is held out.

    Args:
        logs: what was read.
        rules: what the rows teach.
        share: of the episodes to hold out, at least one; 0 for none.
        seed: of the choice.
    """
    rows = logs.rows
    kind = kinds_of(rows)
    rules.count(kind)
    held = _held_out(rows, share, seed)
    teaching = rules.kept(kind) & ~held
    return Split(
        teaching=closed(replace(rows, actions=rows.info.get(ACTED, rows.actions)), teaching),
        imitated=rows.select(rules.imitated(kind) & ~held),
        held_out=closed(rows, held),
        rules=rules,
    )


def require_enough(parts: Split, own: int, *, imitates: bool, offline: bool) -> None:
    """Raise unless there is enough to learn from.

    Args:
        parts: the rows.
        own: rows that each batch takes from the logs.
        imitates: whether the policy imitates at all.
        offline: whether there are offline data to imitate.

    Raises:
        DataError: no row, too few, or none to imitate.
    """
    words = parts.rules.words()
    if not len(parts.teaching):
        raise DataError(f"no row of the logs teaches anything: they hold {words}")
    if len(parts.teaching) < own:
        raise DataError(
            f"{len(parts.teaching)} rows of the logs teach, fewer than the {own} that each batch "
            f"takes from them: they hold {words}, {len(parts.held_out)} of all held out; lower "
            "learn.batch, or bring more logs"
        )
    if imitates and not offline and not len(parts.imitated):
        raise DataError(
            f"no row of the logs holds an action to imitate: they hold {words}; name offline "
            "data, or let another kind be imitated with rows.KIND=imitate"
        )


def _numbered(rows: Transitions, first: int) -> Transitions:
    """Return the rows with the number of their episode over all runs, from ``first`` on."""
    episode = rows.info.get("episode", rows.episode)
    _, number = np.unique(episode, return_inverse=True)
    return replace(rows, info=rows.info | {RUN_EPISODE: first + number})


def _held_out(rows: Transitions, share: float, seed: int) -> Flags:
    """Return (N,) which rows are held out; with a gap in it, an episode still counts as one."""
    episode = rows.info.get(RUN_EPISODE, rows.episode)
    numbers = np.unique(episode)
    if not share:
        return np.zeros(len(rows), np.bool_)
    if len(numbers) < 2:
        return np.arange(len(rows)) >= len(rows) - max(1, round(share * len(rows)))
    count = min(len(numbers) - 1, max(1, round(share * len(numbers))))
    chosen = np.random.default_rng(seed).permutation(numbers)[:count]
    held: Flags = np.isin(episode, chosen)
    return held


def _names(files: Sequence[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more
