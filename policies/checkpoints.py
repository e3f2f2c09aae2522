"""The bundles a run left, in order of time: ``checkpoints.jsonl`` beside them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from policies.metrics import cut, read_lines

CHECKPOINTS = "checkpoints.jsonl"


class Checkpoint(msgspec.Struct, frozen=True):
    """A bundle of a run.

    Attributes:
        step: updates it had.
        version: its name within the store.
        bc_loss: mean imitation loss of the updates since the one before; null where the
            algorithm has none.
    """

    step: int
    version: str
    bc_loss: float | None = None


def append(store: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint to the list of ``store``."""
    with (store / CHECKPOINTS).open("ab") as stream:
        stream.write(msgspec.json.encode(checkpoint) + b"\n")


def read(store: Path) -> list[Checkpoint]:
    """Return the checkpoints of ``store``, oldest first; none without a list."""
    return [msgspec.convert(line, Checkpoint) for line in read_lines(store / CHECKPOINTS)]


def forget_after(store: Path, step: int) -> None:
    """Drop what a run did after the state it goes on from."""
    cut(store / CHECKPOINTS, step)


def finished(store: Path, steps: int) -> bool:
    """Whether the newest checkpoint of ``store`` had all of ``steps`` updates."""
    known = read(store)
    return bool(known) and known[-1].step == steps
