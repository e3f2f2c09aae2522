import pytest

from controller.modes import TRANSITIONS, Event, next_mode
from controller.types import Mode

# Rows: mode. Columns in this order; "." cannot happen.
COLUMNS = (
    Event.EPISODE_BEGUN,
    Event.ACTION_READY,
    Event.ACTION_MISSING,
    Event.OBSERVATION_UNUSABLE,
    Event.PLANT_LOST,
    Event.EPISODE_OVER,
    Event.PLANT_FAILED,
    Event.SILENT_TOO_LONG,
    Event.OPERATOR_STOP,
    Event.RUN_COMPLETE,
)
TABLE = {
    Mode.INIT: "HOLD . . . . . . FAULT STOPPED STOPPED",
    Mode.HOLD: ". RUN HOLD HOLD HOLD HOLD FAULT FAULT STOPPED STOPPED",
    Mode.RUN: ". RUN HOLD HOLD HOLD HOLD FAULT FAULT STOPPED STOPPED",
    Mode.FAULT: ". . . . . . FAULT FAULT STOPPED STOPPED",
    Mode.STOPPED: ". . . . . . . . . STOPPED",
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
