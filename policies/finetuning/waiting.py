"""The candidates that wait to be judged, and what of old versions may leave the disk."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from policies.bundle import read_manifest
from policies.errors import BundleError
from policies.manifest import MANIFEST


@dataclass(frozen=True)
class Candidate:
    """A version that the learner left.

    Attributes:
        path: directory of its bundle.
        version: its name.
        parent: version that was in force when it was written; None for none.
        updates: of the learner behind it; None where it does not say.
        fault: why its manifest cannot be read; empty where it can.
    """

    path: Path
    version: str
    parent: str | None = None
    updates: int | None = None
    fault: str = ""


def waiting(store: Path, known: Collection[str]) -> list[Candidate]:
    """Return the candidates in a store that are not ``known`` yet, oldest first."""
    files = (one for one in store.glob(f"[!.]*/{MANIFEST}") if one.parent.name not in known)
    found = sorted((file.stat().st_mtime_ns, file.parent) for file in files)
    return [read_candidate(path) for _, path in found]


def read_candidate(path: Path) -> Candidate:
    """Return what the manifest of a candidate says."""
    try:
        about = read_manifest(path)
    except BundleError as error:
        return Candidate(path, path.name, fault=str(error))
    updates = about.training.get("steps")
    return Candidate(path, path.name, about.parent, updates if isinstance(updates, int) else None)


def prune(store: Path, versions: Iterable[str], spared: Collection[str], keep: int) -> list[str]:
    """Take old versions off the disk and return them.

    Args:
        store: directory that holds them.
        versions: those that may go, oldest first.
        spared: those that stay whatever their age.
        keep: newest of ``versions`` that stay.
    """
    there = [version for version in versions if (store / version).is_dir()]
    gone = [version for version in there[: max(0, len(there) - keep)] if version not in spared]
    for version in gone:
        # Without its manifest what a kill leaves behind is no bundle.
        (store / version / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(store / version, ignore_errors=True)
    return gone
