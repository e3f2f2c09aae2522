"""Judging a run by its log."""

from pathlib import Path

import numpy as np
import pytest

from controller.faults.verdict import Expectation, FaultRow, Trial, judge
from controller.log import McapSink
from controller.log_reader import read_log
from controller.types import Mode, Reason, Rung
from tests.controller.records import PERIOD_NS, header, tick

COUNT = 120
FAULT_OVER = 40
"""At 100 Hz a quarter of a second is 25 ticks."""


def row(
    tmp_path: Path,
    changes=None,
    skip=(),
    ran: int | None = None,
    expected: Expectation | None = None,
    complaints=(),
) -> FaultRow:
    """Judge a run of 120 ticks with some of them changed or missing."""
    path = tmp_path / "log.mcap"
    sink = McapSink(path, header(mode="realtime"))
    for number in range(COUNT):
        if number not in skip:
            assert sink.tick(tick(number, **(changes or {}).get(number, {})))
    sink.close()
    log = read_log(path)
    status = {"ticks": len(log) if ran is None else ran}
    trial = Trial(FAULT_OVER * PERIOD_NS, status, tuple(complaints))
    return judge("fault", log, trial, expected or Expectation())


def held(first: int, last: int, **more) -> dict:
    change = {"rung": Rung.HOLD, "mode": Mode.HOLD, "reasons": int(Reason.LATE), **more}
    return {number: dict(change) for number in range(first, last)}


def test_a_calm_run_passes(tmp_path):
    found = row(tmp_path)
    assert found.ok
    assert (found.ticks, found.late, found.records_lost) == (COUNT, 0, 0)
    assert found.max_gap_ms == pytest.approx(10.0)
    assert found.rungs == {"fresh": COUNT}
    assert found.recovery_s == 0.0


def test_recovery_counts_from_the_end_of_the_fault(tmp_path):
    found = row(tmp_path, held(30, 55))
    assert found.ok
    assert found.recovery_s == pytest.approx(0.15)
    assert found.rungs == {"fresh": COUNT - 25, "hold": 25}


def test_a_relapse_postpones_recovery(tmp_path):
    found = row(tmp_path, {**held(30, 45), **held(60, 61)})
    assert found.recovery_s == pytest.approx(0.21)


def test_no_recovery_fails(tmp_path):
    found = row(tmp_path, held(30, COUNT))
    assert found.recovery_s is None
    assert not found.ok
    assert "no recovery" in found.note


def test_a_pause_between_episodes_is_no_relapse(tmp_path):
    found = row(tmp_path, held(50, 52, reasons=int(Reason.EPISODE)))
    assert found.recovery_s == 0.0


def test_skipped_and_late_ticks_fail(tmp_path):
    late = {70: {"sent_ns": 70 * PERIOD_NS + 2 * PERIOD_NS}}
    found = row(tmp_path, late, skip=(71, 72), ran=COUNT - 2)
    assert found.late == 3
    assert not found.ok
    assert "3 ticks late" in found.note
    assert found.max_gap_ms == pytest.approx(28.0)


def test_one_record_may_be_lost_and_not_two(tmp_path):
    assert row(tmp_path, ran=COUNT + 1).ok
    two = row(tmp_path, ran=COUNT + 2)
    assert two.records_lost == 2
    assert not two.ok
    assert row(tmp_path, ran=COUNT + 50, expected=Expectation(records=None)).ok


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "not finite"), (1.5, "left its limits")], ids=["nan", "far"]
)
def test_an_invalid_command_fails(tmp_path, value, said):
    bad = np.array([0.0, value], np.float32)
    found = row(tmp_path, {60: {"executed": bad}})
    assert not found.ok
    assert said in found.note


def test_a_run_that_should_stop_has_to_latch(tmp_path):
    stops = Expectation(recovers=False)
    latched = held(30, COUNT, rung=Rung.STOP, mode=Mode.FAULT)
    assert row(tmp_path, latched, expected=stops).ok
    found = row(tmp_path, expected=stops)
    assert not found.ok
    assert "did not latch" in found.note


def test_a_complaint_fails(tmp_path):
    found = row(tmp_path, complaints=("swap was not refused",))
    assert not found.ok
    assert found.note == "swap was not refused"


def test_the_largest_jump(tmp_path):
    zero, one = np.zeros(2, np.float32), np.array([0.0, -1.0], np.float32)
    steps = {number: {"executed": zero} for number in range(COUNT)}
    steps[50] = {"executed": one}
    assert row(tmp_path, steps).max_jump == 1.0
