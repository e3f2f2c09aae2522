"""The numbers that bound a command, in the shape and dtype of the action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError
from controller.safety_settings import PerElement
from controller.spec import ArraySpec, Spec
from controller.types import Array

Step = float | NDArray[np.float64]

_ANY = 1e100
"""Stands for no limit where some elements have one; infinity would give NaN in quotients."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a command, in the shape and dtype of ``Spec.action``.

    Attributes:
        low: smallest value per element, rounded inwards to the dtype.
        high: largest value per element, rounded inwards to the dtype.
        safe: the declared safe command; within ``low`` and ``high``, read-only.
        step: largest change per tick, for all elements or each; None for any.
        bend: largest change of that change per tick; None for any.
        box: (low, high) within those above, beyond which a command leads out of the workspace
            wherever the robot is; None without such.
    """

    low: Array
    high: Array
    safe: Array
    step: Step | None = None
    bend: Step | None = None
    box: tuple[Array, Array] | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        slew_per_s: PerElement = None,
        safe_action: Sequence[float] | None = None,
        period_ns: int | None = None,
        *,
        acceleration_per_s2: PerElement = None,
    ) -> Limits:
        """Return the limits of a robot under the given settings.

        Args:
            spec: gives bounds, shape and dtype.
            slew_per_s: largest change per second of every element or of each, in units of the
                action.
            safe_action: the safe command, flattened; None for zeros clipped into the bounds.
            period_ns: period of the loop; None for the period of the spec.
            acceleration_per_s2: largest change per second of that change.

        Raises:
            ConfigError: a setting has another size than the action, ``safe_action`` leaves the
                bounds, or an action of whole numbers cannot change as slowly as that.
        """
        action, period_s = spec.action, (period_ns or spec.period_ns) / 1e9
        low, high = bounds_in_dtype(action)
        step = _per_tick("slew_per_s", slew_per_s, action, period_s)
        bend = _per_tick("acceleration_per_s2", acceleration_per_s2, action, period_s**2)
        _require_possible(action, step, bend)
        safe = _safe_command(action, safe_action, low, high)
        return cls(low, high, safe, step, bend)

    def boxed(self, low: NDArray[np.float64], high: NDArray[np.float64], declared: bool) -> Limits:
        """Return the limits with a box, in which the safe command lies.

        Args:
            low: (size,) smallest value per flattened element, -inf for any.
            high: (size,) likewise.
            declared: whether somebody chose the safe command; it is not moved then.

        Raises:
            ConfigError: no command is within, or the safe command is not.
        """
        shape, dtype = self.low.shape, self.low.dtype
        inner = np.maximum(_inwards(low.reshape(shape), dtype, up=True), self.low)
        outer = np.minimum(_inwards(high.reshape(shape), dtype, up=False), self.high)
        if (inner > outer).any():
            raise ConfigError(
                "workspace: no action is within both its limits and the workspace, which allows "
                f"{low.tolist()} to {high.tolist()}"
            )
        safe = np.asarray(np.clip(self.safe, inner, outer), dtype)
        if declared and not np.array_equal(safe, self.safe):
            raise ConfigError(
                f"safe_action {self.safe.reshape(-1).tolist()} leads out of the workspace: "
                f"expected {inner.reshape(-1).tolist()} to {outer.reshape(-1).tolist()}"
            )
        safe.flags.writeable = False
        return replace(self, safe=safe, box=(inner, outer))


def bounds_in_dtype(array: ArraySpec) -> tuple[Array, Array]:
    """Return the limits of an array in its own dtype, rounded inwards."""
    low, high = array.bounds()
    if array.dtype == "uint8":
        return (
            np.clip(np.ceil(low), 0, 255).astype(np.uint8),
            np.clip(np.floor(high), 0, 255).astype(np.uint8),
        )
    dtype = np.dtype(array.dtype)
    return _inwards(low, dtype, up=True), _inwards(high, dtype, up=False)


def _inwards(limit: NDArray[np.float64], dtype: np.dtype[np.generic], *, up: bool) -> Array:
    # Rounding to the dtype must not widen a limit: float32(0.1) is larger than 0.1.
    cast = limit.astype(dtype)
    wide = cast < limit if up else cast > limit
    return np.where(wide, np.nextafter(cast, dtype.type(np.inf if up else -np.inf)), cast)


def _per_tick(name: str, per_s: PerElement, action: ArraySpec, factor: float) -> Step | None:
    if per_s is None or isinstance(per_s, (int, float)):
        return None if per_s is None else per_s * factor
    if len(per_s) != action.size:
        raise ConfigError(
            f"{name} has {len(per_s)} elements, expected 1 or {action.size} as {action.name} has"
        )
    numbers = [_ANY if value is None else value * factor for value in per_s]
    return np.array(numbers, np.float64).reshape(action.shape)


def _require_possible(action: ArraySpec, step: Step | None, bend: Step | None) -> None:
    if np.dtype(action.dtype).kind == "f":
        return
    if bend is not None:
        raise ConfigError(
            f"acceleration_per_s2 needs an action of real numbers, not {action.dtype}"
        )
    if step is not None and np.min(step) < 1:
        raise ConfigError(
            f"slew_per_s lets {action.name} change by {np.min(step):g} per tick, expected at "
            f"least 1, as it is of whole numbers"
        )


def _safe_command(
    action: ArraySpec, safe_action: Sequence[float] | None, low: Array, high: Array
) -> Array:
    if safe_action is None:
        safe = np.asarray(np.clip(np.zeros(action.shape, action.dtype), low, high))
    else:
        safe = _declared_command(action, safe_action)
        if not np.array_equal(np.clip(safe, low, high), safe):
            raise ConfigError(
                f"safe_action {list(safe_action)} leaves the limits of {action.name}: "
                f"expected {low.reshape(-1).tolist()} to {high.reshape(-1).tolist()}"
            )
    safe.flags.writeable = False
    return safe


def _declared_command(action: ArraySpec, safe_action: Sequence[float]) -> Array:
    if len(safe_action) != action.size:
        raise ConfigError(
            f"safe_action has {len(safe_action)} elements, "
            f"expected {action.size} as {action.name} has"
        )
    if not np.isfinite(safe_action).all():
        raise ConfigError(f"safe_action {list(safe_action)} is not finite")
    safe: Array = np.array(safe_action, np.float64).astype(action.dtype).reshape(action.shape)
    return safe
