"""The process that runs episodes: jobs and orders on standard input, episodes on standard output.

The first line of input is a JSON list of jobs. Every further line is an order, ``job first
count``: run that many episodes of that job from that number on. The answer to each is one block:
eight bytes with the length of a header, the header, the columns one after another. The end of
the input ends the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import IO

import msgspec
import numpy as np

from controller.errors import ControllerError
from controller.signals import die_with_parent
from sim.env import Env
from sim.generate.actors import make_actor, make_environment
from sim.generate.rollout import Actor, Columns, Job, Rollout
from sim.registry import task_spec


class Head(msgspec.Struct, frozen=True):
    """What a block holds.

    Attributes:
        job: index of the job.
        first: number of the first episode.
        lengths: steps of each episode.
        successes: whether each succeeded.
        columns: (name, type, row shape) of each column, in the order of the bytes.
    """

    job: int
    first: int
    lengths: tuple[int, ...]
    successes: tuple[bool, ...]
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Block:
    """Episodes in a row.

    Attributes:
        head: which.
        columns: arrays of all their steps, by name.
    """

    head: Head
    columns: Columns


class Runner:
    """Runs episodes of several jobs; environments are built once.

    Args:
        jobs: what can be asked for.
        actor: drives all of them; None for what each job names.
    """

    def __init__(self, jobs: Sequence[Job], actor: Actor | None = None) -> None:
        self._jobs, self._actor = jobs, actor
        self._rollouts: dict[int, Rollout] = {}
        self._envs: dict[bytes, Env] = {}

    def run(self, job: int, first: int, count: int) -> Block:
        """Run ``count`` episodes of a job from number ``first`` on."""
        rollout = self._rollout(job)
        episodes = [rollout.run(number) for number in range(first, first + count)]
        columns = {
            name: np.concatenate([episode.columns[name] for episode in episodes])
            for name in episodes[0].columns
        }
        head = Head(
            job,
            first,
            tuple(len(episode.columns["rewards"]) for episode in episodes),
            tuple(episode.success for episode in episodes),
            tuple((name, str(c.dtype), c.shape[1:]) for name, c in columns.items()),
        )
        return Block(head, columns)

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs.values():
            env.close()
        self._envs, self._rollouts = {}, {}

    def _rollout(self, index: int) -> Rollout:
        if index not in self._rollouts:
            job = self._jobs[index]
            spec = task_spec(job.task)
            actor = self._actor or make_actor(job, spec)
            self._rollouts[index] = Rollout(self._env(job), spec, actor, job)
        return self._rollouts[index]

    def _env(self, job: Job) -> Env:
        key = msgspec.json.encode((job.task, job.driver == "navigation", job.options))
        if key not in self._envs:
            self._envs[key] = make_environment(job)
        return self._envs[key]


def put_block(block: Block, out: IO[bytes]) -> None:
    """Write a block."""
    head = msgspec.msgpack.encode(block.head)
    out.write(len(head).to_bytes(8, "little"))
    out.write(head)
    for column in block.columns.values():
        out.write(np.ascontiguousarray(column).data)
    out.flush()


def take_block(source: BufferedReader) -> Block | None:
    """Read a block; None at the end of the input, or where it breaks off."""
    length = source.read(8)
    if len(length) < 8:
        return None
    content = source.read(int.from_bytes(length, "little"))
    try:
        head = msgspec.msgpack.decode(content, type=Head)
    except msgspec.DecodeError:
        return None
    columns: Columns = {}
    for name, kind, shape in head.columns:
        column = np.empty((sum(head.lengths), *shape), kind)
        if source.readinto(column.data.cast("B")) != column.nbytes:
            return None
        columns[name] = column
    return Block(head, columns)


def main() -> int:
    """Serve until the input ends."""
    die_with_parent()
    jobs = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[Job])
    # What a library prints, in Python or in C, must not get among the blocks.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    runner = Runner(jobs)
    try:
        while line := sys.stdin.buffer.readline():
            job, first, count = (int(word) for word in line.split())
            put_block(runner.run(job, first, count), out)
    except ControllerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        return 1
    runner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
