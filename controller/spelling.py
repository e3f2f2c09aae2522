"""Which valid name a misspelt one most likely means."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that ``word`` most likely means, or None when none is near.

    Near is a third of the word's letters inserted, deleted, replaced or swapped; one always.
    """
    ranked = sorted((distance(word.lower(), choice.lower()), choice) for choice in choices)
    if not ranked or ranked[0][0] > max(1, len(word) // 3):
        return None
    return ranked[0][1]


def distance(a: str, b: str) -> int:
    """Return the number of edits from ``a`` to ``b``; swapped neighbours count as one edit.

    Source: optimal string alignment, a restriction of Damerau's distance (1964).
    """
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before, last = last, row
    return last[-1]
