"""Specs from an environment's own spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from controller.spec import ArraySpec, DType, Spec
from controller.types import Array

if TYPE_CHECKING:
    from gymnasium.spaces import Space


def spec_of_spaces(
    task: str,
    observation: Space[Any],
    action: Space[Any],
    rate_hz: float,
    *,
    order: Sequence[str] | None = None,
) -> Spec:
    """Describe an environment by its spaces.

    Args:
        task: name of the task.
        observation: a Box, which becomes one array named ``observations``, or a Dict of Boxes.
        action: a Box.
        rate_hz: control rate.
        order: keys of a Dict in wire order; None for the Dict's own.

    Raises:
        TypeError: a space of another kind, or a Box of a type that has no place in a spec.
    """
    from gymnasium import spaces

    if isinstance(observation, spaces.Dict):
        names = tuple(order) if order is not None else tuple(observation.spaces)
        arrays = tuple(_array_of_box(name, observation.spaces[name]) for name in names)
    else:
        arrays = (_array_of_box("observations", observation),)
    return Spec(task, arrays, _array_of_box("action", action), rate_hz)


def _array_of_box(name: str, space: Space[Any]) -> ArraySpec:
    from gymnasium import spaces

    if not isinstance(space, spaces.Box) or space.dtype not in (np.float32, np.float64, np.uint8):
        raise TypeError(f"{name}: expected a Box of float32, float64 or uint8, got {space}")
    return ArraySpec(
        name,
        tuple(int(length) for length in space.shape),
        cast("DType", str(space.dtype)),
        low=finite_limits(space.low),
        high=finite_limits(space.high),
    )


def finite_limits(limits: Array) -> tuple[float | None, ...]:
    """Return limits per flattened element, None where unbounded; empty when none is bounded."""
    values = [float(x) for x in np.asarray(limits, np.float64).reshape(-1)]
    if not any(math.isfinite(x) for x in values):
        return ()
    return tuple(x if math.isfinite(x) else None for x in values)
