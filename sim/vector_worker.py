"""The process that steps some of the copies of ``sim.vector``: ``python -m sim.vector_worker``.

Its arguments are a socket and a :class:`Job`. Numbers cross in shared memory; what is said over
the socket is one byte for "step" or a :class:`Begin`, and the answer one byte or a
:class:`~sim.vector_copies.Fault`.
"""

from __future__ import annotations

import mmap
import socket
import sys
from typing import Any

import msgspec

from controller.signals import die_with_parent
from sim.linked import serve
from sim.registry import make_plant
from sim.vector_copies import Copies, block_in

STEP = b"s"
DONE = b"."


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which copies to step.

    Attributes:
        task: name of the task.
        options: keyword arguments of ``sim.registry.make_plant``.
        seed: of the vector.
        num: copies of the vector.
        first: index of the first copy to step here.
        last: index after the last.
        memory: descriptor of the shared memory.
    """

    task: str
    options: dict[str, Any]
    seed: int
    num: int
    first: int
    last: int
    memory: int


class Begin(msgspec.Struct, frozen=True):
    """Begin an episode in every copy."""

    seed: int | None


def open_copies(job: Job, memory: mmap.mmap | bytearray) -> Copies:
    """Build the plants of a job."""
    plants = [make_plant(job.task, **job.options) for _ in range(job.first, job.last)]
    spec = plants[0].spec
    steppers = [plant.stepper for plant in plants]
    return Copies(steppers, spec, block_in(memory, spec, job.num), job.first, job.seed)


def answer(copies: Copies, message: bytes) -> bytes:
    """Do what a message says and return what came of it."""
    if message == STEP:
        fault = copies.step()
    else:
        fault = copies.reset(msgspec.json.decode(message, type=Begin).seed)
    return msgspec.json.encode(fault) if fault else DONE


def main() -> int:
    """Do what the socket says until it closes."""
    die_with_parent()
    link = socket.socket(fileno=int(sys.argv[1]))
    job = msgspec.json.decode(sys.argv[2], type=Job)
    copies = open_copies(job, mmap.mmap(job.memory, 0))
    link.send(DONE)
    serve(link, lambda message: answer(copies, message))
    copies.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
