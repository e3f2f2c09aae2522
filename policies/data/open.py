"""Find and open a dataset, by path, directory or name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from controller.errors import DataError
from controller.log_parts import is_log, runs_in
from controller.spec import Spec
from controller.spelling import nearest
from controller.transitions import concatenate
from policies.data.dataset import Dataset
from policies.data.download import checksum, fetch
from policies.data.names import SUFFIXES, Published, published, recognise
from policies.data.places import find_published, is_minari, minari_root

LOG = ".mcap"

Fetch = Callable[[Published], Path]
"""Gets a published dataset that is not on this machine, and returns its file."""


def open_dataset(
    source: str | Path,
    spec: Spec | None = None,
    task: str = "",
    *,
    finite: bool = True,
    get: Fetch | None = None,
) -> Dataset:
    """Open a dataset.

    Args:
        source: an HDF5 file with D4RL's columns; a run log; a Minari dataset; a directory of
            files and logs, which are joined; the name of a Minari dataset below its root; or
            that of a published D4RL dataset, which is looked for on this machine and then
            downloaded.
        spec: the robot the data must belong to.
        task: name of the task; empty for what the data says.
        finite: whether values that are not finite are refused.
        get: gets a published dataset; None downloads it.

    Raises:
        DataError: there is no such dataset, or it cannot be used.
        LogError: a log is damaged beyond use.
        DownloadFailed: it is not on this machine and cannot be downloaded.
    """
    path = locate(source, get)
    if not path.is_dir():
        return _open_file(path, spec, task, finite)
    if is_minari(path):
        from policies.data.minari import load_minari

        return load_minari(path, spec, task, finite=finite)
    parts = [_open_file(file, spec, task, finite) for file in _files(path)]
    return _join(parts, path) if len(parts) > 1 else parts[0]


def spec_of(source: str | Path, get: Fetch | None = None) -> Spec | None:
    """Return the spec a dataset was written with, None for one from elsewhere; see above."""
    path = locate(source, get)
    if path.is_dir():
        if is_minari(path):
            from policies.data.minari import read_minari_spec

            return read_minari_spec(path)
        path = next(_files(path))
    if path.suffix == LOG:
        from controller.log_reader import read_log

        return read_log(path).header.spec
    from policies.data.d4rl import read_spec

    return read_spec(path)


def locate(source: str | Path, get: Fetch | None = None) -> Path:
    """Return the file or directory that ``source`` means; see :func:`open_dataset`.

    Raises:
        DataError: there is none.
        DownloadFailed: it would have to be downloaded, and cannot be.
    """
    path = Path(source)
    if path.exists() or (path.suffix == LOG and is_log(path)):
        if path.is_dir() and not is_dataset(path):
            raise DataError(f"{path}: a directory without datasets (.hdf5, .mcap, Minari) in it")
        return path
    name = str(source)
    if is_minari(minari_root() / name):
        return minari_root() / name
    dataset = published().get(name) or (None if path.suffix else recognise(name))
    if dataset is None:
        close = nearest(name, published())
        hint = f"; did you mean {close}?" if close else ""
        raise DataError(f"{name}: no such file, directory or dataset{hint}")
    return find_published(dataset) or (get or _get)(dataset)


def is_dataset(path: Path) -> bool:
    """Return whether a path that exists can be opened as a dataset, by its look alone."""
    if path.is_file():
        return path.suffix in (*SUFFIXES, LOG)
    return is_minari(path) or next(_files(path), None) is not None


def _get(dataset: Published) -> Path:
    return fetch(dataset).path


def _files(directory: Path) -> Iterator[Path]:
    """Yield datasets and logs in a directory, and in the directories of runs in it."""
    logs = runs_in(directory)
    for path in sorted({*directory.iterdir(), *logs}):
        if path in logs or (path.is_file() and path.suffix in SUFFIXES):
            yield path
        elif path.is_dir():
            yield from runs_in(path)


def _open_file(path: Path, spec: Spec | None, task: str, finite: bool) -> Dataset:
    if path.suffix == LOG:
        return _open_log(path, spec, task, finite)
    from policies.data.d4rl import load_d4rl

    dataset = load_d4rl(path, spec, task, finite=finite)
    expected = dataset.published.sha256 if dataset.published else ""
    if expected and not checksum(path).startswith(expected):
        note = f"called {path.name}, but not D4RL's file: its sha256 does not begin {expected[:8]}"
        return replace(dataset, notes=(*dataset.notes, note))
    return dataset


def _open_log(path: Path, spec: Spec | None, task: str, finite: bool) -> Dataset:
    from controller.log_reader import read_log

    log = read_log(path)
    if spec is not None:
        spec.require(log.header.spec, f"task {spec.task}", str(path))
    data = log.transitions().single().validate(str(path), finite=finite)
    return Dataset(
        replace(data, task=task) if task else data,
        str(path),
        spec=log.header.spec,
        notes=(log.damage,) if log.damage else (),
    )


def _join(parts: list[Dataset], path: Path) -> Dataset:
    first = parts[0]
    for part in parts[1:]:
        if first.spec is not None and part.spec is not None:
            first.spec.require(part.spec, first.source, part.source)
    notes = tuple(f"{Path(part.source).name}: {note}" for part in parts for note in part.notes)
    return Dataset(
        concatenate([part.transitions for part in parts]),
        str(path),
        spec=next((part.spec for part in parts if part.spec), None),
        attributes={"files": len(parts)},
        notes=notes,
    )
