"""What a robot looks like to a policy: names, shapes, types, units and limits."""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import SpecMismatch

Array = NDArray[np.generic]

DType = Literal["float32", "float64", "uint8"]


class ArraySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One named array of an observation, or the action.

    Attributes:
        name: identifier, unique within the observation.
        shape: fixed shape, C order.
        dtype: element type on the wire and in the log.
        unit: SI unit or empty.
        low: lower limit per flattened element, ``None`` where unbounded; empty when no
            element has a limit.
        high: upper limits, like ``low``.
        elements: names of the flattened elements; empty when they have none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType = "float64"
    unit: str = ""
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    elements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for label, values in (("low", self.low), ("high", self.high), ("elements", self.elements)):
            if values and len(values) != self.size:
                raise ValueError(
                    f"{self.name}.{label} has {len(values)} entries, expected 0 or {self.size}"
                )

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """Length of the raw array on the wire."""
        return self.size * self.numpy_dtype.itemsize

    @cached_property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """Element type, as numpy has it."""
        return np.dtype(self.dtype)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (low, high) of ``shape``, with infinities where unbounded."""
        return (
            _limits(self.low, -np.inf, self.shape),
            _limits(self.high, np.inf, self.shape),
        )

    def resting(self) -> Array:
        """Return zeros clipped into the limits, read-only, in shape and dtype of the array."""
        low, high = self.bounds()
        value: Array = np.array(np.clip(np.zeros(self.shape), low, high), dtype=self.dtype)
        value.flags.writeable = False
        return value


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agreement between a plant and a policy.

    Attributes:
        task: name of the task or robot.
        observation: the arrays of one observation, in wire order.
        action: the action array.
        rate_hz: control rate the task is defined at.
    """

    task: str
    observation: tuple[ArraySpec, ...]
    action: ArraySpec
    rate_hz: float

    def digest(self) -> str:
        """Return 16 hex digits that identify this spec."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[:16]

    @property
    def period_ns(self) -> int:
        """Control period in nanoseconds."""
        return round(1e9 / self.rate_hz)

    def describe(self) -> str:
        """Return one line for people: task, arrays, rate, digest."""
        arrays = ", ".join(f"{a.name}{list(a.shape)} {a.dtype}" for a in self.observation)
        action = f"{self.action.name}{list(self.action.shape)} {self.action.dtype}"
        return f"{self.task}: {arrays} -> {action} at {self.rate_hz:g} Hz [{self.digest()}]"

    def require(self, other: Spec, mine: str, theirs: str) -> None:
        """Raise :class:`SpecMismatch` unless ``other`` is the same spec.

        ``mine`` and ``theirs`` name the two sides in the message.
        """
        if self != other:
            raise SpecMismatch(
                f"{mine} and {theirs} describe different robots: "
                f"{mine} has {self.describe()}; {theirs} has {other.describe()}"
            )


def _limits(
    values: tuple[float | None, ...], unbounded: float, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    if not values:
        return np.full(shape, unbounded)
    flat = [unbounded if value is None else value for value in values]
    return np.array(flat, dtype=np.float64).reshape(shape)
