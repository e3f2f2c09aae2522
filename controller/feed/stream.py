"""Rows of experience out of a run's ticks, as they come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controller.experience import ACTING_TICKS, Experience, Flags, Ints, cuts
from controller.feed.rows import Float32, RowLayout
from controller.spec import Spec
from controller.types import Array, Mode, TickRecord

Real = np.dtype[np.floating]
Rows = tuple[Float32, tuple[str, ...]]
"""(n, width) rows, and the versions that their column ``version`` counts from 0."""


class RowStream:
    """Makes the rows of :meth:`controller.run_log.RunLog.transitions` without waiting for the end.

    A row needs the tick after its own, and whether the chain is cut behind it: the newest row is
    held back until the tick after that, unless its episode is over. A few older ticks are kept:
    one of their commands may still act.

    Args:
        spec: the robot.

    Attributes:
        layout: of the rows.
    """

    def __init__(self, spec: Spec) -> None:
        self.layout = RowLayout.of(spec)
        self._ticks: list[TickRecord] = []
        self._past = 0

    def __len__(self) -> int:
        """Return how many ticks are kept: those added since the last rows and a few before."""
        return len(self._ticks)

    def add(self, record: TickRecord) -> None:
        """Take the next tick; its arrays must not change any more."""
        self._ticks.append(record)

    def take(self) -> Rows:
        """Return the rows that are certain now and were not returned before.

        Most of its time is the same for one tick and for fifty: call it now and then.
        """
        return self._rows(ended=False)

    def finish(self) -> Rows:
        """Return the last rows: no tick follows. What is added later is of another run."""
        return self._rows(ended=True)

    def _rows(self, *, ended: bool) -> Rows:
        ticks = self._ticks
        if len(ticks) - self._past < 2:
            if ended:
                self._ticks, self._past = [], 0
            return np.empty((0, self.layout.width), np.float32), ()
        seen = self._columns(ticks)
        leads, broken = seen.links()
        rows = np.flatnonzero(leads)
        rows = rows[rows >= self._past]
        cut, keep = cuts(rows, broken), len(ticks) - 1
        if len(rows) and not ended:
            after = rows[-1] + 1
            over = seen.terminated[after] | seen.truncated[after]
            if not (over or broken[after:].any()):
                keep = int(rows[-1])
                rows, cut = rows[:-1], cut[:-1]
        packed = self._packed(seen, rows, cut, [ticks[row].version for row in rows.tolist()])
        if ended:
            self._ticks, self._past = [], 0
        else:
            self._past = min(keep, ACTING_TICKS)
            self._ticks = ticks[keep - self._past :]
        return packed

    def _columns(self, ticks: list[TickRecord]) -> Experience:
        seen = [record.observation for record in ticks]
        numbers = np.array(
            [
                (t.tick, t.rung, t.reasons, o.episode, o.step, o.applied_tick)
                for t, o in zip(ticks, seen, strict=True)
            ],
            np.int64,
        ).T
        flags = np.array(
            [
                (t.mode is Mode.RUN, o.terminated, o.truncated, o.success)
                for t, o in zip(ticks, seen, strict=True)
            ],
            np.bool_,
        ).T
        arrays = [_flat([o.arrays[n] for o in seen]) for n in range(len(seen[0].arrays))]
        return Experience(
            tick=numbers[0],
            rung=numbers[1],
            reasons=numbers[2],
            episode=numbers[3],
            step=numbers[4],
            applied_tick=numbers[5],
            running=flags[0],
            terminated=flags[1],
            truncated=flags[2],
            success=flags[3],
            reward=np.array([o.reward for o in seen], np.float64),
            episode_return=np.array([o.episode_return for o in seen], np.float64),
            observation=np.concatenate(arrays, axis=1),
            requested=_flat([t.requested for t in ticks]),
            executed=_flat([t.executed for t in ticks]),
        )

    def _packed(self, seen: Experience, rows: Ints, cut: Flags, versions: list[str]) -> Rows:
        packed = np.empty((len(rows), self.layout.width), np.float32)
        names = tuple(dict.fromkeys(versions))
        acting, known = seen.acting(rows)
        place = {name: float(number) for number, name in enumerate(names)}
        columns: dict[str, Array] = {
            "observation": seen.observation[rows],
            "action": seen.executed[rows],
            "next_observation": seen.observation[rows + 1],
            "acted": seen.executed[acting],
            "version": np.array([place[name] for name in versions], np.float32),
            **seen.numbers(rows, cut, known)._asdict(),
        }
        for name, view in self.layout.split(packed).items():
            view[...] = columns[name]
        return packed, names


def _flat(arrays: list[Array]) -> NDArray[np.floating]:
    """Return (T, size) of T arrays of one shape, in their dtype or, of whole numbers, single."""
    dtype: Real = np.result_type(np.float32, arrays[0].dtype)
    return np.concatenate([array.reshape(1, -1) for array in arrays], dtype=dtype)
