"""What is in a dataset, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.stats import Reference, normalised
from controller.transitions import Transitions

CREDIBLE_SCORE = 300.0
"""Beyond it a reward column counts something else, as kitchen's does: tasks done, every step."""


def describe_data(data: Transitions, path: str, reference: Reference | None) -> dict[str, Any]:
    """Return the facts of a dataset for people and programs.

    Args:
        data: the transitions.
        path: where they come from.
        reference: returns that score 0 and 100.
    """
    returns = data.returns()
    lengths = [rows.stop - rows.start for rows in data.episodes()]
    score = normalised(float(returns.mean()), reference) if reference else None
    found = warnings(data)
    if score is not None and abs(score) > CREDIBLE_SCORE:
        found.append(f"a mean score of {score:,.0f}: these rewards are not the task's return")
    return {
        "path": path,
        "task": data.task or None,
        "steps": len(data),
        "episodes": len(returns),
        "terminals": int(data.terminals.sum()),
        "timeouts": int(data.timeouts.sum()),
        "observation": dict(data.layout),
        "action": int(np.prod(data.actions.shape[1:])),
        "episode_steps": _range(np.array(lengths)),
        "return": _range(returns),
        "score": score,
        "digest": data.digest(),
        "warnings": found,
    }


def _range(values: NDArray[np.generic]) -> dict[str, float]:
    return {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}


def warnings(data: Transitions) -> list[str]:
    """Return one line for each thing a careful person would look at before training."""
    found: list[str] = []
    for name in ("observations", "actions", "rewards", "next_observations"):
        bad = ~np.isfinite(getattr(data, name)).reshape(len(data), -1).all(axis=1)
        if bad.any():
            found.append(f"{name}: not finite in {int(bad.sum())} rows, first {int(bad.argmax())}")
    still = np.ptp(data.observations, axis=0) == 0
    if still.any():
        names = [name for name, size in data.layout for _ in range(size)]
        constant = sorted({names[i] for i in np.flatnonzero(still)})
        found.append(f"{int(still.sum())} observation elements never change, in {constant}")
    starts = [data.observations[rows.start].tobytes() for rows in data.episodes()]
    repeated = len(starts) - len(set(starts))
    if repeated:
        found.append(f"{repeated} episodes begin exactly like another one")
    return found
