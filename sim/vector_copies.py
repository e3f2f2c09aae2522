"""Copies of one task, stepped one after the other, and the memory that processes share for them.

Copy i of a vector with seed s begins its episode k with a seed drawn from (s, i, k) alone, so
that what it does depends neither on the other copies nor on the process it lives in.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.spec import Spec
from controller.types import Array
from sim.stepper import Stepper

logger = logging.getLogger(__name__)

MAX_DETAIL = 2000
ALIGNMENT = 64
"""Bytes of a cache line: no two columns share one."""


class Block(NamedTuple):
    """One row per copy; the columns of ``controller.types.VectorStep``, and the actions."""

    actions: Array
    observations: NDArray[np.float64]
    next_observations: NDArray[np.float64]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    success: NDArray[np.bool_]
    episode_returns: NDArray[np.float64]
    episode_steps: NDArray[np.int64]


def block_size(spec: Spec, num: int) -> int:
    """Return the bytes that ``num`` rows take."""
    return sum(_aligned(_nbytes(column)) for column in _columns(spec, num))


def block_in(memory: mmap.mmap | bytearray, spec: Spec, num: int) -> Block:
    """Return the arrays that lie end to end in ``memory``, in the order of the fields."""
    arrays: list[Any] = []
    offset = 0
    for shape, dtype in _columns(spec, num):
        arrays.append(np.ndarray(shape, dtype, buffer=memory, offset=offset))
        offset += _aligned(_nbytes((shape, dtype)))
    return Block(*arrays)


def width(spec: Spec) -> int:
    """Return the length D of an observation with its arrays end to end."""
    return sum(array.size for array in spec.observation)


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """Return the seed of one episode of one copy."""
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1)[0])


class Fault(msgspec.Struct, frozen=True):
    """What went wrong in which copy; crosses the processes as JSON.

    Attributes:
        copy: index of the copy.
        kind: name of the exception's class.
        detail: its first line.
    """

    copy: int
    kind: str
    detail: str


class Copies:
    """Consecutive copies: rows ``first`` and on of a block.

    Args:
        steppers: one per copy.
        spec: what they look like.
        block: where actions are read and results are written.
        first: index of the first copy.
        seed: of everything, until a reset brings another.
    """

    def __init__(
        self, steppers: Sequence[Stepper], spec: Spec, block: Block, first: int, seed: int
    ) -> None:
        self._steppers = steppers
        self._block = block
        self._first = first
        self._seed = seed
        self._rows = slice(first, first + len(steppers))
        self._episodes = [0] * len(steppers)
        rows = range(first, first + len(steppers))
        self._starts = [_Row(block.observations[row], spec) for row in rows]
        self._nexts = [_Row(block.next_observations[row], spec) for row in rows]

    def reset(self, seed: int | None = None) -> Fault | None:
        """Begin the next episode of every copy; with a seed, the first one of that seed.

        Returns:
            Why one cannot; those after it have not begun.
        """
        if seed is not None:
            self._seed, self._episodes = seed, [0] * len(self._steppers)
        return self._begin(range(len(self._steppers)))

    def step(self) -> Fault | None:
        """Advance every copy by one control step, and begin the next episode where one ended.

        Returns:
            Why one cannot; those after it have not been stepped.
        """
        block, rows, steppers = self._block, self._rows, self._steppers
        index = 0
        try:
            # Copied, as a stepper keeps its actions.
            for index, action in enumerate(block.actions[rows].copy()):
                steppers[index].advance(action, self._nexts[index])
        except Exception as error:
            return self._fault(index, error)
        block.rewards[rows] = [each.reward for each in steppers]
        block.terminated[rows] = [each.terminated for each in steppers]
        block.truncated[rows] = [each.truncated for each in steppers]
        block.success[rows] = [each.success for each in steppers]
        block.episode_returns[rows] = [each.episode_return for each in steppers]
        block.episode_steps[rows] = [each.step for each in steppers]
        block.observations[rows] = block.next_observations[rows]
        return self._begin(
            [k for k, each in enumerate(steppers) if each.terminated or each.truncated]
        )

    def close(self) -> None:
        """Release the environments."""
        for stepper in self._steppers:
            stepper.env.close()

    def _begin(self, indices: Iterable[int]) -> Fault | None:
        for index in indices:
            seed = episode_seed(self._seed, self._first + index, self._episodes[index])
            try:
                self._steppers[index].begin(seed, self._starts[index])
            except Exception as error:
                return self._fault(index, error)
            self._episodes[index] += 1
        return None

    def _fault(self, index: int, error: Exception) -> Fault:
        logger.debug("copy %d failed", self._first + index, exc_info=error)
        text = str(error).partition("\n")[0][:MAX_DETAIL]
        return Fault(self._first + index, type(error).__name__, text)


class _Row:
    """Where the observations of one copy go: called with one, it writes it there.

    Args:
        row: (D,) of a block.
        spec: names, order, shapes and types.
    """

    def __init__(self, row: NDArray[np.float64], spec: Spec) -> None:
        edges = np.cumsum([0, *(array.size for array in spec.observation)]).tolist()
        self._views = tuple(
            row[start : start + array.size].reshape(array.shape)
            for start, array in zip(edges, spec.observation, strict=False)
        )
        self._parts = tuple(
            (array.name, array.shape, np.dtype(array.dtype), view)
            for array, view in zip(spec.observation, self._views, strict=True)
        )

    def __call__(self, observation: Any) -> tuple[Array, ...]:  # noqa: ANN401
        """Write the observation; return views of what was written."""
        named = type(observation) is not np.ndarray and isinstance(observation, (dict, Mapping))
        for name, shape, dtype, view in self._parts:
            # By way of the type of the spec, so that a number is rounded as a plant rounds it.
            array = np.asarray(observation[name] if named else observation, dtype)
            assert array.shape == shape, f"{name}: {array.shape}, expected {shape}"
            view[...] = array
        return self._views


def _columns(spec: Spec, num: int) -> list[tuple[tuple[int, ...], np.dtype[np.generic]]]:
    wide = (num, width(spec))
    number, flag = np.dtype(np.float64), np.dtype(np.bool_)
    return [
        ((num, *spec.action.shape), np.dtype(spec.action.dtype)),
        (wide, number),
        (wide, number),
        ((num,), number),
        ((num,), flag),
        ((num,), flag),
        ((num,), flag),
        ((num,), number),
        ((num,), np.dtype(np.int64)),
    ]


def _nbytes(column: tuple[tuple[int, ...], np.dtype[np.generic]]) -> int:
    shape, dtype = column
    return int(np.prod(shape)) * dtype.itemsize


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
