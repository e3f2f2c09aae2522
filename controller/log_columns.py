"""The columns of a run log, filled message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.log_messages import Messages, messages_for
from controller.log_schema import (
    OBSERVATION_FLAGS,
    OBSERVATION_LATENESS,
    OBSERVATION_NUMBERS,
    OBSERVATION_REALS,
    STAGES,
    TICK_CHOICES,
    TICK_NUMBERS,
    Event,
    LogHeader,
)
from controller.run_log import RunLog
from controller.spec import ArraySpec, Spec
from controller.types import Array, Mode, Rung

_STAGE_FIELDS = tuple(f"{stage}_ns" for stage in STAGES)
_TICK_FIELDS = (*TICK_NUMBERS, "mode", "rung", *_STAGE_FIELDS, *TICK_CHOICES)
_SEEN_FIELDS = (*OBSERVATION_NUMBERS, *OBSERVATION_FLAGS, *OBSERVATION_LATENESS)


class Columns:
    """Collects the messages of one log.

    Args:
        header: what holds for the whole run.

    Attributes:
        messages: the message classes.
        breaks: rows before which ticks are missing that the log once had.
    """

    def __init__(self, header: LogHeader) -> None:
        self.header = header
        self.messages: Messages = messages_for(header.spec)
        self.breaks: list[int] = []
        self._events: list[Event] = []
        self._rows: list[list[int]] = []
        self._seen: list[list[int]] = []
        self._reals: list[list[float]] = []
        self._reasons: list[int] = []
        self._versions: list[str] = []
        self._requested: list[Array] = []
        self._executed: list[Array] = []
        self._arrays: list[list[Array]] = [[] for _ in header.spec.observation]

    def __len__(self) -> int:
        return len(self._rows)

    def tick(self, data: bytes) -> None:
        """Take one tick.

        Raises:
            DecodeError: the data are no message.
            ValueError: the message is no tick of this robot.
        """
        spec = self.header.spec
        message = check_tick(self.messages, spec, data)
        seen = message.observation
        self._rows.append([getattr(message, name) for name in _TICK_FIELDS])
        self._reasons.append(sum(message.reasons))
        self._versions.append(message.version)
        self._seen.append([getattr(seen, name) for name in _SEEN_FIELDS])
        self._reals.append([getattr(seen, name) for name in OBSERVATION_REALS])
        self._requested.append(_array(message, "requested", spec.action))
        self._executed.append(_array(message, "executed", spec.action))
        for column, name, array in zip(
            self._arrays, self.messages.fields, spec.observation, strict=True
        ):
            column.append(_array(seen, name, array))

    def event(self, data: bytes) -> None:
        """Take one event.

        Raises:
            DecodeError: the data are no message.
        """
        message = self.messages.event.FromString(data)
        self._events.append(Event(message.stamp_ns, message.kind, message.detail))

    def log(self, path: Path, damage: str) -> RunLog:
        """Return the run.

        Args:
            path: of the log.
            damage: one line on why it is not complete; empty when it is.
        """
        spec = self.header.spec
        numbers = dict(zip(_TICK_FIELDS, _columns(self._rows, len(_TICK_FIELDS)), strict=True))
        seen = dict(zip(_SEEN_FIELDS, _columns(self._seen, len(_SEEN_FIELDS)), strict=True))
        flags = {name: seen.pop(name).astype(np.bool_) for name in OBSERVATION_FLAGS}
        reals = np.array(self._reals, dtype=np.float64).reshape(-1, len(OBSERVATION_REALS)).T
        return RunLog(
            path=path,
            header=self.header,
            events=tuple(self._events),
            truncated=bool(damage),
            damage=damage,
            reasons=np.array(self._reasons, dtype=np.int64),
            versions=tuple(self._versions),
            stages={stage: numbers.pop(f"{stage}_ns") for stage in STAGES},
            observations={
                array.name: _stack(column, array)
                for array, column in zip(spec.observation, self._arrays, strict=True)
            },
            requested=_stack(self._requested, spec.action),
            executed=_stack(self._executed, spec.action),
            truncations=flags.pop("truncated"),
            breaks=tuple(row for row in self.breaks if 0 < row < len(self)),
            **numbers,
            **seen,
            **flags,
            **dict(zip(OBSERVATION_REALS, np.ascontiguousarray(reals), strict=True)),
        )


def check_tick(messages: Messages, spec: Spec, data: bytes) -> Any:  # noqa: ANN401
    """Decode a tick and return its message.

    Raises:
        DecodeError: the data are no message.
        ValueError: the message is no tick of this robot.
    """
    message = messages.tick.FromString(data)
    Mode(message.mode), Rung(message.rung)
    sizes = [
        *((getattr(message.observation, field), array)
          for field, array in zip(messages.fields, spec.observation, strict=True)),
        (message.requested, spec.action),
        (message.executed, spec.action),
    ]  # fmt: skip
    for values, array in sizes:
        if len(values) != array.size:
            raise ValueError(f"{array.name} has {len(values)} elements, expected {array.size}")
    return message


def _columns(rows: list[list[int]], width: int) -> NDArray[np.int64]:
    return np.ascontiguousarray(np.array(rows, dtype=np.int64).reshape(-1, width).T)


def _array(message: object, field: str, spec: ArraySpec) -> Array:
    values = getattr(message, field)
    if spec.dtype == "uint8":
        return np.frombuffer(values, dtype=np.uint8)
    return np.fromiter(values, dtype=spec.dtype, count=spec.size)


def _stack(rows: list[Array], spec: ArraySpec) -> Array:
    return np.array(rows, dtype=spec.dtype).reshape(len(rows), *spec.shape)
