"""What may be sent to a plant: finite, within limits, and not changing too fast.

Everything here is a pure function of the requested action, the command before it and the
settings, so that a replay of the log recomputes every executed command.
"""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.errors import ConfigError
from controller.spec import ArraySpec, Spec
from controller.types import Array, Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a command, in the shape and dtype of ``Spec.action``.

    Attributes:
        low: smallest value per element, rounded inwards to the dtype.
        high: largest value per element, rounded inwards to the dtype.
        safe: the declared safe command; within ``low`` and ``high``, read-only.
        step: largest change per tick, None for any.
    """

    low: Array
    high: Array
    safe: Array
    step: float | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        slew_per_s: float | None = None,
        safe_action: Sequence[float] | None = None,
        period_ns: int | None = None,
    ) -> Limits:
        """Return the limits of a robot under the given settings.

        Args:
            spec: gives bounds, shape and dtype.
            slew_per_s: largest change per second of every element, in units of the action.
            safe_action: the safe command, flattened; None for zeros clipped into the bounds.
            period_ns: period of the loop; None for the period of the spec.

        Raises:
            ConfigError: ``safe_action`` has another size or leaves the bounds.
        """
        low, high = bounds_in_dtype(spec.action)
        safe = _safe_command(spec.action, safe_action, low, high)
        period_s = (period_ns or spec.period_ns) / 1e9
        return cls(low, high, safe, None if slew_per_s is None else slew_per_s * period_s)


def is_finite(array: Array) -> bool:
    """Return whether no element is NaN or infinite; integers always are finite."""
    if array.dtype.kind not in "fc":
        return True
    # The sum of squares makes no array of flags: half the time. It may overflow where all is well.
    values: Any = array
    return cmath.isfinite(np.vdot(values, values)) or bool(np.isfinite(array).all())


def fits(actions: Array, action: ArraySpec) -> bool:
    """Return whether ``actions`` is (horizon >= 1, *action.shape) in the action's dtype."""
    return (
        actions.ndim == len(action.shape) + 1
        and len(actions) > 0
        and actions.shape[1:] == action.shape
        and actions.dtype == action.dtype
    )


def replace_nonfinite(requested: Array, safe: Array) -> tuple[Array, Reason]:
    """Return the safe command in place of an action that is not finite."""
    return (requested, Reason.NONE) if is_finite(requested) else (safe, Reason.NONFINITE)


def clip_to_limits(requested: Array, low: Array, high: Array) -> tuple[Array, Reason]:
    """Return the nearest action within [low, high], elementwise."""
    clipped = np.asarray(np.minimum(np.maximum(requested, low), high))
    return clipped, Reason.NONE if np.array_equal(clipped, requested) else Reason.LIMIT


def limit_slew(requested: Array, previous: Array, step: float | None) -> tuple[Array, Reason]:
    """Return the nearest action at most ``step`` away from ``previous``, elementwise."""
    if step is None:
        return requested, Reason.NONE
    centre = previous.astype(np.float64)
    slowed = np.clip(requested.astype(np.float64), centre - step, centre + step)
    if requested.dtype.kind != "f":
        slowed = centre + np.trunc(slowed - centre)
    executed = np.asarray(slowed, requested.dtype)
    return executed, Reason.NONE if np.array_equal(executed, requested) else Reason.SLEW


def filter_action(requested: Array, previous: Array, limits: Limits) -> tuple[Array, Reason]:
    """Return the command to send for ``requested``, and why it differs.

    A command that is not finite becomes the safe command, without a slew limit: a stop is not
    slowed down. Any other is clipped to the limits and then slowed. As ``previous`` and the
    clipped action lie within the limits, so does what lies between them.

    Args:
        requested: action in the shape and dtype of the limits.
        previous: the command before this one, within the limits.
        limits: the bounds.
    """
    finite, bad = replace_nonfinite(requested, limits.safe)
    if bad:
        return finite, bad
    clipped, limited = clip_to_limits(finite, limits.low, limits.high)
    executed, slowed = limit_slew(clipped, previous, limits.step)
    return executed, limited | slowed


class SafetyFilter:
    """The filter of one run: remembers the command before, which the slew limit needs.

    Args:
        spec: gives bounds, shape and dtype.
        slew_per_s: largest change per second of every element; None for any.
        safe_action: the safe command, flattened; None for zeros clipped into the bounds.
        period_ns: period of the loop; None for the period of the spec.

    Raises:
        ConfigError: ``safe_action`` has another size or leaves the bounds.
    """

    def __init__(
        self,
        spec: Spec,
        slew_per_s: float | None = None,
        safe_action: Sequence[float] | None = None,
        *,
        period_ns: int | None = None,
    ) -> None:
        self.limits = Limits.of(spec, slew_per_s, safe_action, period_ns)
        self.previous = self.limits.safe

    @property
    def safe(self) -> Array:
        """The declared safe command, read-only."""
        return self.limits.safe

    def apply(self, requested: Array) -> tuple[Array, Reason]:
        """Return the command to send for ``requested``, read-only, and why it differs."""
        executed, reasons = filter_action(requested, self.previous, self.limits)
        executed.flags.writeable = False
        self.previous = executed
        return executed, reasons

    def hold(self) -> Array:
        """Return the safe command as the one to send."""
        self.previous = self.limits.safe
        return self.previous


def bounds_in_dtype(array: ArraySpec) -> tuple[Array, Array]:
    """Return the limits of an array in its own dtype, rounded inwards."""
    # Rounding to the dtype must not widen a limit: float32(0.1) is larger than 0.1.
    low, high = array.bounds()
    if array.dtype == "uint8":
        return (
            np.clip(np.ceil(low), 0, 255).astype(np.uint8),
            np.clip(np.floor(high), 0, 255).astype(np.uint8),
        )
    dtype = np.dtype(array.dtype)
    up, down = dtype.type(np.inf), dtype.type(-np.inf)
    low_cast, high_cast = low.astype(dtype), high.astype(dtype)
    low_cast = np.where(low_cast < low, np.nextafter(low_cast, up), low_cast)
    high_cast = np.where(high_cast > high, np.nextafter(high_cast, down), high_cast)
    return low_cast, high_cast


def _safe_command(
    action: ArraySpec, safe_action: Sequence[float] | None, low: Array, high: Array
) -> Array:
    if safe_action is None:
        safe, _ = clip_to_limits(np.zeros(action.shape, action.dtype), low, high)
    else:
        safe = _declared_command(action, safe_action)
        if clip_to_limits(safe, low, high)[1]:
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
