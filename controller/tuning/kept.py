"""A process of a live fine-tuning that is started again when it dies, while that is of use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from controller.keeper import HEALTHY_AFTER_S, Keeper
from controller.launch import command
from controller.process import Child, Supervisor

HOPELESS = 6
"""Deaths in a row, each soon after the start and with an error of its own, after which a process
is not started again."""


class Kept:
    """One process, kept going; what it says goes to a file.

    A process that a signal killed is always started again. One that ended with status 0 is done.
    One that ended with an error is started again, unless ``hopeless`` says why not, or it did so
    ``HOPELESS`` times in a row.

    Args:
        supervisor: stops it with the others.
        name: what people call it; ``OUT/NAME.log`` takes its words.
        make: makes the process, not yet started.
        hopeless: given one that ended with an error, says why another start would be of no use;
            empty where it may be.

    Attributes:
        name: see above.
        deaths: how often it died.
        done: it will not be started again.
        failure: why it was given up; empty where it was not.
        notes: one line for each death that was not told yet.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        name: str,
        make: Callable[[], Child],
        hopeless: Callable[[Child], str] = lambda child: "",
    ) -> None:
        self.name = name
        self.deaths = 0
        self.done = False
        self.failure = ""
        self.notes: list[str] = []
        self._hopeless = hopeless
        self._keeper = Keeper(supervisor, make)
        self._seen: Child | None = None
        self._began_s: float | None = None
        self._quick = 0

    @property
    def child(self) -> Child:
        """The newest process."""
        return self._keeper.child

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self.child.poll() is None

    def look(self, now_s: float) -> None:
        """Start it again if it died and its pause is over.

        Args:
            now_s: time, on a clock that does not step.
        """
        if self.done:
            return
        if self._began_s is None:
            self._began_s = now_s
        if not self.running and self.child is not self._seen:
            self._seen = self.child
            self._judge(self.child, now_s - self._began_s)
        if not self.done:
            restarts = self._keeper.restarts
            self._keeper.look(now_s)
            if self._keeper.restarts > restarts:
                self._began_s = now_s

    def _judge(self, child: Child, lived_s: float) -> None:
        """Take note of an end, and decide whether it was the last."""
        code = child.poll()
        if code == 0:
            self.done = True
            return
        self.deaths += 1
        words = last_words(child)
        if code is not None and code > 0:
            self._quick = self._quick + 1 if lived_s < HEALTHY_AFTER_S else 1
            why = self._hopeless(child)
            if why or self._quick >= HOPELESS:
                self.done, self.failure = True, why or words
        else:
            self._quick = 0
        again = "given up" if self.done else "started again"
        self.notes.append(f"{self.name} died ({child.status()}): {words}; {again}")

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it for good: in order, or after ``timeout_s`` at once."""
        self.done = True
        self.child.stop(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Return whether it ended by itself within ``timeout_s``; it is not started again."""
        self.done = True
        return self.child.wait(timeout_s) is not None


class MakePart(Protocol):
    """Makes a process of a fine-tuning, not yet started; see :func:`part`."""

    def __call__(self, verb: str, out: Path, name: str, *words: str, niceness: int = 0) -> Child:
        """Return it."""
        ...


def part(verb: str, out: Path, name: str, *words: str, niceness: int = 0) -> Child:
    """Return a process of this program, not yet started, whose words go to ``OUT/NAME.log``.

    What one before it said is kept as ``NAME.1.log`` and so on.
    """
    return Child(command(verb, *words), name, niceness=niceness, log=words_file(out, name))


def words_file(out: Path, name: str) -> Path:
    """Return the path for what a process says, after putting that of the one before aside."""
    path = out / f"{name}.log"
    if path.exists() and path.stat().st_size:
        number = 1
        while (earlier := out / f"{name}.{number}.log").exists():
            number += 1
        path.rename(earlier)
    return path


def last_words(child: Child) -> str:
    """Return the last line that a process wrote, without the name of its verb."""
    said = child.last_error()
    prefix, _, message = said.partition(": ")
    said = message if prefix.startswith("onebeat ") else said
    return said or "it wrote no message"
