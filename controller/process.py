"""Starting, watching and ending processes, so that none is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from controller.errors import ControllerError, PeerTimeout
from controller.runtime_directory import RuntimeDirectory
from controller.signals import PARENT_VARIABLE, StopFlag, die_with_parent

__all__ = [
    "Child",
    "ChildDied",
    "RuntimeDirectory",
    "StopFlag",
    "Supervisor",
    "die_with_parent",
]

SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""A second BLAS thread on small products costs a loop milliseconds at the tail."""

_TAIL_BYTES = 8192


class ChildDied(ControllerError, ChildProcessError):
    """A supervised process could not be started, or ended before it was told to."""


class Child:
    """A process in a session of its own: Ctrl-C in the terminal reaches only the launcher.

    Its standard input is empty. What it writes goes to a temporary file, standard output too
    unless ``stdout`` is given, so that nothing mixes with what the launcher prints.

    Args:
        args: program and arguments.
        name: what people call it, for messages.
        environment: variables beside the inherited ones and the single BLAS thread.
        niceness: added to its scheduling priority; 19 yields to everything.
        stdout: file that takes its standard output.
        log: file that takes what else it writes, kept after the end.
        descriptors: open file descriptors that it inherits, under the same numbers.
    """

    def __init__(
        self,
        args: Sequence[str],
        name: str,
        *,
        environment: Mapping[str, str] | None = None,
        niceness: int = 0,
        stdout: Path | None = None,
        log: Path | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.args = tuple(args)
        self.name = name
        # Unbuffered, or what a process said first would be written last, after its error.
        self._environment = {**SINGLE_THREADED, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._niceness = niceness
        self._stdout = stdout
        self._log = log
        self._descriptors = tuple(descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        self._captured: IO[bytes] | None = None
        self._tail = b""

    @property
    def pid(self) -> int:
        """Process id, also the id of its session and group; 0 before the start."""
        return self._process.pid if self._process else 0

    def start(self) -> Child:
        """Start it, from the main thread, and return self.

        Raises:
            ChildDied: the program cannot be run.
        """
        assert self._process is None, f"{self.name} is started already"
        environment = {**os.environ, **self._environment, PARENT_VARIABLE: str(os.getpid())}
        self._captured = _capture(self._log)
        with contextlib.ExitStack() as stack:
            out: IO[bytes] = self._captured
            if self._stdout is not None:
                out = stack.enter_context(self._stdout.open("wb"))
            try:
                self._process = subprocess.Popen(
                    self.args,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=self._captured,
                    env=environment,
                    start_new_session=True,
                    pass_fds=self._descriptors,
                )
            except OSError as error:
                self._captured.close()
                self._captured = None
                raise ChildDied(
                    f"{self.name} cannot be started: {self.args[0]}: {error.strerror}"
                ) from error
        if self._niceness:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, self.pid, self._niceness)
        return self

    def poll(self) -> int | None:
        """Return the exit status, negative for the signal that ended it; None while it runs."""
        return self._process.poll() if self._process else None

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit status, or None when it still runs after ``timeout_s``."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def status(self) -> str:
        """Return in words how it ended: ``exit status 2``, ``killed by SIGKILL``."""
        code = self.poll()
        if code is None:
            return "running" if self._process else "not started"
        if code >= 0:
            return f"exit status {code}"
        return f"killed by {_signal_name(-code)}"

    def last_error(self) -> str:
        """Return the last line it wrote, printable characters only; empty without one."""
        if self._captured is not None:
            # Read at a place of its own: the child shares the file's write position.
            size = os.fstat(self._captured.fileno()).st_size
            start = max(0, size - _TAIL_BYTES)
            self._tail = os.pread(self._captured.fileno(), _TAIL_BYTES, start)
        lines = self._tail.decode(errors="replace").splitlines()
        printable = ("".join(c for c in line if c.isprintable()).strip() for line in lines)
        return next((line for line in reversed(list(printable)) if line), "")

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it and all it started: SIGTERM, up to ``timeout_s``, then SIGKILL. Idempotent."""
        deadline = time.monotonic() + timeout_s
        if self._process is not None and self.poll() is None:
            self._process.terminate()
            self.wait(timeout_s)
        # What it started may need a moment more: a recorder that finishes its file.
        while self._process is not None and _group_alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """End it and all it started at once. Idempotent."""
        if self._process is None or self._captured is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.last_error()
        self._captured.close()
        self._captured = None


class Supervisor:
    """Starts processes in order and stops them in reverse order, whatever happens between."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self.children: list[Child] = []
        self._timeout_s = timeout_s

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, child: Child) -> Child:
        """Start ``child`` and stop it with the others."""
        self.children.append(child)
        return child.start()

    def replace(self, dead: Child, child: Child) -> Child:
        """Start ``child`` in the place of one that has ended."""
        dead.kill()
        self.children[self.children.index(dead)] = child
        return child.start()

    def check(self) -> None:
        """Raise :class:`ChildDied` in one line if a process ended."""
        for child in self.children:
            if child.poll() is not None:
                message = child.last_error() or "it wrote no message"
                raise ChildDied(f"{child.name} died ({child.status()}): {message}")

    def wait_until(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until ``ready()``.

        Raises:
            ChildDied: a process ended meanwhile.
            PeerTimeout: not ready within ``timeout_s``; ``what`` is named.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise PeerTimeout(f"{what}: not ready within {timeout_s:g} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop all in reverse order; a second Ctrl-C meanwhile kills the rest at once."""
        children = list(reversed(self.children))
        try:
            for child in children:
                child.stop(self._timeout_s)
        finally:
            for child in children:
                child.kill()


def _capture(log: Path | None) -> IO[bytes]:
    if log is None:
        return tempfile.TemporaryFile()
    return log.open("w+b")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _group_alive(group: int) -> bool:
    """Return whether a process of the group is left that has not ended."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if sys.platform != "linux":
        return True
    groups = (_group_of(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return any(found == group for found in groups)


def _group_of(pid: str) -> int | None:
    """Return the group of a process, None when it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if words[0] in "ZX" else int(words[2])
