"""Looking at the replay service a few times a second, off the launcher's own thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from controller.control import control
from controller.errors import ControllerError
from controller.keys import ClientKeys

LOOK_S = 0.5
"""Between two looks at the service."""
ANSWER_S = 2.0
"""The longest wait for an answer."""
NEWEST = 10
"""Episodes whose mean return is shown."""


class Seen(msgspec.Struct, frozen=True):
    """What the replay service said last.

    Attributes:
        stats: its counters; empty before the first answer.
        returns: of the newest episodes.
        episodes: episodes so far.
    """

    stats: dict[str, Any] = {}
    returns: tuple[float, ...] = ()
    episodes: int = 0

    def count(self, name: str) -> int:
        """Return a counter, 0 where it is not known yet."""
        value = self.stats.get(name)
        return int(value) if isinstance(value, (int, float)) else 0

    @property
    def env_steps(self) -> int:
        """Rows that were ever inserted."""
        return self.count("inserted")

    @property
    def updates(self) -> int:
        """Updates of the learner."""
        return self.count("updates")

    @property
    def version(self) -> str:
        """Version in force; empty before the first."""
        return str(self.stats.get("version") or "")

    @property
    def return_mean(self) -> float | None:
        """Mean return of the newest episodes, None before the first."""
        return float(np.mean(self.returns)) if self.returns else None


Ask = Callable[[str, dict[str, str]], dict[str, Any]]
"""Asks the service to do a verb with arguments and returns its report."""


def asking(endpoint: str, keys: ClientKeys | None, timeout_s: float = ANSWER_S) -> Ask:
    """Return what asks the service at an address."""

    def ask(verb: str, args: dict[str, str]) -> dict[str, Any]:
        return control(endpoint, verb, args, timeout_s, keys)

    return ask


class Watch:
    """Asks the replay service on a thread of its own, so that a dead one holds nobody up.

    A context manager. After its end the last answer stays.

    Args:
        ask: asks the service.
        look_s: seconds between two looks.
    """

    def __init__(self, ask: Ask, look_s: float = LOOK_S) -> None:
        self._ask, self._look_s = ask, look_s
        self._returns: deque[float] = deque(maxlen=NEWEST)
        self._next = 0
        self._over = threading.Event()
        self._seen = Seen()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def seen(self) -> Seen:
        """What was said last."""
        return self._seen

    def look(self) -> Seen:
        """Ask now, from the caller's thread, and return what was said last.

        Only without the thread, or after its end.
        """
        try:
            stats = self._ask("stats", {})
            self._note_episodes()
        except ControllerError:
            return self._seen
        self._seen = Seen(stats, tuple(self._returns), self._next)
        return self._seen

    def _note_episodes(self) -> None:
        report = self._ask("episodes", {"since": str(self._next)})
        following = int(report.get("next", self._next))
        if following < self._next:
            # The service lost what it had not saved; its numbers begin where it was.
            self._returns.clear()
        self._next = following
        self._returns.extend(float(e["return"]) for e in report.get("episodes", ()))

    def _run(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(self._look_s)

    def stop(self, timeout_s: float = 2.0 * ANSWER_S) -> None:
        """Look no more, after the look that is going on; idempotent."""
        self._over.set()
        self._thread.join(timeout_s)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # One that waits for a dead service has nothing to tell.
        self.stop(timeout_s=0.1)
