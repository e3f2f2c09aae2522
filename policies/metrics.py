"""Figures of a run over its updates: a line of JSON each, and TensorBoard where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class Metrics:
    """Writes the figures of one run. A context manager.

    The lines are the record; they are flushed one by one and survive a kill.

    Args:
        out: directory of the run.
        tensorboard: write ``out/tensorboard`` too, if that package is installed.
        until: last step that counts; lines of later ones, left by a run that was killed after
            its last saved state, are dropped. None keeps all.
    """

    def __init__(self, out: Path, *, tensorboard: bool = True, until: int | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        file = out / METRICS
        if until is not None:
            cut(file, until)
        self._lines = file.open("ab")
        self._board = _board(out / "tensorboard", until) if tensorboard else None

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write the figures of one update: numbers, where TensorBoard is to show them."""
        self._lines.write(msgspec.json.encode({"step": step, **figures}) + b"\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON lines; one that cannot be read is left out.

    A kill cuts the last line short; a machine that goes down can leave any of the last ones
    empty.
    """
    if not file.is_file():
        return []
    found: list[dict[str, Any]] = []
    for line in file.read_bytes().split(b"\n")[:-1]:
        try:
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError:
            log.warning("%s: left out a line that is not JSON: %r", file, line[:40])
    return found


def cut(file: Path, until: int) -> None:
    """Drop the lines of steps after ``until``; a kill leaves the file as it was, or cut."""
    if not file.is_file():
        return
    lines = [line for line in read_lines(file) if line.get("step", 0) <= until]
    scratch = file.with_name(f".{file.name}.part")
    scratch.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    scratch.replace(file)


def _board(directory: Path, until: int | None) -> Any | None:  # noqa: ANN401
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("tensorboard is not installed: metrics go to %s alone", METRICS)
        return None
    purge = None if until is None else until + 1
    return SummaryWriter(str(directory), purge_step=purge)
