"""Where a robot may be, and which commands would lead it out.

Bounds are on observed quantities. An axis that one action element moves gives a bound of that
element, so that the way back stays open; any other axis can only forbid acting at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.limits import Limits
from controller.safety_settings import WorkspaceAxis, WorkspaceSettings
from controller.spec import ArraySpec, Spec
from controller.types import Observation

Floats = NDArray[np.float64]

_INDEXED = re.compile(r"(?P<array>.+)\[(?P<index>\d+)\]")


class Workspace:
    """Watches the bounded quantities of one robot.

    At each tick ``look`` comes first. With x the value of an axis, v its rate, L and H its
    bounds and T the lookahead, the axis is at its upper edge when x > H or x + v T > H; the lower
    edge likewise.

    - velocity: the commanded rate is at most (H - x) / T, and not positive beyond H: the axis
      nears the bound ever more slowly, and does not cross it if it follows its command.
    - force: at the upper edge nothing pushes further up.
    - position: the commanded place is within the bounds, wherever the axis is.
    - without an action: at either edge the workspace is ``left``.

    Args:
        spec: the robot.
        settings: the bounds, at least one.

    Attributes:
        left: an axis that no action element moves is outside, or will be.
        blind: an observed quantity is not finite.

    Raises:
        ConfigError: an element is not in the spec, or the action is of whole numbers.
    """

    def __init__(self, spec: Spec, settings: WorkspaceSettings) -> None:
        axes = settings.axes
        if np.dtype(spec.action.dtype).kind != "f" and any(a.action is not None for a in axes):
            raise ConfigError(
                f"workspace: an axis with an action needs real numbers, not {spec.action.dtype}"
            )
        self._lookahead_s = settings.lookahead_s
        self._shape = spec.action.shape
        self._low = np.array([-np.inf if a.low is None else a.low for a in axes])
        self._high = np.array([np.inf if a.high is None else a.high for a in axes])
        self._values = _Reading(spec, [axis.element for axis in axes])
        known = [index for index, axis in enumerate(axes) if axis.rate is not None]
        self._rates = _Reading(spec, [axes[index].rate or "" for index in known])
        self._known = np.array(known, np.intp)
        self._estimated = len(known) < len(axes)
        self._loose = np.array([axis.action is None for axis in axes])
        self._guided = _Guided(spec, axes)
        self._last: tuple[int, int, Floats] | None = None
        self._slope = np.zeros(len(axes))
        self.left = self.blind = False

    def narrow(self, limits: Limits, declared: bool) -> Limits:
        """Return the limits, narrowed to commands of places inside; see :meth:`Limits.boxed`."""
        box = self._guided.box()
        return limits if box is None else limits.boxed(*box, declared)

    def look(self, observation: Observation) -> None:
        """Take note of where the robot is, for the rest of the tick."""
        x = self._values.read(observation)
        v = self._rate(observation, x)
        self.blind = not bool(np.isfinite(x).all() and np.isfinite(v).all())
        ahead = x + v * self._lookahead_s
        above = (x > self._high) | (ahead > self._high)
        below = (x < self._low) | (ahead < self._low)
        self.left = bool(((above | below) & self._loose).any())
        self._room = (self._high - x) / self._lookahead_s, (x - self._low) / self._lookahead_s
        self._edges = above, below

    def edge(self) -> tuple[Floats, Floats] | None:
        """Return (low, high) of the action that does not lead out; None without such bounds."""
        if not self._guided.moving:
            return None
        low, high = self._guided.edge(self._room, self._edges)
        return low.reshape(self._shape), high.reshape(self._shape)

    def _rate(self, observation: Observation, x: Floats) -> Floats:
        if self._estimated:
            self._estimate(observation, x)
        rate = self._slope
        if len(self._known):
            rate = rate.copy()
            rate[self._known] = self._rates.read(observation)
        return rate

    def _estimate(self, observation: Observation, x: Floats) -> None:
        last, seen = self._last, (observation.episode, observation.stamp_ns)
        if (last is not None and last[:2] == seen) or not np.isfinite(x).all():
            return
        self._last = (*seen, x)
        if last is None or last[0] != observation.episode or seen[1] < last[1]:
            self._slope = np.zeros_like(x)
        else:
            self._slope = (x - last[2]) / ((seen[1] - last[1]) / 1e9)


class _Guided:
    """The axes that an action element moves, as arrays."""

    def __init__(self, spec: Spec, axes: Sequence[WorkspaceAxis]) -> None:
        moving = [i for i, a in enumerate(axes) if a.action is not None and a.control != "position"]
        self._placed = [a for a in axes if a.action is not None and a.control == "position"]
        self._places = [_action_index(spec.action, axis) for axis in self._placed]
        self._axes = np.array(moving, np.intp)
        self._element = np.array([_action_index(spec.action, axes[i]) for i in moving], np.intp)
        self._gain = np.array([axes[i].gain for i in moving])
        self._force = np.array([axes[i].control == "force" for i in moving], np.bool_)
        self._size = spec.action.size
        self._alone = len(set(self._element.tolist())) == len(moving)
        self.moving = bool(moving)

    def box(self) -> tuple[Floats, Floats] | None:
        """Return (low, high) of the flattened action whose places are inside, None for any."""
        if not self._placed:
            return None
        low, high = np.full(self._size, -np.inf), np.full(self._size, np.inf)
        for index, axis in zip(self._places, self._placed, strict=True):
            bounds = np.array(
                [
                    -np.inf if axis.low is None else axis.low,
                    np.inf if axis.high is None else axis.high,
                ]
            )
            least, most = np.sort((bounds - axis.offset) / axis.gain)
            low[index], high[index] = max(low[index], least), min(high[index], most)
        return low, high

    def edge(
        self,
        room: tuple[Floats, Floats],
        edges: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    ) -> tuple[Floats, Floats]:
        """Return (low, high) of the flattened action that does not lead out."""
        up, down = (
            np.where(self._force, np.where(at[self._axes], 0.0, np.inf), space[self._axes])
            for at, space in zip(edges, room, strict=True)
        )
        up, down = np.maximum(up, 0.0) / self._gain, -np.maximum(down, 0.0) / self._gain
        low, high = np.full(self._size, -np.inf), np.full(self._size, np.inf)
        if self._alone:
            low[self._element], high[self._element] = np.minimum(up, down), np.maximum(up, down)
            return low, high
        np.maximum.at(low, self._element, np.minimum(up, down))
        np.minimum.at(high, self._element, np.maximum(up, down))
        return low, high


class _Reading:
    """Elements of observations, read by array and index."""

    def __init__(self, spec: Spec, elements: Sequence[str]) -> None:
        found = [_observed(spec, element) for element in elements]
        self._count = len(found)
        self._parts = [
            (
                array,
                np.array([i for a, i in found if a == array], np.intp),
                np.array([slot for slot, (a, _) in enumerate(found) if a == array], np.intp),
            )
            for array in sorted({a for a, _ in found})
        ]

    def read(self, observation: Observation) -> Floats:
        """Return the elements in the order they were named."""
        values = np.empty(self._count)
        for array, indices, slots in self._parts:
            values[slots] = observation.arrays[array].reshape(-1)[indices]
        return values


def _observed(spec: Spec, text: str) -> tuple[int, int]:
    """Return (array, flattened index) of an element: ``array.name``, ``array[3]`` or ``array``."""
    for number, array in enumerate(spec.observation):
        if text == array.name and array.size == 1:
            return number, 0
        if text.startswith(f"{array.name}.") and text[len(array.name) + 1 :] in array.elements:
            return number, array.elements.index(text[len(array.name) + 1 :])
        match = _INDEXED.fullmatch(text)
        if match and match["array"] == array.name and int(match["index"]) < array.size:
            return number, int(match["index"])
    valid = [name for array in spec.observation for name in _names(array)]
    raise ConfigError(f"workspace: {text!r} is not observed; {nearest(text, valid)}")


def _names(array: ArraySpec) -> list[str]:
    if array.elements:
        return [f"{array.name}.{element}" for element in array.elements]
    return [f"{array.name}[{index}]" for index in range(array.size)]


def _action_index(action: ArraySpec, axis: WorkspaceAxis) -> int:
    wanted = axis.action
    if isinstance(wanted, int) and 0 <= wanted < action.size:
        return wanted
    if isinstance(wanted, str) and wanted in action.elements:
        return action.elements.index(wanted)
    valid = [*action.elements] or [str(index) for index in range(action.size)]
    raise ConfigError(
        f"workspace: {axis.element}: {wanted!r} is no element of {action.name}; "
        f"{nearest(str(wanted), valid)}"
    )
