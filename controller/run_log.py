"""One run in columns: what a log holds, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.experience import Experience
from controller.log_schema import (
    BUNDLE,
    DROPPED,
    TICK_CHOICES,
    TICK_NUMBERS,
    Drop,
    Event,
    LogHeader,
)
from controller.transitions import Transitions, layout_of
from controller.types import Array, Mode, Observation, Rung, TickRecord

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class RunLog:
    """One run in columns, one row per logged tick, in the order of the log.

    Attributes:
        path: the first file.
        header: what holds for the whole run.
        events: what happened between ticks.
        truncated: a file was not finished, or cut or damaged later, or is missing; the rows
            are those that can be read.
        damage: one line on why it is ``truncated``; empty when it is not.
        tick: (T,) tick numbers; those of skipped periods are missing.
        deadline_ns: (T,) scheduled start on the loop's clock.
        sent_ns: (T,) when the command had been handed over.
        mode: (T,) values of ``Mode``.
        rung: (T,) values of ``Rung``.
        reasons: (T,) bit sets of ``Reason``.
        answer_tick: (T,) tick of the request behind the action; -1 for none.
        evaluations: (T,) network evaluations behind the action.
        candidates: (T,) actions drawn for the one behind the action; 0 for none.
        batch: (T,) requests answered together with that behind the action; 0 for none.
        rtt_ns: (T,) from the request behind the action to its answer; -1 for none.
        prefix: (T,) rows of the prefix of the request behind the action.
        versions: T policy versions; empty where no policy acted.
        stages: (T,) nanoseconds by stage name; -1 where the stage has no time.
        observations: (T, *shape) by array name in spec order, in the dtype of the spec.
        requested: (T, *shape) actions before the safety filter.
        executed: (T, *shape) commands sent.
        stamp_ns: (T,) when the plant sampled the observation.
        episode: (T,) episode number.
        step: (T,) control steps since the reset.
        applied_tick: (T,) tick of the command that the last plant step applied.
        reward: (T,) reward of the plant step that led to the observation.
        episode_return: (T,) sum of rewards since the reset.
        terminated: (T,) the task ended in this observation.
        truncations: (T,) the episode was cut by time in this observation.
        success: (T,) the task's success flag.
        late_ns: (T,) how much too late the plant had the step ready; 0 when in time.
        late_steps: (T,) late steps since the plant was started.
        breaks: rows before which ticks that were recorded are missing, for a file of the log
            is missing or damaged there.
    """

    path: Path
    header: LogHeader
    events: tuple[Event, ...]
    truncated: bool
    damage: str
    tick: Ints
    deadline_ns: Ints
    sent_ns: Ints
    mode: Ints
    rung: Ints
    reasons: Ints
    answer_tick: Ints
    evaluations: Ints
    candidates: Ints
    batch: Ints
    rtt_ns: Ints
    prefix: Ints
    versions: tuple[str, ...]
    stages: dict[str, Ints]
    observations: dict[str, Array]
    requested: Array
    executed: Array
    stamp_ns: Ints
    episode: Ints
    step: Ints
    applied_tick: Ints
    reward: Floats
    episode_return: Floats
    terminated: Flags
    truncations: Flags
    success: Flags
    late_ns: Ints
    late_steps: Ints
    breaks: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tick)

    @property
    def drops(self) -> tuple[Drop, ...]:
        """What the sink could not take, as it reported it."""
        return tuple(_drop(event.detail) for event in self.events if event.kind == DROPPED)

    @property
    def dropped(self) -> int:
        """Number of records that ran and are not in the log, as far as it tells."""
        told = sum(drop.ticks + drop.events for drop in self.drops)
        return told + int((self.dropped_after() - self._told_after()).sum())

    def dropped_after(self) -> Ints:
        """Return (T,) the number of ticks that ran but are missing between a row and the next."""
        counts = self._told_after()
        for row in self.breaks:
            counts[row - 1] = max(counts[row - 1], self.tick[row] - self.tick[row - 1] - 1)
        return counts

    def _told_after(self) -> Ints:
        counts = np.zeros(len(self), np.int64)
        for drop in self.drops:
            row = int(np.searchsorted(self.tick, drop.first)) - 1
            if drop.ticks and row >= 0:
                counts[row] += drop.ticks
        return counts

    @property
    def bundles(self) -> dict[str, str]:
        """Path by policy version: those of the header, then those of later events."""
        later = (event.detail.partition(" ") for event in self.events if event.kind == BUNDLE)
        return self.header.bundles | {version: path for version, _, path in later}

    @property
    def done(self) -> Flags:
        """(T,) whether the observation ends its episode."""
        return self.terminated | self.truncations

    def observation(self, row: int) -> Observation:
        """Return the observation of one row."""
        return Observation(
            arrays=tuple(_read_only(column[row]) for column in self.observations.values()),
            stamp_ns=int(self.stamp_ns[row]),
            episode=int(self.episode[row]),
            step=int(self.step[row]),
            reward=float(self.reward[row]),
            episode_return=float(self.episode_return[row]),
            terminated=bool(self.terminated[row]),
            truncated=bool(self.truncations[row]),
            success=bool(self.success[row]),
            applied_tick=int(self.applied_tick[row]),
            late_ns=int(self.late_ns[row]),
            late_steps=int(self.late_steps[row]),
        )

    def record(self, row: int) -> TickRecord:
        """Return one row as the record that was logged."""
        return TickRecord(
            mode=Mode(self.mode[row]),
            rung=Rung(self.rung[row]),
            reasons=int(self.reasons[row]),
            observation=self.observation(row),
            requested=self.requested[row],
            executed=self.executed[row],
            version=self.versions[row],
            **{name: int(getattr(self, name)[row]) for name in (*TICK_NUMBERS, *TICK_CHOICES)},
            **{f"{stage}_ns": int(times[row]) for stage, times in self.stages.items()},
        )

    def records(self) -> Iterator[TickRecord]:
        """Yield every row as the record that was logged."""
        return (self.record(row) for row in range(len(self)))

    def flat_observations(self) -> NDArray[np.floating]:
        """Return (T, D): the arrays of each observation end to end, in their common dtype."""
        columns = [_flat(column) for column in self.observations.values()]
        return _real(np.concatenate(columns, axis=1))

    @property
    def policy_versions(self) -> tuple[str, ...]:
        """The versions in ``versions``, each once, in the order of their first ticks."""
        return tuple(dict.fromkeys(self.versions))

    def experience(self) -> Experience:
        """Return what learning needs of the ticks."""
        return Experience(
            tick=self.tick,
            running=self.mode == Mode.RUN,
            rung=self.rung,
            reasons=self.reasons,
            episode=self.episode,
            step=self.step,
            applied_tick=self.applied_tick,
            reward=self.reward,
            episode_return=self.episode_return,
            terminated=self.terminated,
            truncated=self.truncations,
            success=self.success,
            observation=self.flat_observations(),
            requested=_real(_flat(self.requested)),
            executed=_real(_flat(self.executed)),
        )

    def transitions(self) -> Transitions:
        """Return what happened under the policy as training data.

        Row i leads from the observation of one tick to that of the next one; see
        :func:`controller.experience.links` for which ticks give a row. The action is the
        executed command. The reward is that of the plant's step, or, when the plant made
        several steps, their sum. An episode that is cut by a gap ends in a timeout.

        ``info`` holds ``tick``, ``episode``, ``rung``, ``steps`` (plant steps covered),
        ``applied`` (this very command was the newest that acted before the next observation;
        for the first part of the step it may have been the one before), ``acted`` (N, A) (the
        command that the plant made its step with, the row's own where that is not known), ``kind``
        (whose command it is, a :class:`controller.feed.rows.RowKind`), ``version`` (of the policy
        that acted, as its place in :attr:`policy_versions`), ``over`` (the plant ended its episode
        here), ``episode_return`` (sum of rewards so far) and ``success``.
        """
        seen = self.experience()
        rows, cut = seen.pairs()
        acting, known = seen.acting(rows)
        numbers = seen.numbers(rows, cut, known)
        return Transitions(
            observations=seen.observation[rows],
            actions=seen.executed[rows],
            rewards=numbers.reward,
            next_observations=seen.observation[rows + 1],
            terminals=numbers.terminal,
            timeouts=numbers.timeout,
            layout=layout_of(self.header.spec),
            task=self.header.task or self.header.spec.task,
            info={
                "tick": self.tick[rows],
                "episode": self.episode[rows],
                "rung": self.rung[rows].astype(np.uint8),
                "steps": seen.steps(rows),
                "applied": seen.applied(rows),
                "version": self._version_numbers()[rows],
                "kind": numbers.kind,
                "acted": seen.executed[acting],
                "over": numbers.over,
                "episode_return": numbers.episode_return,
                "success": numbers.success,
            },
        )

    def _version_numbers(self) -> Ints:
        place = {version: number for number, version in enumerate(self.policy_versions)}
        return np.array([place[version] for version in self.versions], np.int64)


def _flat(column: Array) -> Array:
    return column.reshape(len(column), math.prod(column.shape[1:]))


def _real(array: Array) -> NDArray[np.floating]:
    dtype: np.dtype[np.floating] = np.promote_types(array.dtype, np.float32)
    return array.astype(dtype, copy=False)


def _read_only(array: Array) -> Array:
    array = np.asarray(array)
    array.flags.writeable = False
    return array


def _drop(detail: str) -> Drop:
    try:
        return msgspec.json.decode(detail, type=Drop)
    except msgspec.MsgspecError:
        return Drop(events=1)
