"""What became of every version: a ledger of one JSON line per event, and where it leaves things.

Whoever reads the whole lines of the file knows where its writer was, so that a gate that was
killed goes on from there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

log = logging.getLogger(__name__)

VERSIONS = "versions.jsonl"

Outcome = Literal["accepted", "refused", "superseded", "unjudged"]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Something that happened to versions.

    Attributes:
        at_s: when, in seconds since 1970.
    """

    at_s: float = 0.0


class Began(Event, frozen=True, kw_only=True, tag="began"):
    """The gate took up its work with ``version`` in force; empty for none yet."""

    version: str


class Judged(Event, frozen=True, kw_only=True, tag="judged"):
    """A candidate was looked at.

    Attributes:
        version: of the candidate.
        parent: version that was in force when it was written.
        against: version in force that it was held against; empty where it did not come to that.
        updates: of the learner behind it; null where it does not say.
        env_steps: rows that were inserted when it was judged.
        outcome: ``accepted``, ``refused``, ``superseded`` by a newer one before its turn, or
            ``unjudged``, where the gate is off.
        reasons: why it was refused.
        figures: what was measured, see ``policies.finetuning.judging``.
        seconds: it took.
    """

    version: str
    parent: str | None
    against: str = ""
    updates: int | None = None
    env_steps: int = 0
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    figures: dict[str, float | None] = {}
    seconds: float = 0.0


class Published(Event, frozen=True, kw_only=True, tag="published"):
    """A version is in the store, and the servers are asked to take it up.

    Attributes:
        version: that is in force from now on.
        published_ns: monotonic clock of the machine, right before the first server was asked.
        updates: of the learner behind it.
        env_steps: rows that were inserted.
    """

    version: str
    published_ns: int
    updates: int | None = None
    env_steps: int = 0


class Placed(Event, frozen=True, kw_only=True, tag="placed"):
    """Every server answers with the version, and the replay service knows of it.

    Attributes:
        version: that is in force.
        swap_ms: from the asking of the first server to the report of the last.
    """

    version: str
    swap_ms: float


class RolledBack(Event, frozen=True, kw_only=True, tag="rolled_back"):
    """A version was taken back.

    Attributes:
        version: that was in force.
        to: version that is in force from now on.
        why: one line.
        dropped: versions that are not to come back: those published after ``to``.
        published_ns: as in ``published``.
        env_steps: rows that were inserted.
    """

    version: str
    to: str
    why: str
    dropped: tuple[str, ...]
    published_ns: int
    env_steps: int = 0


class Proven(Event, frozen=True, kw_only=True, tag="proven"):
    """A version did better on the robot than the one that was the measure: it is the measure now.

    Attributes:
        version: what comes back when a later one fails.
        returns: of the episodes that proved it.
        env_steps: rows that were inserted when the last of them ended.
    """

    version: str
    returns: tuple[float, ...]
    env_steps: int


class Restarted(Event, frozen=True, kw_only=True, tag="restarted"):
    """The learner was sent back to the version in force, as too many candidates were refused."""

    version: str
    why: str


class Finished(Event, frozen=True, kw_only=True, tag="finished"):
    """The last candidate was dealt with; ``version`` stays in force."""

    version: str


AnyEvent = Began | Judged | Published | Placed | RolledBack | Proven | Restarted | Finished
_DECODER = msgspec.json.Decoder(AnyEvent)


@dataclass
class Standing:
    """Where the events leave things.

    Attributes:
        began_s: when the fine-tuning began, seconds since 1970; 0 before it did. Later by the
            pause of one that had ended and was taken up again.
        first: version it began with; empty for none.
        line: versions that were published and not taken back, oldest first, ``first`` among
            them; the last is in force.
        published: every version that was in force, oldest first.
        good: version that comes back when a later one fails.
        proof: the event that proved it; None for the first.
        placed: whether servers and replay service are known to have the version in force.
        taken_back: whether the version in force came by a rollback.
        accepted: candidate whose publication did not begin yet; empty for none.
        judged: outcome by version of all candidates.
        dropped: versions that were taken back.
        refused: candidates refused in a row.
        rollbacks: how many.
        finished: whether the gate ended in order.
    """

    began_s: float = 0.0
    first: str = ""
    line: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    good: str = ""
    proof: Proven | None = None
    placed: bool = True
    taken_back: bool = False
    accepted: str = ""
    judged: dict[str, Outcome] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    refused: int = 0
    rollbacks: int = 0
    finished: bool = False
    _ended_s: float = 0.0

    @property
    def in_force(self) -> str:
        """Version in force; empty before the first."""
        return self.line[-1] if self.line else ""

    @property
    def since_good(self) -> list[str]:
        """Versions that were published after the good one."""
        return self.line[self.line.index(self.good) + 1 :] if self.good in self.line else []

    def note(self, event: AnyEvent) -> None:
        """Take one more event into account."""
        match event:
            case Began():
                self._begin(event)
            case Judged():
                self._judge(event)
            case Published():
                self._put_in_force(event.version)
            case Placed():
                self.placed = self.placed or event.version == self.in_force
            case RolledBack():
                self._take_back(event)
            case Proven():
                self.good, self.proof = event.version, event
            case Restarted():
                self.refused = 0
            case Finished():
                self.finished, self._ended_s = True, event.at_s

    def _begin(self, event: Began) -> None:
        self.began_s = self.began_s or event.at_s
        if self.finished:
            self.began_s += event.at_s - self._ended_s
        self.finished = False
        if event.version and not self.line:
            self._found(event.version)

    def _found(self, version: str) -> None:
        self.first = self.good = version
        self.line = [version]
        self.published = [version]

    def _judge(self, event: Judged) -> None:
        self.judged[event.version] = event.outcome
        if event.version == self.accepted:
            self.accepted = ""
        if event.outcome in ("accepted", "unjudged"):
            self.accepted, self.refused = event.version, 0
        elif event.outcome == "refused" and event.against:
            self.refused += 1

    def _put_in_force(self, version: str) -> None:
        self.placed = self.taken_back = False
        if version == self.accepted:
            self.accepted = ""
        if not self.line:
            self._found(version)
        elif version not in self.line:
            self.line.append(version)
            self.published.append(version)

    def _take_back(self, event: RolledBack) -> None:
        self.dropped |= set(event.dropped)
        kept = [version for version in self.line if version not in self.dropped]
        self.line = kept or [event.to]
        if self.good in self.dropped:
            self.good, self.proof = event.to, None
        self.placed, self.taken_back = False, True
        self.accepted, self.refused = "", 0
        self.rollbacks += 1


def standing_of(events: Iterable[AnyEvent]) -> Standing:
    """Return where events leave things."""
    standing = Standing()
    for event in events:
        standing.note(event)
    return standing


def read_events(file: Path) -> list[AnyEvent]:
    """Return the events of a ledger; empty where there is no file.

    A last line without an end is no event: its writer was killed within it. A line that cannot
    be read is left out.
    """
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found: list[AnyEvent] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_DECODER.decode(line))
        except msgspec.MsgspecError as error:
            log.warning("%s:%d: left out: %s", file, number, error)
    return found


class Ledger:
    """Writes events to their file. A context manager; one writer at a time.

    A line that its writer was killed within is cut off, so that the next one can be read.

    Args:
        file: to append to.

    Attributes:
        standing: where the events leave things.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.standing = standing_of(read_events(file))
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._descriptor, file.read_bytes().rfind(b"\n") + 1)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def write(self, event: AnyEvent) -> None:
        """Append an event, stamped with the time."""
        stamped = msgspec.structs.replace(event, at_s=time.time())
        # In one piece: a kill between two writes would leave half of a line.
        os.write(self._descriptor, msgspec.json.encode(stamped) + b"\n")
        self.standing.note(stamped)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
