"""What may be sent to a plant: finite, within limits, and changing neither too fast nor abruptly.

Everything here is a pure function of the requested actions, the commands before, the
observations and the settings, so that a replay of the log recomputes every executed command.
"""

from __future__ import annotations

import cmath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.limits import Limits as Limits
from controller.limits import Step
from controller.limits import bounds_in_dtype as bounds_in_dtype
from controller.spec import ArraySpec
from controller.types import Array, Reason

SHORT = 32
"""Elements up to which numbers of Python are added sooner than those of an array."""
_FAR = 1e100
"""More steps than any distance has; keeps infinite distances out of the arithmetic."""


def is_finite(array: Array) -> bool:
    """Return whether no element is NaN or infinite; integers always are finite."""
    if array.dtype.kind not in "fc":
        return True
    # A sum makes no array of flags: half the time. It may overflow where all is well.
    values: Any = array
    short = array.size <= SHORT
    total = sum(values.ravel().tolist()) if short else np.vdot(values, values)
    return cmath.isfinite(total) or bool(np.isfinite(array).all())


def fits(actions: Array, action: ArraySpec) -> bool:
    """Return whether ``actions`` is (horizon >= 1, *action.shape) in the action's dtype."""
    return (
        actions.ndim == len(action.shape) + 1
        and len(actions) > 0
        and actions.shape[1:] == action.shape
        and actions.dtype == action.numpy_dtype
    )


def replace_nonfinite(requested: Array, safe: Array) -> tuple[Array, Reason]:
    """Return the safe command in place of an action that is not finite."""
    return (requested, Reason.NONE) if is_finite(requested) else (safe, Reason.NONFINITE)


def clip_to_limits(
    requested: Array, low: Array, high: Array, reason: Reason = Reason.LIMIT
) -> tuple[Array, Reason]:
    """Return the nearest action within [low, high], elementwise, and ``reason`` if it differs."""
    clipped = np.asarray(np.minimum(np.maximum(requested, low), high))
    return clipped, Reason.NONE if _equal(clipped, requested) else reason


def limit_slew(requested: Array, previous: Array, step: Step | None) -> tuple[Array, Reason]:
    """Return the nearest action at most ``step`` away from ``previous``, elementwise."""
    if step is None:
        return requested, Reason.NONE
    centre = previous.astype(np.float64)
    slowed = np.minimum(np.maximum(requested, centre - step), centre + step)
    if requested.dtype.kind != "f":
        slowed = centre + np.trunc(slowed - centre)
    executed = np.asarray(slowed, requested.dtype)
    return executed, Reason.NONE if _equal(executed, requested) else Reason.SLEW


def limit_acceleration(
    requested: Array, previous: Array, before: Array, limits: Limits
) -> tuple[Array, Reason]:
    """Return the command nearest to ``requested`` that slew and acceleration limits allow.

    With u the commands and w = u - previous: |w| <= step, |w - (previous - before)| <= bend, and
    w leaves room to come to rest, changing by ``bend`` per tick, before the end of the limits;
    where ``requested`` leaves such room too, it is not overshot. These can always be met at once
    if they were met before: the room asked for is that which braking by ``bend`` keeps.

    Args:
        requested: action within the limits.
        previous: the command before this one.
        before: the command before that; equal to ``previous`` at rest.
        limits: ``step``, ``bend`` (not None) and the bounds.
    """
    assert limits.bend is not None
    step, bend = limits.step, limits.bend
    low, high = limits.box or (limits.low, limits.high)
    centre = previous.astype(np.float64)
    way: NDArray[np.float64] = np.subtract(requested, centre, dtype=np.float64)
    speed: NDArray[np.float64] = np.subtract(centre, before, dtype=np.float64)
    room = np.empty((3, *centre.shape))
    np.abs(way, out=room[0])
    np.subtract(high, centre, out=room[1])
    np.subtract(centre, low, out=room[2])
    wish, up, down = _fastest(room, bend)
    slewed = way if step is None else np.minimum(np.maximum(way, -step), step)
    change = np.minimum(np.maximum(np.copysign(wish, way), speed - bend), speed + bend)
    if step is not None:
        change = np.minimum(np.maximum(change, -step), step)
    change = np.minimum(np.maximum(change, -down), up)
    moved = np.where(change == way, requested, centre + change).astype(requested.dtype)
    executed = np.asarray(np.minimum(np.maximum(moved, low), high))
    if _equal(executed, requested):
        return executed, Reason.NONE
    reasons = Reason.ACCELERATION if (change != slewed).any() else Reason.NONE
    return executed, reasons | Reason.SLEW if slewed is not way and (
        slewed != way
    ).any() else reasons


def filter_action(
    requested: Array, previous: Array, limits: Limits, before: Array | None = None
) -> tuple[Array, Reason]:
    """Return the command to send for ``requested``, and why it differs.

    A command that is not finite becomes the safe command, at once: a stop is not slowed down.
    Any other is clipped to the limits and then slowed. As ``previous`` and the clipped action
    lie within the limits, so does what lies between them.

    Args:
        requested: action in the shape and dtype of the limits.
        previous: the command before this one, within the limits.
        limits: the bounds.
        before: the command before ``previous``; None when the commands were at rest.
    """
    finite, bad = replace_nonfinite(requested, limits.safe)
    if bad:
        return finite, bad
    clipped, limited = clip_to_limits(finite, limits.low, limits.high)
    if limits.box is not None:
        clipped, outside = clip_to_limits(clipped, *limits.box, Reason.WORKSPACE)
        limited |= outside
    if limits.bend is None:
        executed, slowed = limit_slew(clipped, previous, limits.step)
    else:
        last = previous if before is None else before
        executed, slowed = limit_acceleration(clipped, previous, last, limits)
    return executed, limited | slowed if slowed and limited else slowed or limited


def stop_at_edge(
    command: Array, edge: tuple[NDArray[np.float64], NDArray[np.float64]], limits: Limits
) -> tuple[Array, Reason]:
    """Return the nearest command within ``edge``, as far as the limits allow.

    Args:
        command: what has passed the filter.
        edge: (low, high) of what does not lead out of the workspace, -inf and inf for anything.
        limits: these win where both cannot be met.
    """
    dtype = command.dtype
    low = np.minimum(np.maximum(edge[0], limits.low), limits.high).astype(dtype)
    high = np.minimum(np.maximum(edge[1], limits.low), limits.high).astype(dtype)
    return clip_to_limits(command, low, high, Reason.WORKSPACE)


def _equal(a: Array, b: Array) -> bool:
    # Half the time of numpy's own, which looks at types and shapes first.
    return bool((a == b).all())


def _fastest(distance: NDArray[np.float64], bend: Step) -> NDArray[np.float64]:
    """Return the largest change per tick from which one comes to rest within ``distance``.

    Changes w, w - a, w - 2a, ... down to the last positive one cover (n + 1) w - a n (n + 1) / 2
    with n = floor(w / a). That is solved for w: n is the largest number with
    a n (n + 1) / 2 <= distance.
    """
    steps = np.minimum(distance / bend, _FAR)
    n = np.floor(np.sqrt(8.0 * steps + 1.0) * 0.5 - 0.5)
    return np.where(n < 1.0, distance, bend * (steps / (n + 1.0) + 0.5 * n))
