"""A process that is started again when it dies, less and less eagerly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.process import Child, Supervisor

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
HEALTHY_AFTER_S = 10.0


@dataclass(slots=True)
class Backoff:
    """Pauses before restarts: doubled by each death, forgotten after a time of health.

    Args:
        first_s: pause before the first restart.
        longest_s: no pause is longer.
        healthy_after_s: a process that lived this long did not die of its start.
    """

    first_s: float = FIRST_PAUSE_S
    longest_s: float = LONGEST_PAUSE_S
    healthy_after_s: float = HEALTHY_AFTER_S
    deaths: int = 0

    def pause_s(self, lived_s: float) -> float:
        """Return how long to wait now that a process died after ``lived_s``."""
        if lived_s >= self.healthy_after_s:
            self.deaths = 0
        self.deaths += 1
        # The exponent is bounded, so that the power stays finite.
        return float(min(self.longest_s, self.first_s * 2.0 ** min(self.deaths - 1, 30)))


class Keeper:
    """Keeps one of a supervisor's processes going.

    Args:
        supervisor: stops it with the others.
        make: makes the process, not yet started; called once per start.
        backoff: pauses between starts.

    Attributes:
        child: the newest process, started.
        restarts: how often it was started again.
    """

    def __init__(
        self, supervisor: Supervisor, make: Callable[[], Child], backoff: Backoff | None = None
    ) -> None:
        self._supervisor, self._make = supervisor, make
        self._backoff = backoff or Backoff()
        self._began_s: float | None = None
        self._due_s: float | None = None
        self.child = supervisor.start(make())
        self.restarts = 0

    def look(self, now_s: float) -> None:
        """Start the process again if it is dead and its pause is over.

        Args:
            now_s: time, on a clock that does not step.
        """
        if self._began_s is None:
            self._began_s = now_s
        if self.child.poll() is None:
            return
        if self._due_s is None:
            self._due_s = now_s + self._backoff.pause_s(now_s - self._began_s)
        if now_s >= self._due_s:
            self.child = self._supervisor.replace(self.child, self._make())
            self.restarts += 1
            self._began_s, self._due_s = now_s, None
