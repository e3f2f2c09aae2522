"""What rows must be before they are kept: one bad number would spoil the learner for good."""

from __future__ import annotations

import numpy as np

from controller.errors import WireError
from controller.feed.rows import NUMBERS, Float32, RowKind, RowLayout
from controller.safety import is_finite

_WHOLE = ("terminal", "timeout", "over", "success", "kind", "version")
_PLACES = [NUMBERS.index(name) for name in _WHOLE]


def require_rows(rows: Float32, layout: RowLayout, versions: int) -> None:
    """Require rows of experience.

    Args:
        rows: (n, width), n at least 1.
        layout: of a row.
        versions: that the column ``version`` may count.

    Raises:
        WireError: a number is not finite, or not what its column may hold.
    """
    if not is_finite(rows):
        raise WireError(_not_finite(rows, layout))
    first = layout.number(NUMBERS[0])
    whole = rows[:, first : first + len(NUMBERS)].take(_PLACES, axis=1)
    below = np.array([2, 2, 2, 2, len(RowKind), versions], np.float32)
    good = (whole >= 0) & (whole < below) & (whole == np.floor(whole))
    if not good.all():
        row, column = np.argwhere(~good)[0].tolist()
        most = int(below[column]) - 1
        known = f"0 to {most}" if most >= 0 else "none, for no version is declared"
        raise WireError(f"row {row}: {_WHOLE[column]} is {whole[row, column]:g}, expected {known}")
    both = whole[:, 0] * whole[:, 1]
    if both.any():
        raise WireError(f"row {int(both.argmax())}: terminal and a timeout, expected one at most")


def _not_finite(rows: Float32, layout: RowLayout) -> str:
    row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
    for name, column in layout.split(rows[row : row + 1]).items():
        bad = np.flatnonzero(~np.isfinite(column.reshape(-1)))
        if len(bad):
            where = "" if name in NUMBERS else f"[{bad[0]}]"
            value = column.reshape(-1)[bad[0]]
            return f"row {row}: {name}{where} is {value}, expected a finite number"
    raise AssertionError("every number is finite")
