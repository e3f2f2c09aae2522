"""The lives of an actor that is started again: each has seeds of its own, and goes on exploring."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.status import StatusBoard, StatusError

EPISODES = 2**16
"""Episodes of a life that no other has."""
LIVES = 2**6
"""Lives of an actor whose episodes no other has."""
_SPREAD = 2_654_435_769
"""Odd, so that the products of 2^32 seeds modulo 2^32 are all different; neighbours fall apart."""


class Life(msgspec.Struct, frozen=True):
    """One life of an actor.

    Attributes:
        number: from 0.
        ticks: of the lives before.
    """

    number: int = 0
    ticks: int = 0

    def seed(self, seed: int, index: int) -> int:
        """Return the seed of the episodes and of the policy's noise, below 2^32.

        No two lives of up to 1024 actors share a seed or, among 65 536 each, an episode; from the
        65th life of an actor on they begin again.

        Args:
            seed: of the fine-tuning.
            index: number of the actor.
        """
        place = (index * LIVES + self.number % LIVES) * EPISODES
        return (seed * _SPREAD + place) % 2**32


def begin_life(directory: Path) -> Life:
    """Return the life that begins in an actor's directory, having taken note of it.

    The ticks of the life before are those of its status board, which outlives a kill; it is brought
    up to date a few times a second.

    Raises:
        OSError: nothing can be written there.
    """
    file = directory / "life.json"
    directory.mkdir(parents=True, exist_ok=True)
    life = Life()
    if (before := _before(file)) is not None:
        life = Life(before.number + 1, before.ticks + _ticks(directory / "status.bin"))
    draft = file.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(life))
    draft.replace(file)
    StatusBoard(directory / "status.bin", create=True).close()
    return life


def _before(file: Path) -> Life | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Life)
    except (OSError, msgspec.MsgspecError):
        return None


def _ticks(board: Path) -> int:
    try:
        with StatusBoard(board) as shown:
            return shown.read()["ticks"]
    except StatusError:
        return 0
