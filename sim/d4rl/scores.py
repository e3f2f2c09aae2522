"""D4RL's reference returns."""

from __future__ import annotations

import functools
from importlib import resources

import msgspec


@functools.cache
def references() -> dict[str, tuple[float, float]]:
    """Return dataset name, with version -> (return of score 0, return of score 100).

    Source: D4RL ``d4rl/infos.py``.
    """
    text = resources.files("sim.d4rl").joinpath("reference_scores.json").read_bytes()
    groups = msgspec.json.decode(text, type=list[_Group])
    return {
        f"{group.family}{dataset}-{version}": (group.min, group.max)
        for group in groups
        for dataset, versions in group.datasets.items()
        for version in versions
    }


def reference(dataset: str) -> tuple[float, float] | None:
    """Return (minimum, maximum) reference returns, None where there are none.

    Args:
        dataset: a D4RL dataset, with its version or without.
    """
    known = references()
    if dataset in known:
        return known[dataset]
    versions = versions_of(dataset)
    return known[versions[-1]] if versions else None


def versions_of(*datasets: str) -> tuple[str, ...]:
    """Return the full names of datasets given without their version, oldest version first."""
    known = references()
    return tuple(
        full
        for dataset in datasets
        for full in sorted(known)
        if full.rpartition("-v")[0] == dataset
    )


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    family: str
    min: float
    max: float
    datasets: dict[str, list[str]]
