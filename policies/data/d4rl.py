"""Transitions in HDF5 files with D4RL's columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.spec import Spec
from controller.transitions import Layout, Transitions, layout_of
from controller.types import Array
from policies.data.cuts import find_ends
from policies.data.dataset import Attribute, Dataset
from policies.data.names import recognise
from policies.data.successors import Columns, with_successors

log = logging.getLogger(__name__)

REQUIRED = ("observations", "actions", "rewards", "terminals")
PREFIX = "onebeat_"
SPEC, TASK, LAYOUT = f"{PREFIX}spec", f"{PREFIX}task", f"{PREFIX}layout"
INFO = "infos"
GOAL = f"{INFO}/goal"


def load_d4rl(
    path: Path | str, spec: Spec | None = None, task: str = "", *, finite: bool = True
) -> Dataset:
    """Open a D4RL file, or one written by :func:`write_d4rl`.

    Real numbers become float32. Where the file has no ``next_observations`` they are the
    observations of the next row, and a row at a cut (a timeout, or the end of the file) has no
    successor: it is left out and the row before it becomes the timeout, as in
    ``d4rl.qlearning_dataset``. Unlike there, a terminal row stays, with its own observation as
    successor, whose value is zero anyway. How cuts are found is told in ``policies.data.cuts``.

    Args:
        path: HDF5 file with observations, actions, rewards, terminals and, if the
            recording was cut, timeouts.
        spec: the robot the data must belong to.
        task: name of the task; by default the file's own, else that of ``spec``, else that of
            the published dataset the file is called after.
        finite: whether values that are not finite are refused.

    Raises:
        DataError: no such file, not HDF5, a column is missing or of another length or width,
            values that are not finite, or data of another task.
    """
    with _open(path) as file:
        own, layout = _spec(file, path), _layout(file, path)
        task = task or str(file.attrs.get(TASK, ""))
        attributes = _attributes(file)
        if spec is not None and own is not None:
            spec.require(own, f"task {spec.task}", str(path))
        spec = spec or own
        published = recognise(str(path)) if own is None else None
        columns, notes = _columns(file, path)
    width = int(np.prod(columns.observations.shape[1:]))
    if spec is not None:
        _require_widths(spec, width, columns.actions, path)
        layout = layout_of(spec)
    task = task or (spec.task if spec else published.task if published else "")
    transitions = with_successors(columns, layout or (("observation", width),), task)
    return Dataset(
        transitions.validate(str(path), finite=finite),
        str(path),
        spec=spec,
        published=published,
        attributes=attributes,
        notes=notes,
    )


def read_d4rl(path: Path | str, spec: Spec | None = None, task: str = "") -> Transitions:
    """Read the transitions of a D4RL file; see :func:`load_d4rl`.

    Raises:
        DataError: as :func:`load_d4rl`.
    """
    dataset = load_d4rl(path, spec, task)
    for note in dataset.notes:
        log.warning("%s: %s", path, note)
    return dataset.transitions


def read_spec(path: Path | str) -> Spec | None:
    """Return the spec a file was written with, None for a file from elsewhere.

    Raises:
        DataError: no such file, not HDF5, or the spec is damaged.
    """
    with _open(path) as file:
        return _spec(file, path)


def read_attributes(path: Path | str) -> dict[str, Attribute]:
    """Return the attributes that :func:`write_d4rl` was given.

    Raises:
        DataError: no such file, or not HDF5.
    """
    with _open(path) as file:
        return _attributes(file)


def write_d4rl(
    path: Path | str,
    transitions: Transitions,
    spec: Spec,
    attributes: Mapping[str, Attribute] | None = None,
) -> None:
    """Write transitions so that :func:`read_d4rl` gives back the same arrays.

    Args:
        path: file to make or replace; its directory is made too.
        transitions: what to write.
        spec: the robot they belong to, kept as an attribute of the file.
        attributes: further facts by name, kept as ``onebeat_NAME``. ``spec``, ``task`` and
            ``layout`` are taken.

    Raises:
        ValueError: an attribute has a name that is taken.
    """
    facts = {f"{PREFIX}{name}": value for name, value in (attributes or {}).items()}
    taken = facts.keys() & {SPEC, TASK, LAYOUT}
    if taken:
        raise ValueError(f"attributes named {', '.join(sorted(taken))} are written anyway")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part")
    try:
        with h5py.File(scratch, "w") as file:
            for name in (*REQUIRED, "timeouts", "next_observations"):
                file.create_dataset(name, data=getattr(transitions, name))
            for name, column in transitions.info.items():
                file.create_dataset(f"{INFO}/{name}", data=column)
            file.attrs[SPEC] = msgspec.json.encode(spec).decode()
            file.attrs[LAYOUT] = msgspec.json.encode(transitions.layout).decode()
            file.attrs[TASK] = transitions.task
            file.attrs.update(facts)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


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


def _columns(file: h5py.File, path: Path | str) -> tuple[Columns, tuple[str, ...]]:
    for name in REQUIRED:
        if not isinstance(file.get(name), h5py.Dataset):
            raise DataError(f"{path}: no column {name}; the file has {', '.join(sorted(file))}")
    names = [n for n in (*REQUIRED, "timeouts", "next_observations") if n in file]
    rows = len(file["rewards"])
    for name in names:
        if len(file[name]) != rows:
            raise DataError(f"{path}: {name} has {len(file[name])} rows, rewards has {rows}")
    try:
        observations = _real(file["observations"])
        ends = find_ends(
            _flags(file["terminals"]),
            _flags(file["timeouts"]) if "timeouts" in file else None,
            observations,
            recognise(str(path)) if SPEC not in file.attrs else None,
            lambda: file[GOAL][()] if GOAL in file else None,
            complete="next_observations" in file,
        )
        successors = _real(file["next_observations"]) if "next_observations" in file else None
        columns = Columns(
            observations=observations,
            actions=_real(file["actions"]),
            rewards=_real(file["rewards"]).reshape(rows),
            next_observations=successors,
            terminals=ends.terminals,
            timeouts=ends.timeouts,
            info=_info(file, rows),
        )
    except OSError as error:
        raise DataError(f"{path}: a column cannot be read: {error}") from error
    return columns, ends.notes


def _real(column: h5py.Dataset) -> NDArray[np.float32]:
    """Read a column into float32, without a copy in its own type between."""
    values = np.empty(column.shape, np.float32)
    if values.size:
        column.read_direct(values)
    return values


def _flags(column: h5py.Dataset) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = np.asarray(column[()]).astype(np.bool_, copy=False).reshape(-1)
    return flags


def _info(file: h5py.File, rows: int) -> dict[str, Array]:
    group = file.get(INFO)
    if not isinstance(group, h5py.Group):
        return {}
    return {
        name: np.asarray(column[()])
        for name, column in group.items()
        if isinstance(column, h5py.Dataset) and column.shape[:1] == (rows,)
    }


def _attributes(file: h5py.File) -> dict[str, Attribute]:
    return {
        name.removeprefix(PREFIX): _plain(value)
        for name, value in file.attrs.items()
        if name.startswith(PREFIX) and name not in (SPEC, TASK, LAYOUT)
    }


def _plain(value: object) -> Attribute:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | int | float) else str(value)


def _spec(file: h5py.File, path: Path | str) -> Spec | None:
    if SPEC not in file.attrs:
        return None
    try:
        return msgspec.json.decode(file.attrs[SPEC], type=Spec)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: attribute {SPEC} is damaged: {error}") from error


def _layout(file: h5py.File, path: Path | str) -> Layout | None:
    if LAYOUT not in file.attrs:
        return None
    try:
        return msgspec.json.decode(file.attrs[LAYOUT], type=Layout)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: attribute {LAYOUT} is damaged: {error}") from error


def _require_widths(spec: Spec, width: int, actions: Array, path: Path | str) -> None:
    expected = sum(array.size for array in spec.observation)
    got = int(np.prod(actions.shape[1:]))
    if (width, got) != (expected, spec.action.size):
        raise DataError(
            f"{path}: observations are {width} wide and actions {got}, {spec.task} has "
            f"{expected} and {spec.action.size}: this is the data of another task"
        )
