"""Several copies of a task in lockstep, over the processors of the machine.

The copies are divided into equal consecutive shares. The caller's process steps the first share
itself, as it would only wait meanwhile, and one more process steps each other share, so that
``processes=2`` uses two processors. Results do not depend on the division.
"""

from __future__ import annotations

import mmap
import os
from itertools import pairwise
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError, ControllerError, PlantLost
from controller.safety import is_finite
from controller.spec import Spec
from controller.types import Array, VectorStep
from sim import errors
from sim.linked import Linked
from sim.registry import task_named
from sim.vector_copies import Block, Fault, block_in, block_size
from sim.vector_worker import DONE, STEP, Begin, Job, open_copies


def make_vector(
    task: str,
    num: int,
    *,
    seed: int = 0,
    processes: int | None = None,
    **options: Any,  # noqa: ANN401
) -> ParallelVector:
    """Build ``num`` copies of a task; see :class:`controller.interfaces.VectorPlant`.

    Args:
        task: name of the task.
        num: how many copies.
        seed: of everything that follows, until a reset brings another.
        processes: processes to step them in, the caller's among them; 0 or 1 starts none, None
            takes as many as there are processors for the caller. They end with the thread that
            made them.
        options: keyword arguments of :func:`sim.registry.make_plant`, as ``episode_steps`` or
            an option of the task's environment; plain values, as JSON has them.

    Raises:
        ConfigError: there is no such task or option, or a number is out of range.
    """
    if num < 1 or seed < 0 or (processes is not None and processes < 0):
        raise ConfigError(
            f"num={num}, seed={seed}, processes={processes}: expected num of 1 or more, seed and "
            "processes of 0 or more"
        )
    if processes is None:
        processes = len(os.sched_getaffinity(0))
    plain = _plain(options)
    shares = np.linspace(0, num, max(1, min(processes, num)) + 1).round().astype(int).tolist()
    return ParallelVector(task_named(task).name, num, seed, plain, shares)


class ParallelVector:
    """Copies of one task, stepped at the same time; :func:`make_vector` builds it.

    Args:
        task: name of the task.
        num: how many copies.
        seed: of the first reset.
        options: of the plants.
        edges: index of the first copy of each share, and ``num``.
    """

    def __init__(
        self, task: str, num: int, seed: int, options: dict[str, Any], edges: list[int]
    ) -> None:
        self._spec = task_named(task).spec()
        self._num = num
        self._closed = False
        self._stale = True
        size = block_size(self._spec, num)
        descriptor = os.memfd_create("onebeat-vector")
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        self._block: Block = block_in(self._memory, self._spec, num)
        self._workers: list[Linked] = []
        jobs = [
            Job(task, options, seed, num, first, last, descriptor)
            for first, last in pairwise(edges)
        ]
        try:
            for job in jobs[1:]:
                name = f"{task}: the process of copies {job.first} to {job.last - 1}"
                self._workers.append(Linked("sim.vector_worker", job, name, (descriptor,)))
            self._own = open_copies(jobs[0], self._memory)
            self._answers()
        except BaseException:
            self._kill()
            raise
        finally:
            os.close(descriptor)

    @property
    def spec(self) -> Spec:
        """What each copy looks like."""
        return self._spec

    @property
    def num(self) -> int:
        """How many copies there are."""
        return self._num

    def reset(self, seed: int | None = None) -> NDArray[np.float64]:
        """Begin an episode in every copy; return the observations (N, D).

        With ``seed`` everything that follows is determined by it; without, each copy goes on
        to its next episode.

        Raises:
            PlantLost: it is closed, or a process of it ended.
        """
        if seed is not None and seed < 0:
            raise ConfigError(f"seed={seed}: expected 0 or more")
        self._all(msgspec.json.encode(Begin(seed)), seed)
        return self._block.observations.copy()

    def step(self, actions: Array) -> VectorStep:
        """Apply actions (N, *spec.action.shape), one control step each.

        Raises:
            ActionMismatch: the actions have another shape, or one is not finite.
            EpisodeOver: it was never reset, or not since a copy failed.
            SimError: a copy failed, and which. A reset begins anew.
            PlantLost: it is closed, or a process of it ended.
        """
        if self._stale and not self._closed:
            raise errors.EpisodeOver(f"{self._spec.task}: no episodes are running; reset first")
        self._put(actions)
        self._all(STEP, None)
        block = self._block
        return VectorStep(
            block.observations.copy(),
            block.next_observations.copy(),
            block.rewards.copy(),
            block.terminated.copy(),
            block.truncated.copy(),
            block.success.copy(),
            block.episode_returns.copy(),
            block.episode_steps.copy(),
        )

    def close(self) -> None:
        """Release the copies and end the processes; safe to call twice."""
        if not self._closed:
            self._own.close()
            self._kill()

    def __enter__(self) -> ParallelVector:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _put(self, actions: Array) -> None:
        block = self._block.actions
        given = np.asarray(actions)
        if given.shape != block.shape:
            raise errors.ActionMismatch(
                f"{self._spec.task}: actions have shape {given.shape}, expected {block.shape}"
            )
        block[...] = given
        if not is_finite(block):
            copy = int(np.argwhere(~np.isfinite(cast("Any", block)))[0][0])
            raise errors.ActionMismatch(
                f"{self._spec.task}: action of copy {copy} is not finite: {given[copy].tolist()}"
            )

    def _all(self, message: bytes, seed: int | None) -> None:
        """Have every share do the same; afterwards all wait for the next message."""
        if self._closed:
            raise PlantLost(f"{self._spec.task}: the plants are closed")
        self._stale = True
        try:
            for worker in self._workers:
                worker.send(message)
            own = self._own.step() if message == STEP else self._own.reset(seed)
            faults = [fault for fault in (own, *self._answers()) if fault]
        except BaseException:
            # Cut off in the middle, the other processes may be anywhere.
            self._kill()
            raise
        if faults:
            raise self._error(faults[0])
        self._stale = False

    def _answers(self) -> list[Fault | None]:
        return [_fault(worker.receive()) for worker in self._workers]

    def _error(self, fault: Fault) -> ControllerError:
        text = f"{self._spec.task}, copy {fault.copy}: {fault.detail}"
        kind = getattr(errors, fault.kind, None)
        if isinstance(kind, type) and issubclass(kind, errors.SimError):
            return kind(text)
        return errors.SimError(f"{text} ({fault.kind})")

    def _kill(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.close()


def _fault(message: bytes) -> Fault | None:
    return None if message == DONE else msgspec.json.decode(message, type=Fault)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as every process reads them."""
    try:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    except TypeError as error:
        raise ConfigError(
            f"options {options}: expected numbers, texts and lists: {error}"
        ) from None
    return plain
