"""What a robot went through while it learned, one packed float32 row per control step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from controller.spec import Spec
from controller.transitions import Transitions, layout_of
from controller.types import VectorStep
from policies.algos.sac import Batch
from policies.codec import Codec
from policies.disk import map_file

Float32 = NDArray[np.float32]


class Replay:
    """The newest ``capacity`` steps of N copies of a robot, in a file that outlives the process.

    A row is observation, action, reward, alive, timeout and next observation end to end, so that
    drawing one reads one place in memory. The N rows of a step of all copies lie together.

    ``capacity`` and ``slack`` are rounded up to whole blocks of N rows. A row is overwritten no
    sooner than ``slack`` rows after it can be drawn for the last time: a run that is taken up
    again up to ``slack`` rows earlier finds everything as it was.

    Args:
        file: where the rows are.
        capacity: rows that can be drawn.
        slack: further rows.
        sizes: of an observation, D, and of an action, A.
        copies: N.
        count: rows that the file got before; with 0 it is made.

    Raises:
        DataError: there is no room for the file, or it is not the one that got the rows.

    Attributes:
        count: rows that were ever added.
    """

    def __init__(
        self,
        file: Path,
        capacity: int,
        slack: int,
        sizes: tuple[int, int],
        copies: int,
        count: int = 0,
    ) -> None:
        self.count, self.copies = count, copies
        self.capacity = _whole(capacity, copies)
        self._rows = self.capacity + _whole(slack, copies)
        width = 2 * sizes[0] + sizes[1] + 3
        mapped = map_file(file, 4 * width * self._rows, fresh=count == 0)
        self._table: Float32 = np.frombuffer(mapped, np.float32).reshape(self._rows, width)
        self._tensor = torch.from_numpy(self._table)
        d, a = sizes
        self._edges = [0, d, d + a, d + a + 1, d + a + 2, d + a + 3, width]

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    def add(self, observations: NDArray[np.float64], actions: Float32, step: VectorStep) -> None:
        """Add what one step of the N copies gave.

        Args:
            observations: (N, D) that was acted on.
            actions: (N, A) in [-1, 1].
            step: what came of it.
        """
        start = self.count % self._rows
        block = self._table[start : start + self.copies]
        e = self._edges
        block[:, : e[1]] = observations
        block[:, e[1] : e[2]] = actions
        block[:, e[2]] = step.rewards
        block[:, e[3]] = ~step.terminated
        block[:, e[4]] = step.truncated
        block[:, e[5] :] = step.next_observations
        self.count += self.copies

    def cut(self) -> None:
        """End the episodes that run: the newest row of each copy becomes a timeout."""
        if self.count:
            start = (self.count - self.copies) % self._rows
            block = self._table[start : start + self.copies]
            alive, timeout = self._edges[3:5]
            block[:, timeout] = block[:, alive]

    def draw(
        self, batches: int, size: int, rng: np.random.Generator, device: torch.device
    ) -> list[Batch]:
        """Return batches of rows drawn evenly with replacement.

        One gather for several batches costs less than one for each.
        """
        index = rng.integers(self.count - len(self), self.count, batches * size) % self._rows
        rows = self._tensor.index_select(0, torch.from_numpy(index)).to(device)
        e = self._edges
        return [
            Batch(
                observation=part[:, : e[1]],
                action=part[:, e[1] : e[2]],
                reward=part[:, e[2]],
                alive=part[:, e[3]],
                next_observation=part[:, e[5] :],
            )
            for part in torch.split(rows, size)
        ]

    def to_transitions(self, spec: Spec, codec: Codec) -> Transitions:
        """Return the rows copy by copy in time order, actions in the robot's units.

        The newest row of each copy is a timeout unless it is terminal.

        Args:
            spec: the robot.
            codec: translates actions.
        """
        index = np.arange(self.count - len(self), self.count) % self._rows
        rows = self._table[index.reshape(-1, self.copies).T.reshape(-1)]
        e = self._edges
        terminals = rows[:, e[3]] == 0.0
        timeouts = rows[:, e[4]] == 1.0
        ends = np.arange(1, self.copies + 1) * (len(rows) // self.copies) - 1
        timeouts[ends] = ~terminals[ends]
        actions: NDArray[np.floating] = codec.decode_action(rows[:, e[1] : e[2]])  # type: ignore[assignment]
        return Transitions(
            observations=rows[:, : e[1]],
            actions=actions.reshape(len(rows), -1),
            rewards=rows[:, e[2]],
            next_observations=rows[:, e[5] :],
            terminals=terminals,
            timeouts=timeouts,
            layout=layout_of(spec),
            task=spec.task,
        )


def _whole(rows: int, copies: int) -> int:
    return -(-rows // copies) * copies
