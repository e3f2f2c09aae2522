"""Episodes from several processes, in the order of their numbers.

What comes out does not depend on how many processes there are, on who runs which episode, or on
how fast: episodes are joined by number and cut at exactly the steps asked for.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Protocol

import msgspec
import numpy as np

from controller.process import SINGLE_THREADED, ChildDied
from controller.signals import PARENT_VARIABLE
from sim.generate.rollout import Actor, Columns, Job
from sim.generate.worker import Block, Runner, take_block

BLOCK_STEPS = 2000
"""Steps that one order to a worker is for: 0.1 to 1 s of work."""
MAX_BLOCK_EPISODES = 200
AHEAD = 2
"""Orders given to each worker at a time, so that none waits for the next."""
TAIL_BYTES = 4096


class Progress(Protocol):
    """Told how far a recording is."""

    def __call__(self, done: int, total: int, /) -> object:
        """Take the number of steps done, of ``total``."""
        ...


@dataclass(frozen=True)
class Recording:
    """What one job gave.

    Attributes:
        columns: arrays of exactly the steps asked for, by name.
        lengths: steps of each episode; the last may be cut.
        successes: whether each episode succeeded, the steps beyond the cut included.
    """

    columns: Columns
    lengths: tuple[int, ...]
    successes: tuple[bool, ...]


class Gathering:
    """Puts the blocks of one job in order and stops at its steps.

    Args:
        steps: rows wanted.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.rows, self.episodes = steps, 0, 0
        self._columns: Columns = {}
        self._waiting: dict[int, Block] = {}
        self._lengths: list[int] = []
        self._successes: list[bool] = []

    @property
    def complete(self) -> bool:
        """Whether there are enough rows."""
        return self.rows == self.steps

    def take(self, block: Block) -> None:
        """Take a block; it waits until those before it have come."""
        self._waiting[block.head.first] = block
        while self.episodes in self._waiting and not self.complete:
            self._append(self._waiting.pop(self.episodes))

    def block_episodes(self) -> int:
        """Return how many episodes the next order should be for, by the lengths so far."""
        if not self.episodes:
            return 1
        steps = min(BLOCK_STEPS, self.steps - self.rows)
        return min(max(-(-steps * self.episodes // self.rows), 1), MAX_BLOCK_EPISODES)

    def lacks(self, episodes: int) -> bool:
        """Return whether more than ``episodes`` will be needed, by the lengths so far."""
        return self.rows * episodes <= self.steps * self.episodes

    def recording(self) -> Recording:
        """Return the rows; the last one ends an episode."""
        columns = self._columns
        columns["timeouts"][-1] = not columns["terminals"][-1]
        return Recording(columns, tuple(self._lengths), tuple(self._successes))

    def _append(self, block: Block) -> None:
        room = self.steps - self.rows
        for name, values in block.columns.items():
            if name not in self._columns:
                self._columns[name] = np.zeros((self.steps, *values.shape[1:]), values.dtype)
            kept = values[:room]
            self._columns[name][self.rows : self.rows + len(kept)] = kept
        for length, success in zip(block.head.lengths, block.head.successes, strict=True):
            if self.rows < self.steps:
                kept_steps = min(length, self.steps - self.rows)
                self._lengths.append(kept_steps)
                self._successes.append(success)
                self.rows += kept_steps
        self.episodes += len(block.head.lengths)


def record_here(
    jobs: Sequence[Job],
    steps: Sequence[int],
    on_progress: Progress | None = None,
    actor: Actor | None = None,
) -> list[Recording]:
    """Run jobs in this process; as ``record``, with an actor that no process can be sent."""
    runner, done, recordings = Runner(jobs, actor), 0, []
    with contextlib.closing(runner):
        for job, wanted in enumerate(steps):
            gathering = Gathering(wanted)
            while not gathering.complete:
                first, count = gathering.episodes, gathering.block_episodes()
                gathering.take(runner.run(job, first, count))
                _tell(on_progress, done + gathering.rows, sum(steps))
            done += wanted
            recordings.append(gathering.recording())
    return recordings


def record(
    jobs: Sequence[Job],
    steps: Sequence[int],
    processes: int,
    on_progress: Progress | None = None,
) -> list[Recording]:
    """Run jobs in processes of their own.

    Args:
        jobs: what to run, one after another.
        steps: control steps of each.
        processes: how many.
        on_progress: told now and then how far it is.

    Raises:
        ChildDied: a process ended; with what it said last.
    """
    done, recordings = 0, []
    with _Workers(jobs, processes) as workers:
        for job, wanted in enumerate(steps):
            gathering = Gathering(wanted)
            workers.begin(job)
            while not gathering.complete:
                workers.keep_busy(gathering)
                gathering.take(workers.next())
                _tell(on_progress, done + gathering.rows, sum(steps))
            done += wanted
            recordings.append(gathering.recording())
    return recordings


class _Worker:
    """One process and the thread that reads what it sends.

    Attributes:
        orders: blocks asked for that have not come.
    """

    def __init__(
        self, jobs: Sequence[Job], arrived: queue.SimpleQueue[tuple[_Worker, Block | None]]
    ) -> None:
        environment = {**os.environ, **SINGLE_THREADED, PARENT_VARIABLE: str(os.getpid())}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sim.generate.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._orders: IO[bytes] = self._process.stdin
        self._thread = threading.Thread(
            target=self._read, args=(self._process.stdout, arrived), daemon=True
        )
        self.orders = 0
        self._write(msgspec.json.encode(list(jobs)) + b"\n")
        self._thread.start()

    def order(self, job: int, first: int, count: int) -> None:
        """Ask for a block."""
        self.orders += 1
        self._write(f"{job} {first} {count}\n".encode())

    def kill(self) -> None:
        """End it at once. Idempotent."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()

    def death(self) -> ChildDied:
        """Return the error that says how it ended."""
        code = self._process.wait()
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line]
        how = f"exit status {code}" if code >= 0 else f"killed by signal {-code}"
        said = lines[-1].strip() if lines else "it wrote no message"
        return ChildDied(f"a process that ran episodes died ({how}): {said}")

    def _write(self, line: bytes) -> None:
        # A process that has died is noticed by its end of output, with its message.
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(line)
            self._orders.flush()

    def _read(
        self, source: io.BufferedReader, arrived: queue.SimpleQueue[tuple[_Worker, Block | None]]
    ) -> None:
        while True:
            block = take_block(source)
            arrived.put((self, block))
            if block is None:
                return


class _Workers:
    """The processes of one recording; leaving the context ends them, whatever happened."""

    def __init__(self, jobs: Sequence[Job], processes: int) -> None:
        self._jobs, self._count = jobs, processes
        self._arrived: queue.SimpleQueue[tuple[_Worker, Block | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._job = self._ordered = self._arriving = 0

    def __enter__(self) -> _Workers:
        try:
            for _ in range(self._count):
                self._workers.append(_Worker(self._jobs, self._arrived))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.kill()

    def begin(self, job: int) -> None:
        """Turn to a job; what is still under way for another is thrown away."""
        self._job, self._ordered, self._arriving = job, 0, 0

    def keep_busy(self, gathering: Gathering) -> None:
        """Give orders up to ``AHEAD`` for each worker, but no more than will be needed."""
        count = gathering.block_episodes()
        for worker in AHEAD * self._workers:
            if worker.orders < AHEAD and (gathering.lacks(self._ordered) or not self._arriving):
                worker.order(self._job, self._ordered, count)
                self._ordered += count
                self._arriving += 1

    def next(self) -> Block:
        """Wait for a block of the job.

        Raises:
            ChildDied: a process ended.
        """
        while True:
            worker, block = self._arrived.get()
            if block is None:
                raise worker.death()
            worker.orders -= 1
            if block.head.job == self._job:
                self._arriving -= 1
                return block


def _tell(on_progress: Progress | None, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(done, total)
