import pytest

from controller.modes import TRANSITIONS, Event, event_of, next_mode
from controller.types import Mode, Reason, Rung

# Rows: mode. Columns in this order; "." cannot happen.
COLUMNS = (
    Event.EPISODE_BEGUN,
    Event.ACTION_READY,
    Event.PERSON_DRIVES,
    Event.ACTION_MISSING,
    Event.OBSERVATION_UNUSABLE,
    Event.WORKSPACE_LEFT,
    Event.PLANT_LOST,
    Event.EPISODE_OVER,
    Event.PLANT_FAILED,
    Event.SILENT_TOO_LONG,
    Event.OPERATOR_STOP,
    Event.RUN_COMPLETE,
)
TABLE = {
    Mode.INIT: "HOLD . . . . . . . . FAULT STOPPED STOPPED",
    Mode.HOLD: ". RUN RUN HOLD HOLD HOLD HOLD HOLD FAULT FAULT STOPPED STOPPED",
    Mode.RUN: ". RUN RUN HOLD HOLD HOLD HOLD HOLD FAULT FAULT STOPPED STOPPED",
    Mode.FAULT: ". . . . . . . . FAULT FAULT STOPPED STOPPED",
    Mode.STOPPED: ". . . . . . . . . . . STOPPED",
}
CELLS = [
    (mode, event, cell)
    for mode, row in TABLE.items()
    for event, cell in zip(COLUMNS, row.split(), strict=True)
]


def test_the_table_is_complete():
    assert set(COLUMNS) == set(Event)
    assert set(TABLE) == set(Mode)


@pytest.mark.parametrize(("mode", "event", "cell"), CELLS)
def test_each_cell(mode, event, cell):
    if cell == ".":
        assert (mode, event) not in TRANSITIONS
        with pytest.raises(AssertionError, match=f"'{event.value}' cannot happen in mode"):
            next_mode(mode, event)
    else:
        assert next_mode(mode, event) is Mode[cell]


def test_no_way_leads_back_from_a_latched_stop():
    reached, frontier = set(), {Mode.FAULT, Mode.STOPPED}
    while frontier:
        reached |= frontier
        frontier = {to for (mode, _), to in TRANSITIONS.items() if mode in reached} - reached
    assert reached == {Mode.FAULT, Mode.STOPPED}


DECISIONS = [
    # rung, reasons, a policy was asked, what it means
    (Rung.FRESH, Reason.NONE, True, Event.ACTION_READY),
    (Rung.TAIL, Reason.LATE, True, Event.ACTION_READY),
    (Rung.LOCAL, Reason.REFUSED, True, Event.ACTION_READY),
    (Rung.HUMAN, Reason.NONE, False, Event.PERSON_DRIVES),
    (Rung.HOLD, Reason.LATE, True, Event.ACTION_MISSING),
    (Rung.HOLD, Reason.LATE | Reason.BLENDED, True, Event.ACTION_MISSING),
    (Rung.HOLD, Reason.STALE, False, Event.OBSERVATION_UNUSABLE),
    (Rung.HOLD, Reason.NONFINITE, False, Event.OBSERVATION_UNUSABLE),
    (Rung.HOLD, Reason.WORKSPACE, False, Event.WORKSPACE_LEFT),
    (Rung.HOLD, Reason.PLANT_LOST, False, Event.PLANT_LOST),
    (Rung.HOLD, Reason.EPISODE, False, Event.EPISODE_OVER),
    (Rung.STOP, Reason.LATE, False, Event.SILENT_TOO_LONG),
    (Rung.STOP, Reason.WORKSPACE, False, Event.SILENT_TOO_LONG),
    (Rung.STOP, Reason.PLANT_FAILED, False, Event.PLANT_FAILED),
    (Rung.STOP, Reason.OPERATOR, False, Event.OPERATOR_STOP),
]


@pytest.mark.parametrize(("rung", "reasons", "asked", "event"), DECISIONS)
def test_what_a_decision_means(rung, reasons, asked, event):
    assert event_of(rung, reasons, asked=asked) is event
