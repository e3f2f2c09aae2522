"""Processes of a plan, several at a time; one that fails does not stop the others."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from controller.interfaces import Clock
from controller.process import Child, Supervisor

POLL_S = 0.1
LOOK_NS = 1_000_000_000
"""Between two looks at how far it is."""
SAVE_S = 60.0
"""Time that a training has to write its state when it is told to stop; it may be compiling."""


def _nothing() -> Iterable[Job]:
    return ()


def _silent(words: str) -> None:
    del words


@dataclass
class Job:
    """One call of a verb of this program.

    Attributes:
        name: what people call it.
        verb: of this program.
        words: of its command line.
        log: file that keeps what it says.
        stdout: file that takes its result; None puts it into ``log``.
        skip: asked right before the start: whether to pass it over.
        after: called when it has succeeded; returns what can be done then.
        failed: called with its last words when it has not.
    """

    name: str
    verb: str
    words: list[str]
    log: Path
    stdout: Path | None = None
    skip: Callable[[], bool] = bool
    after: Callable[[], Iterable[Job]] = field(default_factory=lambda: _nothing)
    failed: Callable[[str], None] = field(default_factory=lambda: _silent)

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "controller.cli", *self.verb.split(), *self.words]


Make = Callable[[Job, int], Child]


def work(
    jobs: Iterable[Job],
    workers: int,
    *,
    niceness: int = 0,
    should_stop: Callable[[], bool] = bool,
    look: Callable[[], None] = lambda: None,
    make: Make | None = None,
) -> bool:
    """Do jobs, and those that come of them before the others; return whether all had their turn.

    When it is time to stop, those at work are told to, with SIGTERM, and waited for.

    Args:
        jobs: what to do, in this order.
        workers: processes at the same time.
        niceness: added to their priority.
        should_stop: asked ten times a second.
        look: called as often.
        make: makes the process of a job with a priority, not yet started; a process of this
            machine where there is none, see :func:`placed`.
    """
    make = make or _child
    waiting = deque(jobs)
    running: list[tuple[Job, Child]] = []
    with Supervisor(timeout_s=SAVE_S) as supervisor:
        while waiting or running:
            if should_stop():
                return False
            while waiting and len(running) < workers:
                job = waiting.popleft()
                if not job.skip():
                    running.append((job, supervisor.start(make(job, niceness))))
            for job, child in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((job, child))
                supervisor.children.remove(child)
                waiting.extendleft(reversed(list(_finish(job, child))))
            look()
            if running:
                time.sleep(POLL_S)
    return True


class Place(Protocol):
    """The settings of a plan that say where and how its processes run."""

    @property
    def out(self) -> str:
        """Directory of the runs."""
        ...

    @property
    def ray(self) -> bool | str:
        """See :func:`placed`."""
        ...

    @property
    def workers(self) -> int:
        """Processes at the same time."""
        ...

    @property
    def niceness(self) -> int:
        """Of these processes."""
        ...


def carry_out(
    plan: Place,
    jobs: Iterable[Job],
    clock: Clock,
    should_stop: Callable[[], bool],
    show: Callable[[], None] | None,
) -> bool:
    """Do the jobs of a plan where it wants them; return whether all had their turn.

    Args:
        plan: says where.
        jobs: what to do, in this order.
        clock: time.
        should_stop: asked all the while.
        show: called about once a second, to tell how far it is.
    """
    seen_ns = 0

    def look() -> None:
        nonlocal seen_ns
        if show is not None and clock.now_ns() - seen_ns >= LOOK_NS:
            seen_ns = clock.now_ns()
            show()

    with placed(plan.ray, plan.workers, Path(plan.out)) as make:
        return work(
            jobs,
            plan.workers,
            niceness=plan.niceness,
            should_stop=should_stop,
            look=look,
            make=make,
        )


@contextmanager
def placed(ray: bool | str, workers: int, out: Path) -> Iterator[Make | None]:
    """Give what makes the processes of jobs where a plan wants them, for :func:`work`.

    Args:
        ray: false for this machine; true for a Ray of this machine, else the address of a
            cluster.
        workers: processes at the same time.
        out: directory that every node of the cluster must have, below its working directory if
            it is relative.

    Raises:
        ConfigError: no such cluster.
        ModuleNotFoundError: Ray is wanted and not installed.
    """
    if not ray:
        yield None
        return
    from controller.ray_child import LOCAL, connect

    out.mkdir(parents=True, exist_ok=True)
    address = ray if isinstance(ray, str) else LOCAL
    with (
        connect(address, workers) as cluster,
        tempfile.NamedTemporaryFile(prefix=".shared-", dir=out.resolve()) as mark,
    ):

        def make(job: Job, niceness: int) -> Child:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            return cluster.child(
                [*job.verb.split(), *job.words],
                job.name,
                niceness=niceness,
                stdout=job.stdout,
                log=job.log,
                shared=mark.name,
            )

        yield make


def _child(job: Job, niceness: int) -> Child:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    # A child's is absolute, and below its parent's one needs a privilege.
    absolute = min(19, os.nice(0) + niceness)
    return Child(job.command(), job.name, niceness=absolute, stdout=job.stdout, log=job.log)


def _finish(job: Job, child: Child) -> Iterable[Job]:
    """Take note of the end of a job; return what comes of it."""
    said, status = child.last_error(), child.status()
    well = child.poll() == 0
    child.kill()
    if well:
        return job.after()
    prefix, _, message = said.partition(": ")
    job.failed((message if prefix.startswith("onebeat ") else said) or status)
    return ()
