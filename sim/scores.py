"""D4RL's reference returns, and scores normalised by them."""

from __future__ import annotations

import functools
from importlib import resources

import msgspec

from sim.kitchen import KITCHEN_TASKS
from sim.pointmaze import MAZE_TASKS


@functools.cache
def references() -> dict[str, tuple[float, float]]:
    """Return dataset name, with version -> (return of score 0, return of score 100).

    Source: D4RL ``d4rl/infos.py``.
    """
    text = resources.files("sim").joinpath("d4rl_reference_scores.json").read_bytes()
    groups = msgspec.json.decode(text, type=list[_Group])
    return {
        f"{group.family}{dataset}-{version}": (group.min, group.max)
        for group in groups
        for dataset, versions in group.datasets.items()
        for version in versions
    }


def reference(task: str) -> tuple[float, float] | None:
    """Return (minimum, maximum) reference returns, None where there are none.

    Args:
        task: a task of this package, or a D4RL dataset, with its version or without.
    """
    known = references()
    name = _OURS.get(task, task)
    if name in known:
        return known[name]
    versions = sorted(full for full in known if full.rpartition("-v")[0] == name)
    return known[versions[-1]] if versions else None


def normalised(task: str, episode_return: float) -> float | None:
    """Return 100 · (return - minimum) / (maximum - minimum), None without a reference."""
    limits = reference(task)
    if limits is None:
        return None
    low, high = limits
    return 100.0 * (episode_return - low) / (high - low)


_OURS = {
    **{name: maze.reference for name, maze in MAZE_TASKS.items()},
    **{name: kitchen.reference for name, kitchen in KITCHEN_TASKS.items()},
}


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    family: str
    min: float
    max: float
    datasets: dict[str, list[str]]
