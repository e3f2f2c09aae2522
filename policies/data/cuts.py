"""Where the recording of an episode was cut in D4RL's files, which do not always say so.

Three things are known of the published files and of those made with D4RL's scripts:

- The first gym and hand files have no ``timeouts``. D4RL's own loader then counts: an episode is
  cut after the steps of its task (``d4rl.qlearning_dataset``).
- In antmaze v0 the ``timeouts`` are there and wrong: the ant leaps across the maze between two
  rows without a mark. Every episode of these files begins with the ant's joints within 0.1 rad
  of zero, where the stops of the ankles, which begin at 30 degrees, never let it get again; so
  the resets can be seen, and the cuts lie before them. ``terminals`` and ``rewards`` of the row
  before a reset were computed from the next episode's start and are void.
- A maze2d file is one trajectory from goal to goal. Published files mark the rows that reach a
  goal as timeouts; those made with the published script mark nothing, but ``infos/goal`` moves,
  and the row after repeats the observation: its step is lost.

Sources: D4RL ``d4rl/__init__.py``, ``scripts/generation/generate_ant_maze_datasets.py``,
``relabel_antmaze_rewards.py``, ``generate_maze2d_datasets.py``, issues 77 and 85.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.types import Array
from policies.data.names import Published

Flags = NDArray[np.bool_]

ANT_WIDTH = 29
"""15 positions, of which the joints are the last eight, and 14 velocities."""
ANT_JOINTS = slice(7, 15)
RESET_NOISE = 0.1 + 1e-4
"""rad; the noise of D4RL's reset, with room for float32."""


@dataclass(frozen=True)
class Ends:
    """How each row ends.

    Attributes:
        terminals: (N,) the successor is terminal.
        timeouts: (N,) the recording was cut after this row; never where ``terminals`` is.
        notes: how that was found, where the file did not say it; one line each.
    """

    terminals: Flags
    timeouts: Flags
    notes: tuple[str, ...] = ()


def find_ends(
    terminals: Flags,
    timeouts: Flags | None,
    observations: NDArray[np.floating],
    published: Published | None,
    goals: Callable[[], Array | None],
    *,
    complete: bool = False,
) -> Ends:
    """Return how the rows of a file end.

    Args:
        terminals: (N,) as the file has them.
        timeouts: (N,) as the file has them, None if it has none.
        observations: (N, D).
        published: the dataset the file is called after, None for another.
        goals: returns ``infos/goal`` (N, ...), or None if the file has none.
        complete: whether the file has ``next_observations``, so that no successor is in doubt.
    """
    family = published.family if published else ""
    if family == "antmaze" and not complete and observations.shape[1:] == (ANT_WIDTH,):
        return _by_resets(terminals, timeouts, observations)
    if timeouts is not None:
        return Ends(terminals, timeouts & ~terminals)
    moved = _moved(goals()) if family == "maze2d" else None
    if moved is not None:
        note = f"no timeouts column: cut at {int(moved.sum())} rows after which the goal moves"
        return Ends(terminals, moved & ~terminals, (note,))
    if published and published.episode_steps:
        cut = _after(terminals, published.episode_steps)
        note = f"no timeouts column: episodes of {published.name} are cut after "
        note += f"{published.episode_steps} rows"
        return Ends(terminals, cut, (note,))
    note = "no timeouts column: only terminals end an episode"
    return Ends(terminals, np.zeros_like(terminals), (note,))


def _by_resets(
    terminals: Flags, timeouts: Flags | None, observations: NDArray[np.floating]
) -> Ends:
    pose = (np.abs(observations[:, ANT_JOINTS]) <= RESET_NOISE).all(axis=1)
    before = np.zeros_like(terminals)
    before[:-1] = pose[1:] & ~pose[:-1]
    marked = np.zeros_like(terminals) if timeouts is None else timeouts
    if not before.any():
        note = "no timeouts column, and no row in the ant's reset pose" if timeouts is None else ""
        return Ends(terminals, marked & ~terminals, (note,) if note else ())
    marked_inside = marked[:-1].astype(np.bool_)
    if np.array_equal(marked_inside, before[:-1]):
        return Ends(terminals & ~before, marked & ~(terminals & ~before))
    missed, wrong = int((before & ~marked).sum()), int((marked_inside & ~before[:-1]).sum())
    note = (
        f"timeouts do not fall on the ant's resets ({missed} resets unmarked, {wrong} marks "
        "elsewhere): cut at the resets instead"
    )
    return Ends(terminals & ~before, before, (note,))


def _moved(goals: Array | None) -> Flags | None:
    if goals is None or not len(goals):
        return None
    flat = goals.reshape(len(goals), -1)
    moved = np.zeros(len(flat), np.bool_)
    moved[:-1] = (flat[1:] != flat[:-1]).any(axis=1)
    return moved


def _after(terminals: Flags, steps: int) -> Flags:
    """Return the rows that are the ``steps``-th since a terminal or a cut, terminals left out."""
    rows = np.arange(len(terminals))
    begins = np.zeros_like(rows)
    begins[1:] = np.where(terminals[:-1], rows[1:], 0)
    count = rows - np.maximum.accumulate(begins) + 1
    result: Flags = (count % steps == 0) & ~terminals
    return result
