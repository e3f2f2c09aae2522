"""Transitions in HDF5 files with D4RL's columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from controller.errors import DataError
from controller.spec import Spec
from controller.transitions import Layout, Transitions, layout_of
from controller.types import Array

log = logging.getLogger(__name__)

REQUIRED = ("observations", "actions", "rewards", "terminals")
SPEC, TASK, LAYOUT = "onebeat_spec", "onebeat_task", "onebeat_layout"
INFO = "infos"


def read_d4rl(path: Path | str, spec: Spec | None = None, task: str = "") -> Transitions:
    """Read a D4RL file, or one written by :func:`write_d4rl`, as transitions.

    Where the file has no ``next_observations`` they are the observations of the next row, and
    a row at a cut (a timeout, or the end of the file) has no successor: it is left out and
    the row before it becomes the timeout, as in ``d4rl.qlearning_dataset``. Unlike there, a
    terminal row stays, with its own observation as successor, whose value is zero anyway.

    Args:
        path: HDF5 file with observations, actions, rewards, terminals and, if the
            recording was cut, timeouts.
        spec: the robot the data must belong to.
        task: name of the task; by default the file's own, else that of ``spec``.

    Raises:
        DataError: no such file, not HDF5, a column is missing or of another length or width,
            values that are not finite, or data of another task.
    """
    with _open(path) as file:
        columns = {name: _column(file, name, path) for name in REQUIRED}
        optional = ("timeouts", "next_observations")
        columns |= {name: _column(file, name, path) for name in optional if name in file}
        info = _info(file)
        own, task = _spec(file, path), task or str(file.attrs.get(TASK, ""))
        layout = _layout(file)
    rows = len(columns["rewards"])
    for name, column in columns.items():
        if len(column) != rows:
            raise DataError(f"{path}: {name} has {len(column)} rows, rewards has {rows}")
    if spec is not None and own is not None:
        spec.require(own, f"task {spec.task}", str(path))
    spec = spec or own
    width = int(np.prod(columns["observations"].shape[1:]))
    if spec is not None:
        _require_widths(spec, width, columns["actions"], path)
        task = task or spec.task
        layout = layout_of(spec)
    if "timeouts" not in columns:
        log.warning("%s: no timeouts column: only terminals end an episode", path)
    return _assemble(columns, info, layout or (("observation", width),), task).validate(str(path))


def read_spec(path: Path | str) -> Spec | None:
    """Return the spec a file was written with, None for a file from elsewhere.

    Raises:
        DataError: no such file, not HDF5, or the spec is damaged.
    """
    with _open(path) as file:
        return _spec(file, path)


def write_d4rl(path: Path | str, transitions: Transitions, spec: Spec) -> None:
    """Write transitions so that :func:`read_d4rl` gives back the same arrays.

    Args:
        path: file to make or replace; its directory is made too.
        transitions: what to write.
        spec: the robot they belong to, kept as an attribute of the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part")
    with h5py.File(scratch, "w") as file:
        for name in (*REQUIRED, "timeouts", "next_observations"):
            file.create_dataset(name, data=getattr(transitions, name))
        for name, column in transitions.info.items():
            file.create_dataset(f"{INFO}/{name}", data=column)
        file.attrs[SPEC] = msgspec.json.encode(spec).decode()
        file.attrs[LAYOUT] = msgspec.json.encode(transitions.layout).decode()
        file.attrs[TASK] = transitions.task
    scratch.replace(target)


@contextmanager
def _open(path: Path | str) -> Iterator[h5py.File]:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file, or a damaged one") from error
    with file:
        yield file


def _column(file: h5py.File, name: str, path: Path | str) -> Array:
    if name not in file or not isinstance(file[name], h5py.Dataset):
        raise DataError(f"{path}: no column {name}; the file has {', '.join(sorted(file))}")
    try:
        return np.asarray(file[name][()])
    except OSError as error:
        raise DataError(f"{path}: column {name} cannot be read: {error}") from error


def _info(file: h5py.File) -> dict[str, Array]:
    group = file.get(INFO)
    if not isinstance(group, h5py.Group):
        return {}
    return {name: np.asarray(column[()]) for name, column in group.items() if name}


def _spec(file: h5py.File, path: Path | str) -> Spec | None:
    if SPEC not in file.attrs:
        return None
    try:
        return msgspec.json.decode(file.attrs[SPEC], type=Spec)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: attribute {SPEC} is damaged: {error}") from error


def _layout(file: h5py.File) -> Layout | None:
    if LAYOUT not in file.attrs:
        return None
    return msgspec.json.decode(file.attrs[LAYOUT], type=Layout)


def _require_widths(spec: Spec, width: int, actions: Array, path: Path | str) -> None:
    expected = sum(array.size for array in spec.observation)
    got = int(np.prod(actions.shape[1:]))
    if (width, got) != (expected, spec.action.size):
        raise DataError(
            f"{path}: observations are {width} wide and actions {got}, {spec.task} has "
            f"{expected} and {spec.action.size}: this is the data of another task"
        )


def _assemble(
    columns: dict[str, Array], info: dict[str, Array], layout: Layout, task: str
) -> Transitions:
    rows = len(columns["rewards"])
    terminals = columns["terminals"].astype(np.bool_)
    timeouts = columns.get("timeouts", np.zeros(rows)).astype(np.bool_) & ~terminals
    values: dict[str, Any] = {name: columns[name] for name in ("observations", "actions")}
    values["rewards"] = columns["rewards"].reshape(rows)
    complete = "next_observations" in columns
    transitions = Transitions(
        **values,
        next_observations=columns["next_observations" if complete else "observations"],  # type: ignore[arg-type]
        terminals=terminals,
        timeouts=timeouts,
        layout=layout,
        task=task,
        info={name: column for name, column in info.items() if len(column) == rows},
    )
    return transitions if complete or rows == 0 else _shift(transitions)


def _shift(transitions: Transitions) -> Transitions:
    """Take each row's successor from the next row; leave out rows that have none."""
    ends, own = transitions.terminals, transitions.observations
    following = np.where(ends[:, None], own, np.roll(own, -1, axis=0))
    cut = transitions.timeouts.copy()
    cut[-1] = not ends[-1]
    # The row before a cut, if it belongs to the same episode, is now the last of its episode.
    timeouts = np.roll(cut, -1) & ~ends & ~cut
    timeouts[-1] = False
    whole = replace(transitions, next_observations=following, timeouts=timeouts)
    return whole.select(~cut)
