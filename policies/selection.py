"""Which bundles are meant: by name, below a directory, or among the checkpoints of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from controller.errors import ConfigError
from controller.settings import Selection
from policies.bundle import CURRENT, resolve
from policies.checkpoints import CHECKPOINTS, Checkpoint, read
from policies.errors import BundleError
from policies.manifest import MANIFEST

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The bundles of which one is to stand for a run.

    Attributes:
        bundles: one, or several of which the episodes decide.
        checkpoints: how many the run had to choose from.
        note: what a reader of the score must know; None for nothing.
    """

    bundles: tuple[Path, ...]
    checkpoints: int = 1
    note: str | None = None


def find(names: Sequence[str]) -> list[Path]:
    """Return the bundles and stores that are named, or lie below a named directory.

    Of several names, those of files are passed over, as ``DIR/*`` has some. Links below a
    directory are not followed, and nothing comes twice.

    Raises:
        BundleError: a name is of nothing, or there is no bundle.
    """
    places: dict[Path, Path] = {}
    for name in names:
        root = Path(name)
        if root.is_file() and len(names) > 1:
            continue
        found = list(_below(root)) if root.is_dir() else [resolve(name)]
        if not found and len(names) > 1:
            log.warning("%s: passed over: there is no bundle in it", root)
        for place in found:
            places.setdefault(place.resolve(), place)
    if not places:
        raise BundleError(
            f"{', '.join(names)}: no bundle there, nor below: expected a directory with "
            f"{MANIFEST} in it, or a store with {CURRENT}"
        )
    return list(places.values())


def _below(root: Path) -> Iterator[Path]:
    known = (root / MANIFEST, root / CURRENT, root / CHECKPOINTS)
    if any(entry.exists() or entry.is_symlink() for entry in known):
        yield root
        return
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            yield from _below(entry)


def choose(place: Path, selection: Selection, top_k: int = 0) -> Choice:
    """Return what stands for a bundle or a run.

    Args:
        place: a bundle, or the store of a run.
        selection: ``last`` is the store's current bundle; ``online`` leaves every checkpoint,
            for the episodes to decide; ``offline`` goes by the mean imitation loss of the
            updates before each checkpoint. Ding & Jin 2024, section 5, report the latter two.
        top_k: offline, how many smaller losses are passed over.

    Raises:
        BundleError: there is no bundle, or no checkpoint to choose among.
        ConfigError: there are ``top_k`` checkpoints or fewer.
    """
    if selection == "last":
        return Choice((resolve(place),))
    known = _checkpoints(place, selection)
    several = f"{len(known)} checkpoint{'s' if len(known) > 1 else ''}"
    if selection == "online":
        note = (
            f"selection=online: the best of {several} by the very episodes that are reported: "
            "an upper bound, no estimate"
        )
        return Choice(_bundles(place, known), len(known), note)
    losses = [(one.bc_loss, one) for one in known if one.bc_loss is not None]
    if len(losses) < len(known):
        raise BundleError(
            f"{place}: {len(known) - len(losses)} of {several} have no imitation loss, which "
            "selection=offline goes by; valid here: last, online"
        )
    if top_k >= len(known):
        raise ConfigError(f"top_k={top_k}: {place} has {several}, expected 0 to {len(known) - 1}")
    _, chosen = sorted(losses, key=lambda pair: pair[0])[top_k]
    note = f"selection=offline: number {top_k}, from 0, by imitation loss"
    return Choice(_bundles(place, [chosen]), len(known), note)


def _checkpoints(place: Path, selection: Selection) -> list[Checkpoint]:
    try:
        known = read(place)
    except msgspec.DecodeError as error:
        raise BundleError(f"{place / CHECKPOINTS}: not a list of checkpoints: {error}") from error
    if not known:
        raise BundleError(
            f"{place}: no {CHECKPOINTS}: selection={selection} chooses among the checkpoints of a "
            "run, so name the directory of one; valid here: last"
        )
    return known


def _bundles(place: Path, known: Iterable[Checkpoint]) -> tuple[Path, ...]:
    return tuple(resolve(place / version) for version in dict.fromkeys(c.version for c in known))
