"""What is in a dataset, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.stats import Reference, normalised
from controller.transitions import Transitions


def describe_data(data: Transitions, path: str, reference: Reference | None) -> dict[str, Any]:
    """Return the facts of a dataset for people and programs.

    Args:
        data: the transitions.
        path: where they come from.
        reference: returns that score 0 and 100.
    """
    returns = data.returns()
    lengths = [rows.stop - rows.start for rows in data.episodes()]
    mean = float(returns.mean())
    return {
        "path": path,
        "task": data.task or None,
        "steps": len(data),
        "episodes": len(returns),
        "terminals": int(data.terminals.sum()),
        "timeouts": int(data.timeouts.sum()),
        "observation": dict(data.layout),
        "action": int(np.prod(data.actions.shape[1:])),
        "episode_steps": {
            "min": min(lengths),
            "mean": float(np.mean(lengths)),
            "max": max(lengths),
        },
        "return": {"min": float(returns.min()), "mean": mean, "max": float(returns.max())},
        "score": normalised(mean, reference) if reference else None,
        "digest": data.digest(),
        "warnings": warnings(data),
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
