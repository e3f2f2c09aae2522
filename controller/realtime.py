"""Making a process fit for deadlines, as far as the machine allows.

For the process of the control loop only: a child process inherits none of it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from controller.loop_config import LoopConfig

PRIORITY: Final = 50
"""SCHED_FIFO priority: above every ordinary process, below the kernel's own threads."""

_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_PR_SET_TIMERSLACK: Final = 29
_PR_GET_TIMERSLACK: Final = 30


def prepare(config: LoopConfig) -> list[str]:
    """Apply what the machine allows: SCHED_FIFO, locked memory, core, timer slack, no collector.

    Call it after warm-up and before the loop: objects that live by then are never looked at by
    the collector again, and the collector does not run until it is enabled.

    Returns:
        One sentence for each thing that the machine did not allow; never an exception.
    """
    notes = [_pin(config.cpu), _take_fifo(config.sched_fifo), _lock_memory(), _set_slack(1)]
    gc.collect()
    gc.freeze()
    gc.disable()
    return [note for note in notes if note]


@contextmanager
def realtime_section(config: LoopConfig) -> Iterator[list[str]]:
    """Apply :func:`prepare` to the body, giving its notes; undo everything afterwards."""
    cores = os.sched_getaffinity(0)
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    slack_ns = _libc().prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    collecting = gc.isenabled()
    try:
        yield prepare(config)
    finally:
        _restore_scheduler(policy, parameters)
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
        _libc().munlockall()
        _set_slack(max(slack_ns, 0))
        gc.unfreeze()
        if collecting:
            gc.enable()


@contextmanager
def urgent(wish: str = "auto") -> Iterator[None]:
    """Run the body, and threads it starts, under SCHED_FIFO where the machine allows it.

    For what a tick waits for: the servers, and the threads that move the loop's messages,
    which inherit it when the sockets are made in here. Below the loop's own priority.

    Measured with both cores busy at the lowest priority, 100 Hz: without it a request and its
    answer take 4 to 5 ms at p99, for a scheduler lets the busy task finish its slice.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    if wish != "off":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY - 10))
    try:
        yield
    finally:
        _restore_scheduler(policy, parameters)


def has_fifo() -> bool:
    """Return whether this process runs under SCHED_FIFO."""
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO


def _pin(core: int | None) -> str:
    if core is None:
        return ""
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, ValueError) as error:
        cores = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        return f"the loop is not kept on core {core} ({_text(error)}): it may use {cores}"
    return ""


def _take_fifo(wish: str) -> str:
    if wish == "off":
        return ""
    try:
        flags = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, flags, os.sched_param(PRIORITY))
    except OSError as error:
        return (
            f"no SCHED_FIFO ({_text(error)}): other processes can delay a tick; it takes "
            "CAP_SYS_NICE or an rtprio limit (ulimit -r) of at least 50"
        )
    return ""


def _restore_scheduler(policy: int, parameters: os.sched_param) -> None:
    if os.sched_getscheduler(0) == policy:
        return
    try:
        os.sched_setscheduler(0, policy, parameters)
    except PermissionError:
        # Only a privileged process may clear the flag again.
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, parameters)


def _lock_memory() -> str:
    # Under a finite limit MCL_FUTURE would make later allocations fail in mid-run.
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and os.geteuid() != 0:
        return (
            f"memory is not locked (limit {limit // 1024} KiB): a page fault can delay a tick; "
            "it takes an unlimited memlock limit (ulimit -l)"
        )
    if _libc().mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        reason = os.strerror(ctypes.get_errno())
        return f"memory is not locked ({reason}): a page fault can delay a tick"
    return ""


def _set_slack(slack_ns: int) -> str:
    if _libc().prctl(_PR_SET_TIMERSLACK, slack_ns, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        return f"timer slack is not reduced ({reason}): sleeps end up to 50 µs late"
    return ""


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return libc


def _text(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return (reason or str(error)).lower()
