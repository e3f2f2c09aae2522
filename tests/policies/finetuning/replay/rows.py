"""Rows of a small robot that tell what they are: who made them, and their number."""

from __future__ import annotations

import numpy as np

from controller.feed.rows import RowKind, RowLayout
from tests.policies.weights import robot

SPEC = robot(3, 2)
LAYOUT = RowLayout.of(SPEC)


def rows_of(first, count, actor=0, ends=(), version=0, kind=RowKind.POLICY, total=0.0):
    """Return rows ``first`` to ``first + count`` of an actor; episodes end after those in ``ends``.

    observation[0] is the actor, observation[1] the number; the reward is both again.
    """
    rows = np.zeros((count, LAYOUT.width), np.float32)
    parts = LAYOUT.split(rows)
    numbers = np.arange(first, first + count)
    parts["observation"][:, 0], parts["observation"][:, 1] = actor, numbers
    parts["next_observation"][:] = parts["observation"]
    parts["reward"][:] = 1000 * actor + numbers
    parts["over"][:] = parts["timeout"][:] = np.isin(numbers, ends)
    parts["version"][:], parts["kind"][:], parts["episode_return"][:] = version, kind, total
    return rows


def told(rows):
    """Return (actor, number) of each row, which must be whole."""
    parts = LAYOUT.split(rows)
    actors, numbers = parts["observation"][:, 0], parts["observation"][:, 1]
    assert (parts["reward"] == 1000 * actors + numbers).all()
    assert (parts["next_observation"] == parts["observation"]).all()
    return list(zip(actors.astype(int).tolist(), numbers.astype(int).tolist(), strict=True))
