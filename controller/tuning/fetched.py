"""Bundles of another machine, kept on this one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import rmtree

from controller.errors import DataError

MANIFEST = "manifest.json"
"""File that makes a directory a bundle."""


def is_bundle(path: Path) -> bool:
    """Return whether a directory of this machine looks like a bundle."""
    return path.name != "" and (path / MANIFEST).is_file()


def fetched(store: Path, version: str, get: Callable[[], Mapping[str, bytes]]) -> Path:
    """Return the directory of a version in a store, put there whole if it is not there yet.

    Whoever loads it checks its hashes.

    Args:
        store: directory of bundles, made where there is none.
        version: name of the version.
        get: gives its files by name; none where nobody knows it.

    Raises:
        DataError: there are no such files, or a name is not that of a plain file.
        OSError: the disk fails.
    """
    _require_plain(version)
    target = store / version
    if is_bundle(target):
        return target
    files = get()
    if MANIFEST not in files:
        raise DataError(f"version {version}: got {sorted(files)}, expected {MANIFEST} among them")
    store.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".fetched-", dir=store))
    try:
        for name, blob in files.items():
            _require_plain(name)
            (scratch / name).write_bytes(blob)
        scratch.chmod(0o755)
        os.replace(scratch, target)
    finally:
        rmtree(scratch, ignore_errors=True)
    return target


def _require_plain(name: str) -> None:
    if name != Path(name).name or name.startswith(".") or "\0" in name:
        raise DataError(f"got the name {name!r}, expected that of a plain file")
