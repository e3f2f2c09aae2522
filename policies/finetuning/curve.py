"""The learning curve: scores of the version in force over environment steps, a line each."""

from __future__ import annotations

from pathlib import Path

import msgspec

from policies.metrics import read_lines

CURVE = "curve.jsonl"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One score.

    Attributes:
        env_steps: rows that were inserted.
        wall_s: seconds since the fine-tuning began.
        updates: of the learner.
        version: that was scored: the one in force.
        return_mean: mean undiscounted return in simulation.
        return_std: standard deviation over its episodes.
        score_mean: mean normalised score; null without reference returns.
        success: share of episodes that succeeded; null for a task without success.
        training_return_mean: mean return of the newest episodes on the robot, with whatever
            they explored; null before the first.
    """

    env_steps: int
    wall_s: float
    updates: int
    version: str
    return_mean: float
    return_std: float
    score_mean: float | None
    success: float | None
    training_return_mean: float | None


class Curve:
    """Says when a score is due, and writes it down.

    Args:
        file: takes the points; those of an earlier process are gone on from.
        every: environment steps between two; 0 for none at all.
    """

    def __init__(self, file: Path, every: int) -> None:
        self._file, self._every = file, every
        points = [line for line in read_lines(file) if "env_steps" in line]
        self._last: int | None = max((line["env_steps"] for line in points), default=None)
        self._version: str = points[-1].get("version", "") if points else ""
        if file.is_file():
            _end_line(file)

    def due(self, env_steps: int) -> bool:
        """Return whether it is time: at the beginning, then once in ``every`` steps."""
        if not self._every:
            return False
        return self._last is None or env_steps // self._every > self._last // self._every

    def lacks(self, env_steps: int, version: str) -> bool:
        """Return whether the last point is of other steps or of another version."""
        return self._every > 0 and (self._last, self._version) != (env_steps, version)

    def skip(self, env_steps: int) -> None:
        """Go without a point here."""
        self._last = env_steps

    def add(self, point: Point) -> None:
        """Write a point down."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as stream:
            stream.write(msgspec.json.encode(point) + b"\n")
        self._last, self._version = point.env_steps, point.version


def _end_line(file: Path) -> None:
    """Cut off a line that a kill left unfinished, so that the next is not spoiled by it."""
    whole = file.read_bytes()
    if not whole.endswith(b"\n"):
        with file.open("rb+") as stream:
            stream.truncate(whole.rfind(b"\n") + 1)
