"""Which rows teach what: the rules for rows by whose command they hold, and what came of them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from controller.feed.rows import RowKind
from controller.transitions import Transitions
from policies.finetuning.settings import RowRules, Use

Flags = NDArray[np.bool_]
Kinds = NDArray[np.int64]
Table = dict[str, dict[str, Any]]
"""By kind of row: ``rows``, how many, and ``use``, what they taught."""

USES: tuple[Use, ...] = get_args(Use)


def use_of(rules: RowRules, kind: RowKind) -> Use:
    """Return what the rows of a kind teach."""
    use: Use = getattr(rules, kind.name.lower())
    return use


def kinds_of(logs: Transitions) -> Kinds:
    """Return (N,) the ``RowKind`` of each row of logs; rows that do not say are the policy's."""
    kinds = logs.info.get("kind")
    return np.zeros(len(logs), np.int64) if kinds is None else kinds.astype(np.int64)


class Rules:
    """The rules as one look-up for each use, and a count of the rows they were applied to.

    Args:
        rules: what the rows teach.

    Attributes:
        counts: (kinds,) rows that were counted, by kind.
    """

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        uses = [use_of(rules, kind) for kind in RowKind]
        self._imitated = np.array([use == "imitate" for use in uses])
        self._kept = np.array([use != "drop" for use in uses])
        self.counts = np.zeros(len(RowKind), np.int64)

    def imitated(self, kinds: NDArray[Any]) -> Flags:
        """Return which rows the policy imitates."""
        return self._look(self._imitated, kinds)

    def kept(self, kinds: NDArray[Any]) -> Flags:
        """Return which rows the critics learn from."""
        return self._look(self._kept, kinds)

    def count(self, kinds: NDArray[Any]) -> None:
        """Count rows."""
        self.counts += np.bincount(kinds.astype(np.int64), minlength=len(RowKind))

    def table(self) -> Table:
        """Return how many rows were counted of each kind, and what they taught."""
        return {
            kind.name.lower(): {"rows": int(rows), "use": use_of(self._rules, kind)}
            for kind, rows in zip(RowKind, self.counts, strict=True)
        }

    def words(self) -> str:
        """Return the table in one line for people."""
        parts = (
            f"{row['rows']} {name} ({row['use']})"
            for name, row in self.table().items()
            if row["rows"]
        )
        return ", ".join(parts) or "no rows"

    @staticmethod
    def _look(table: Flags, kinds: NDArray[Any]) -> Flags:
        found: Flags = table[kinds.astype(np.int64, copy=False)]
        return found


def closed(data: Transitions, chosen: Flags) -> Transitions:
    """Return the chosen rows; where the row after one is left out, the chain is cut there."""
    rows = np.flatnonzero(chosen)
    part = data.select(rows)
    if not len(rows):
        return part
    gap = np.append(np.diff(rows) > 1, True)
    part.timeouts[gap & ~part.terminals] = True  # ``select`` by row numbers copies.
    return part
