"""Where the datasets of a plan are on this machine, or why they are not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from controller.spelling import nearest
from policies.data.names import published
from policies.data.places import LOCAL_VARIABLE, find_published

RECIPE = "-regen"
"""Ending of the names of datasets that ``onebeat data generate`` makes."""
NO_FILE = "D4RL's file is not on this machine"
NO_POLICIES = "no behaviour policies to make it with"
REMEDIES = {
    NO_FILE: f"onebeat data fetch NAME, or a directory with it in {LOCAL_VARIABLE}",
    NO_POLICIES: f"policies=DIRECTORY, or a directory with policies/ in {LOCAL_VARIABLE}",
}


class Places(Protocol):
    """Where a plan looks: its settings ``data``, ``policies`` and ``sources``."""

    @property
    def data(self) -> str:
        """Directory of the datasets that are made anew."""
        ...

    @property
    def policies(self) -> str | None:
        """Directory of the behaviour policies those are made with; None where they usually are."""
        ...

    @property
    def sources(self) -> Mapping[str, str]:
        """Where the file of a dataset is, by its name."""
        ...


@dataclass(frozen=True)
class Source:
    """Where a dataset is.

    Attributes:
        path: the file; where it is to be made if ``policies`` is given.
        task: what ``onebeat train`` must be told of it; empty where the file says it.
        policies: directory of the behaviour policies it can be made with; None where the file
            is there, or cannot be made.
        missing: why there is none, in a few words; empty where there is, or it can be made.
    """

    path: Path
    task: str = ""
    policies: Path | None = None
    missing: str = ""


def find(name: str, config: Places) -> Source:
    """Return where the dataset of this name is."""
    known = published().get(name)
    task = known.task if known else ""
    path = Path(config.sources.get(name, "") or Path(config.data) / f"{name}.hdf5")
    if path.is_file():
        return Source(path, task)
    if name in config.sources:
        return Source(path, task, missing=f"{path}: no such file")
    if known is not None:
        found = find_published(known)
        return Source(found, task) if found else Source(path, task, missing=NO_FILE)
    if not name.endswith(RECIPE):
        close = nearest(name, published())
        told = f"no dataset of this name; did you mean {close}?" if close else "no such dataset"
        return Source(path, missing=told)
    policies = next(behaviour(config), None)
    if policies is None:
        return Source(path, missing=NO_POLICIES)
    return Source(path, policies=policies)


def behaviour(config: Places) -> Iterator[Path]:
    """Yield the directories of behaviour policies that are there."""
    listed = os.environ.get(LOCAL_VARIABLE, "").split(os.pathsep)
    named = (
        [config.policies] if config.policies else [f"{each}/policies" for each in listed if each]
    )
    return (Path(place) for place in named if Path(place).is_dir())
