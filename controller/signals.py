"""When a process should end: on a signal, or with the process that started it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

PARENT_VARIABLE = "ONEBEAT_PARENT"
_PR_SET_PDEATHSIG = 1


class StopFlag:
    """Turns SIGINT, SIGTERM and SIGHUP into a question: ``while not stop(): ...``.

    A second Ctrl-C raises KeyboardInterrupt. A SIGHUP that the caller's caller ignores, as
    nohup does, stays ignored. Only the main thread may make one; leaving the context puts the
    earlier handlers back.

    Args:
        on_stop: called once at the first signal, in the signal handler, so it may do no
            more than set a flag.
    """

    def __init__(self, on_stop: Callable[[], None] | None = None) -> None:
        self._on_stop = on_stop
        self._set = False
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }

    def __call__(self) -> bool:
        """Return whether it is time to stop."""
        return self._set

    def set(self) -> None:
        """Stop, as a signal would."""
        first, self._set = not self._set, True
        if first and self._on_stop is not None:
            self._on_stop()

    def close(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> StopFlag:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.set()


def die_with_parent(parent_pid: int | None = None, signum: int = signal.SIGKILL) -> bool:
    """Have the kernel end this process when its parent ends; return whether that is arranged.

    Call it first thing. The parent's thread that started this process counts as the parent.
    On systems other than Linux nothing happens.

    Args:
        parent_pid: the parent; None takes it from the environment a :class:`Child` was
            given, and does nothing where there is none, as in a shell.
        signum: what to send. SIGTERM lets the process end in order, but one that hangs
            survives it.
    """
    given = os.environ.pop(PARENT_VARIABLE, "")
    if parent_pid is None:
        if not given.isdigit():
            return False
        parent_pid = int(given)
    if sys.platform != "linux":
        return False
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        return False
    # The parent may have ended before the kernel was asked to watch it.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signum)
    return True
