"""Synthetic ticks and logs, from which the tests of the log build their cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from controller.log import McapSink
from controller.log_reader import RunLog, read_log
from controller.log_schema import LogHeader
from controller.spec import ArraySpec, Spec
from controller.types import Mode, Observation, Rung, TickRecord

PERIOD_NS = 10_000_000
SPEC = Spec(
    task="synthetic",
    observation=(
        ArraySpec("position", (2,), "float64", "m"),
        ArraySpec("joint/angles", (3,), "float32", "rad"),
        ArraySpec("image", (2, 2), "uint8"),
    ),
    action=ArraySpec("velocity", (2,), "float32", "m/s", low=(-1.0, -1.0), high=(1.0, 1.0)),
    rate_hz=100.0,
)


def header(**changes: object) -> LogHeader:
    """Return the header of a lockstep run at 100 Hz."""
    fields = {"spec": SPEC, "mode": "lockstep", "rate_hz": 100.0, "seed": 7, **changes}
    return LogHeader(**fields)


def arrays(number: int) -> tuple[np.ndarray, ...]:
    """Return observation arrays that no other number gives."""
    rng = np.random.default_rng(number)
    return (
        rng.standard_normal(2),
        rng.standard_normal(3).astype(np.float32),
        rng.integers(0, 256, (2, 2), dtype=np.uint8),
    )


def tick(number: int, **changes: object) -> TickRecord:
    """Return a punctual tick in RUN with a fresh action; step and tick are equal.

    Fields of the observation may be changed like fields of the record.
    """
    seen = Observation(
        arrays=arrays(number),
        stamp_ns=number * PERIOD_NS - 1_000_000,
        step=number,
        reward=1.0,
        episode_return=float(number),
        applied_tick=number - 1,
    )
    ours = {name: changes.pop(name) for name in list(changes) if name in Observation.__slots__}
    action = np.random.default_rng(1000 + number).uniform(-1, 1, 2).astype(np.float32)
    record = TickRecord(
        tick=number,
        deadline_ns=number * PERIOD_NS,
        sent_ns=number * PERIOD_NS + 2_000_000,
        mode=Mode.RUN,
        rung=Rung.FRESH,
        reasons=0,
        observation=replace(seen, **ours),
        requested=action,
        executed=action.clip(-0.5, 0.5),
        version="v1",
        answer_tick=number,
        evaluations=1,
        wake_ns=50_000,
        observe_ns=10_000,
        transport_ns=300_000,
        queue_ns=20_000,
        infer_ns=100_000,
        act_ns=30_000,
        total_ns=2_000_000,
    )
    return replace(record, **changes)


def written(path: Path, records: Iterable[TickRecord], about: LogHeader | None = None) -> RunLog:
    """Write the records in this process and read them back."""
    sink = McapSink(path, about or header())
    for record in records:
        assert sink.tick(record)
    sink.close()
    return read_log(path)


def assert_same(got: TickRecord, expected: TickRecord) -> None:
    """Assert that two records agree in every field, arrays bit for bit and in dtype."""
    for name in TickRecord.__slots__:
        ours, theirs = getattr(got, name), getattr(expected, name)
        if name == "observation":
            for field in Observation.__slots__:
                _assert_equal(field, getattr(ours, field), getattr(theirs, field))
        else:
            _assert_equal(name, ours, theirs)


def _assert_equal(name: str, ours: object, theirs: object) -> None:
    if name == "arrays":
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            _assert_equal("array", mine, other)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype, name
        assert ours.shape == theirs.shape, name
        assert ours.tobytes() == theirs.tobytes(), name
    elif isinstance(theirs, float):
        assert np.float64(ours).tobytes() == np.float64(theirs).tobytes(), name
    else:
        assert ours == theirs, name
        assert type(ours) is type(theirs), name
