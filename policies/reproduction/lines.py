"""Rows of several seeds brought together: a line for each experiment, also those not done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from controller.statistics import iqm
from policies.reproduction.results import Row
from policies.reproduction.settings import PAPER
from policies.settings import Algorithm

Key = tuple[str, str, str, str, int]
ENOUGH = 4
"""Seeds from which the interquartile mean leaves some out."""


@dataclass(frozen=True)
class Planned:
    """A run that a plan has.

    Attributes:
        dataset: name of the data.
        algorithm: how it is learned.
        variant: change of the settings; empty for none.
        preset: what the settings begin with.
        updates: it is to have.
        seed: of the run.
        reason: why there is no row of it; empty where there is one.
    """

    dataset: str
    algorithm: str
    variant: str
    preset: str
    updates: int
    seed: int
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """One experiment: a dataset, an algorithm, a variant, a preset and a number of updates.

    Attributes:
        dataset: name of the data.
        algorithm: how it is learned.
        variant: change of the settings; empty for none.
        preset: what the settings begin with.
        updates: of each run.
        rows: of the runs there are, by seed.
        planned: runs that the plan has of it; 0 where it has none.
        reasons: why there is no row, by seed of the plan.
    """

    dataset: str
    algorithm: str
    variant: str
    preset: str
    updates: int
    rows: tuple[Row, ...]
    planned: int
    reasons: Mapping[int, str]

    @property
    def missing(self) -> str:
        """The reasons there are, each once."""
        return "; ".join(dict.fromkeys(self.reasons.values()))


def lines_of(rows: Sequence[Row], planned: Sequence[Planned]) -> list[Line]:
    """Return a line for every experiment that the plan has or that has a row.

    They come in the plan's order of datasets, then by name, by algorithm, variant and updates.
    """
    have: dict[Key, list[Row]] = {}
    for row in rows:
        have.setdefault(_key(row), []).append(row)
    plan: dict[Key, list[Planned]] = {}
    for one in planned:
        plan.setdefault(_key(one), []).append(one)
    places = {name: place for place, name in enumerate(dict.fromkeys(p.dataset for p in planned))}
    algorithms = list(dict.fromkeys((*PAPER, *get_args(Algorithm))))

    def order(key: Key) -> tuple[object, ...]:
        dataset, algorithm, variant, preset, updates = key
        place = places.get(dataset, len(places))
        return place, dataset, algorithms.index(algorithm), _natural(variant), preset, -updates

    return [
        Line(
            *key,
            rows=tuple(sorted(have.get(key, []), key=lambda row: row.seed)),
            planned=len(plan.get(key, [])),
            reasons={one.seed: one.reason for one in plan.get(key, []) if one.reason},
        )
        for key in sorted({*have, *plan}, key=order)
    ]


def _key(one: Row | Planned) -> Key:
    return one.dataset, one.algorithm, one.variant, one.preset, one.updates


def _natural(name: str) -> tuple[str, int]:
    """Return what sorts ``steps_10`` behind ``steps_2``."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


@dataclass(frozen=True)
class Spread:
    """What the values of several seeds come to.

    Attributes:
        mean: of them.
        std: population standard deviation; None of a single one.
        iqm: interquartile mean; None of fewer than 4.
    """

    mean: float
    std: float | None
    iqm: float | None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return what the values that are there come to, None where there is none."""
    there = np.array([value for value in values if value is not None], np.float64)
    if not len(there):
        return None
    return Spread(
        mean=float(there.mean()),
        std=float(there.std()) if len(there) > 1 else None,
        iqm=float(iqm(there)) if len(there) >= ENOUGH else None,
    )


def by_machine(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Return the mean of the values of each machine."""
    groups: dict[str, list[float]] = {}
    for machine, value in pairs:
        if value is not None:
            groups.setdefault(machine, []).append(value)
    return {machine: float(np.mean(values)) for machine, values in groups.items()}
