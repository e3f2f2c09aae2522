"""Where datasets lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from policies.data.names import Published, file_names

LOCAL_VARIABLE = "ONEBEAT_DATA"
CACHE_VARIABLE = "ONEBEAT_DATASETS"
D4RL_VARIABLE = "D4RL_DATASET_DIR"
MINARI_VARIABLE = "MINARI_DATASETS_PATH"
MINARI_DATA, MINARI_METADATA = "data", "metadata.json"


def cache_directory() -> Path:
    """Return where downloads are kept: ONEBEAT_DATASETS, else in the user's data directory."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "onebeat" / "datasets"


def find_published(dataset: Published) -> Path | None:
    """Return the file of a published dataset, None where this machine has none.

    Looks in the directories of ONEBEAT_DATA, in that for downloads, and in D4RL's own, for a
    file called by the dataset's name or as D4RL calls it.
    """
    return next((path for path in _candidates(dataset) if path.is_file()), None)


def _candidates(dataset: Published) -> Iterator[Path]:
    listed = os.environ.get(LOCAL_VARIABLE, "").split(os.pathsep)
    d4rl = os.environ.get(D4RL_VARIABLE) or str(Path.home() / ".d4rl" / "datasets")
    for place in (*(Path(each) for each in listed if each), cache_directory(), Path(d4rl)):
        for name in file_names(dataset):
            yield place / name


def minari_root() -> Path:
    """Return the directory in which Minari keeps its datasets."""
    return Path(os.environ.get(MINARI_VARIABLE) or Path.home() / ".minari" / "datasets")


def is_minari(path: Path) -> bool:
    """Return whether a directory is a Minari dataset, or the ``data`` in one."""
    inner = path / MINARI_DATA / MINARI_METADATA
    return inner.is_file() or (path / MINARI_METADATA).is_file()
