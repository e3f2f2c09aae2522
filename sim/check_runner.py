"""Checking many tasks in processes of their own, each task within a time limit.

A task that crashes, hangs or leaves something behind fails by itself. The processes run this
module: ``python -m sim.check_runner``.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from controller.errors import ControllerError
from controller.signals import die_with_parent
from sim.check import check_task
from sim.linked import Linked, serve

PASSED = b"."
START_S = 60.0
"""Allowance for starting a process, beside the limit of the first task it checks."""


class Verdict(msgspec.Struct, frozen=True):
    """One row of ``onebeat sim check``.

    Attributes:
        task: name of the task.
        ok: whether it keeps its promises.
        why: which it does not, else empty.
        seconds: how long the check took.
    """

    task: str
    ok: bool
    why: str
    seconds: float


class Job(msgspec.Struct, frozen=True):
    """How to check.

    Attributes:
        steps: control steps of each drive.
    """

    steps: int


def check_tasks(
    names: Sequence[str], *, processes: int, limit_s: float, steps: int
) -> Iterator[Verdict]:
    """Check tasks and yield verdicts as they come.

    Args:
        names: the tasks.
        processes: how many to check at a time, at least 1.
        limit_s: how long one may take.
        steps: control steps of each drive.
    """
    left = deque(names)
    with _Checkers(Job(steps), limit_s) as checkers:
        for _ in range(min(processes, len(left))):
            checkers.start(left.popleft())
        while checkers.busy:
            for checker, verdict in checkers.finished():
                yield verdict
                if left and checker.usable:
                    checker.begin(left.popleft())
                else:
                    checkers.end(checker)
                    if left:
                        checkers.start(left.popleft())


class _Checker:
    """One process and the task it checks."""

    def __init__(self, job: Job) -> None:
        self.process = Linked("sim.check_runner", job, "the checking process")
        self.usable = True
        self._allowance_s = START_S

    def begin(self, task: str) -> None:
        self._task, self._since_s = task, time.monotonic()
        self.process.send(task.encode())

    def overdue_s(self, limit_s: float) -> float:
        """Return by how much it is late, negative for the time it has left."""
        return time.monotonic() - self._since_s - limit_s - self._allowance_s

    def verdict(self) -> Verdict:
        """Take the verdict that has come in."""
        try:
            message = self.process.receive()
        except ControllerError as error:
            return self.broken(str(error))
        self._allowance_s = 0.0
        return self._verdict("" if message == PASSED else message.decode(errors="replace"))

    def broken(self, why: str) -> Verdict:
        """Return a verdict after which the process is of no use."""
        self.usable = False
        return self._verdict(why)

    def _verdict(self, why: str) -> Verdict:
        return Verdict(self._task, not why, why, round(time.monotonic() - self._since_s, 3))


class _Checkers:
    """The processes at work."""

    def __init__(self, job: Job, limit_s: float) -> None:
        self._job, self._limit_s = job, limit_s
        self._selector = selectors.DefaultSelector()
        self.busy: list[_Checker] = []

    def __enter__(self) -> _Checkers:
        return self

    def __exit__(self, *error: object) -> None:
        for checker in list(self.busy):
            self.end(checker, 0.0)
        self._selector.close()

    def start(self, task: str) -> None:
        """Start a process and have it check a task."""
        checker = _Checker(self._job)
        self.busy.append(checker)
        self._selector.register(checker.process.link, selectors.EVENT_READ, checker)
        checker.begin(task)

    def end(self, checker: _Checker, timeout_s: float = 2.0) -> None:
        """End a process, at once if it is of no more use."""
        self.busy.remove(checker)
        self._selector.unregister(checker.process.link)
        checker.process.close(timeout_s if checker.usable else 0.0)

    def finished(self) -> list[tuple[_Checker, Verdict]]:
        """Wait until a verdict comes in or a limit runs out."""
        overdue_s = max(checker.overdue_s(self._limit_s) for checker in self.busy)
        if ready := self._selector.select(max(0.0, -overdue_s)):
            return [(key.data, key.data.verdict()) for key, _ in ready]
        late = [each for each in self.busy if each.overdue_s(self._limit_s) >= 0]
        return [(each, each.broken(f"not done within {self._limit_s:g} s")) for each in late]


def verdict_of(name: str, steps: int) -> str:
    """Check one task here; return which promise it breaks, else nothing."""
    try:
        check_task(name, steps)
    except (AssertionError, ControllerError) as error:
        return _first_line(error) or type(error).__name__
    except Exception as error:
        return f"{type(error).__name__}: {_first_line(error)}"
    return ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:2000]


def main() -> int:
    """Check the tasks that the socket names until it closes."""
    die_with_parent()
    job = msgspec.json.decode(sys.argv[2], type=Job)
    with socket.socket(fileno=int(sys.argv[1])) as link:
        serve(link, lambda name: verdict_of(name.decode(), job.steps).encode() or PASSED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
