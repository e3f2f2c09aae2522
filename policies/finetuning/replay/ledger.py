"""What the actors went through: their rows, the episodes that run and those that ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.feed.rows import Float32, RowKind, RowLayout

KEPT = 256
"""Newest episodes that are told of."""
RATE_NS = 2_000_000_000
"""Time over which an actor's rate is taken."""


class Episode(msgspec.Struct, frozen=True):
    """An episode that ended.

    Attributes:
        actor: who went through it.
        episode: its number among those of this actor, from 0.
        total: the plant's sum of rewards; ``return`` where it is told.
        length: rows.
        success: the task's own flag.
        version: that acted in most rows.
        mixed: whether others did too.
        env_step: rows of all actors when it ended.
        commanded: rows whose command was the policy's or drawn in its stead; the rest were a
            person's, the safe command or not applied.
    """

    actor: str
    episode: int
    total: float = msgspec.field(name="return")
    length: int
    success: bool
    version: str
    mixed: bool
    env_step: int
    commanded: int


class Actor(msgspec.Struct):
    """What is kept of one actor.

    Attributes:
        rows: that are kept or were.
        kinds: of these, by :class:`controller.feed.rows.RowKind`.
        episodes: that ended.
        length: rows of the episode that runs.
        commanded: of these, those of the policy's command.
        acted: of these, by the number of the version.
        waits: answers that asked it to pause.
    """

    rows: int = 0
    kinds: list[int] = msgspec.field(default_factory=lambda: [0] * len(RowKind))
    episodes: int = 0
    length: int = 0
    commanded: int = 0
    acted: dict[int, int] = msgspec.field(default_factory=dict)
    waits: int = 0


class Records(msgspec.Struct):
    """What a service that starts again goes on from.

    Attributes:
        actors: by name.
        episodes: the newest.
        ended: episodes that ever ended.
    """

    actors: dict[str, Actor] = msgspec.field(default_factory=dict)
    episodes: list[Episode] = msgspec.field(default_factory=list)
    ended: int = 0


@dataclass(slots=True)
class _Pulse:
    """When an actor was heard, and how fast it went."""

    heard_ns: int
    mark_ns: int
    mark_rows: int
    rate_hz: float = 0.0


class Ledger:
    """Keeps the records of the actors as their rows come.

    Args:
        layout: of the rows.
        records: to go on from.
    """

    def __init__(self, layout: RowLayout, records: Records) -> None:
        self._over, self._kind = layout.number("over"), layout.number("kind")
        self._return, self._success = layout.number("episode_return"), layout.number("success")
        self.records = records
        self._pulses: dict[str, _Pulse] = {}

    def rows_of(self, name: str) -> int:
        """Return the rows of an actor; 0 for one that is not known."""
        actor = self.records.actors.get(name)
        return actor.rows if actor else 0

    def note(
        self, name: str, rows: Float32, numbers: NDArray[np.int64], step: int, names: list[str]
    ) -> None:
        """Take note of new rows of an actor.

        Args:
            name: of the actor.
            rows: (n, width), n at least 1.
            numbers: (n,) of the versions that acted.
            step: rows of all actors before these.
            names: of the versions, by number.
        """
        actor = self.records.actors.get(name)
        if actor is None:
            actor = self.records.actors[name] = Actor()
        actor.rows += len(rows)
        kinds = rows[:, self._kind].astype(np.int64)
        start = 0
        for last in np.flatnonzero(rows[:, self._over]).tolist():
            _run(actor, kinds[start : last + 1], numbers[start : last + 1])
            self._end(name, actor, rows[last], step + last + 1, names)
            start = last + 1
        if start < len(rows):
            _run(actor, kinds[start:], numbers[start:])

    def hear(self, name: str, now_ns: int, waits: bool) -> None:
        """Take note that an actor said something, and of whether it was asked to pause."""
        actor = self.records.actors.get(name)
        if actor is None:
            return
        actor.waits += waits
        pulse = self._pulses.get(name)
        if pulse is None:
            self._pulses[name] = _Pulse(now_ns, now_ns, actor.rows)
            return
        pulse.heard_ns = now_ns
        if (elapsed_ns := now_ns - pulse.mark_ns) >= RATE_NS:
            pulse.rate_hz = 1e9 * (actor.rows - pulse.mark_rows) / elapsed_ns
            pulse.mark_ns, pulse.mark_rows = now_ns, actor.rows

    def since(self, number: int) -> tuple[list[Episode], int]:
        """Return the kept episodes from a number on, and the number of the next one."""
        kept, ended = self.records.episodes, self.records.ended
        wanted = min(len(kept), max(0, ended - number))
        return kept[len(kept) - wanted :], ended

    def facts(self, now_ns: int, most: int) -> dict[str, dict[str, Any]]:
        """Return figures of the ``most`` actors that were heard last, by name."""
        order = sorted(self._pulses.items(), key=lambda item: -item[1].heard_ns)
        return {name: self._facts(name, pulse, now_ns) for name, pulse in order[:most]}

    def _facts(self, name: str, pulse: _Pulse, now_ns: int) -> dict[str, Any]:
        actor = self.records.actors[name]
        silent_ns = now_ns - pulse.heard_ns
        return {
            "rows": actor.rows,
            "last_s": round(silent_ns / 1e9, 3),
            "rate_hz": round(pulse.rate_hz, 1) if silent_ns < 2 * RATE_NS else 0.0,
            "kinds": {kind.name.lower(): actor.kinds[kind] for kind in RowKind},
            "waits": actor.waits,
            "episodes": actor.episodes,
        }

    def _end(self, name: str, actor: Actor, last: Float32, step: int, names: list[str]) -> None:
        # Of two that acted as long, the newer one.
        most = max(actor.acted, key=lambda number: (actor.acted[number], number))
        records = self.records
        records.episodes.append(
            Episode(
                actor=name,
                episode=actor.episodes,
                total=float(last[self._return]),
                length=actor.length,
                success=bool(last[self._success]),
                version=names[most],
                mixed=len(actor.acted) > 1,
                env_step=step,
                commanded=actor.commanded,
            )
        )
        del records.episodes[:-KEPT]
        records.ended += 1
        actor.episodes += 1
        actor.length = actor.commanded = 0
        actor.acted = {}


def tally(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (number, how often) of what occurs in ``numbers`` (n,), n at least 1."""
    first = int(numbers[0])
    if len(numbers) == 1 or (numbers == first).all():
        return [(first, len(numbers))]
    values, counts = np.unique(numbers, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _run(actor: Actor, kinds: NDArray[np.int64], versions: NDArray[np.int64]) -> None:
    """Count rows of the episode that runs."""
    actor.length += len(kinds)
    for kind, count in tally(kinds):
        actor.kinds[kind] += count
        if kind in (RowKind.POLICY, RowKind.EXPLORED):
            actor.commanded += count
    for version, count in tally(versions):
        actor.acted[version] = actor.acted.get(version, 0) + count
