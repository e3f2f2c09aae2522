"""The machine's clock and a virtual one."""

from __future__ import annotations

import time


class MonotonicClock:
    """CLOCK_MONOTONIC, shared by all processes of one machine.

    Args:
        spin_ns: busy-wait the last ``spin_ns`` of every sleep. Worth it only where the
            process may keep its core: on a contended core a spinner loses it when it counts.
    """

    def __init__(self, spin_ns: int = 0) -> None:
        self.spin_ns = spin_ns

    now_ns = staticmethod(time.monotonic_ns)
    """Return monotonic nanoseconds. A tick asks two dozen times: without a frame each."""

    def sleep_until(self, deadline_ns: int) -> None:
        """Sleep to ``deadline_ns``, spinning through the last ``spin_ns``."""
        remaining = deadline_ns - self.spin_ns - time.monotonic_ns()
        if remaining > 0:
            time.sleep(remaining / 1e9)
        while time.monotonic_ns() < deadline_ns:
            if not self.spin_ns:
                time.sleep(0)


class VirtualClock:
    """A clock that moves only when told: runs are deterministic and faster than real time."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return virtual nanoseconds."""
        return self._now_ns

    def sleep_until(self, deadline_ns: int) -> None:
        """Jump to ``deadline_ns`` if it lies ahead."""
        self._now_ns = max(self._now_ns, deadline_ns)

    def advance(self, duration_ns: int) -> None:
        """Let ``duration_ns`` pass: how tests make work take time."""
        self._now_ns += duration_ns
