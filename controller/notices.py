"""Events of the loop, held back where they come too often."""

from __future__ import annotations

from collections.abc import Callable

from controller.interfaces import Clock, Sink

Notify = Callable[[str, str], None]
"""Takes the kind and the detail of an event."""


class Notices:
    """Events to a sink, at most one per kind and interval; the next one counts the others.

    Args:
        sink: where they go.
        clock: stamps them.
        interval_ns: shortest distance of two events of a kind.
    """

    def __init__(self, sink: Sink, clock: Clock, interval_ns: int = 1_000_000_000) -> None:
        self._sink = sink
        self._clock = clock
        self._interval_ns = interval_ns
        self._last_ns: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def __call__(self, kind: str, detail: str) -> None:
        """Hand over the event, or count it as held back."""
        now_ns = self._clock.now_ns()
        last_ns = self._last_ns.get(kind)
        if last_ns is not None and now_ns - last_ns < self._interval_ns:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return
        self._last_ns[kind] = now_ns
        missing = self._held_back.pop(kind, 0)
        self._sink.event(now_ns, kind, f"{detail} ({missing} more before)" if missing else detail)
