"""Rows of experience in one float32 array, as they travel, are kept and are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from controller.errors import WireError
from controller.spec import Spec

Float32 = NDArray[np.float32]

NUMBERS = (
    "reward",
    "terminal",
    "timeout",
    "over",
    "kind",
    "version",
    "episode_return",
    "success",
)
"""Columns between action and successor. ``timeout``: the chain of rows is cut here, by time or by
a gap; never where ``terminal`` is. ``over``: the plant ended its episode here, so that
``episode_return`` (always the plant's sum so far) is the episode's. ``version`` counts the
versions of the message or, where rows are kept, of the replay."""


class RowKind(IntEnum):
    """Whose command a row holds."""

    POLICY = 0
    """The policy's, at most clipped, slowed or blended."""
    HUMAN = 1
    """A person's, who had taken over."""
    FALLBACK = 2
    """The safe command, held or latched."""
    EXPLORED = 3
    """One drawn evenly in the policy's stead, to explore."""
    UNAPPLIED = 4
    """Nobody knows which command the plant made its step with."""


@dataclass(frozen=True)
class RowLayout:
    """Where what is in a row of a robot.

    observation | action | NUMBERS | next observation | acted: ``action`` is the command that
    answers the observation, ``acted`` the one that the plant made its step with. In lockstep they
    are one; in real time an answer is often on its way while the step begins.

    Attributes:
        observation: D, elements of a flat observation, the arrays end to end in spec order.
        action: A, elements of an action, in plant units.
    """

    observation: int
    action: int

    @classmethod
    def of(cls, spec: Spec) -> RowLayout:
        """Return the layout of a robot's rows."""
        return cls(sum(array.size for array in spec.observation), spec.action.size)

    @property
    def width(self) -> int:
        """Elements of a row."""
        return 2 * (self.observation + self.action) + len(NUMBERS)

    def number(self, name: str) -> int:
        """Return the column of one of ``NUMBERS``."""
        return self.observation + self.action + NUMBERS.index(name)

    def split(self, rows: Float32) -> dict[str, Float32]:
        """Return views by name.

        They are observation (n, D), action (n, A), next_observation (n, D), acted (n, A), and
        each of ``NUMBERS`` (n,).

        Args:
            rows: (n, width).
        """
        d, a = self.observation, self.action
        after = d + a + len(NUMBERS)
        views = {
            "observation": rows[:, :d],
            "action": rows[:, d : d + a],
            "next_observation": rows[:, after : after + d],
            "acted": rows[:, after + d :],
        }
        return views | {name: rows[:, self.number(name)] for name in NUMBERS}

    def unpack(self, frame: bytes, count: int) -> Float32:
        """Return the rows (count, width) in a frame, read-only, without copying.

        Raises:
            WireError: the frame has another length.
        """
        expected = 4 * count * self.width
        if len(frame) != expected:
            raise WireError(
                f"{len(frame)} bytes of rows, expected {expected} for {count} of {self.width}"
            )
        rows: Float32 = np.frombuffer(frame, np.float32).reshape(count, self.width)
        return rows
