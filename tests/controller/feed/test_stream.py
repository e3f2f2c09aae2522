import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.experience import ACTING_TICKS
from controller.feed.kinds import kinds
from controller.feed.rows import NUMBERS, RowKind
from controller.feed.stream import RowStream
from controller.types import Mode, Reason, Rung
from tests.controller.records import SPEC, arrays, tick, written

COLUMNS = ("reward", "terminal", "timeout")


def joined(parts, layout):
    """Return all rows with the names of their versions."""
    rows = np.concatenate([rows for rows, _ in parts])
    names = [
        versions[int(row[layout.number("version")])] for part, versions in parts for row in part
    ]
    return rows, names


def assert_rows_of(log, parts, layout):
    """Assert that streamed rows are those of the whole log, in single precision."""
    data = log.transitions()
    rows, names = joined(parts, layout)
    got = layout.split(rows)
    assert len(rows) == len(data)
    expected = {
        "observation": data.observations,
        "action": data.actions,
        "next_observation": data.next_observations,
        "acted": data.info["acted"],
        "reward": data.rewards,
        "terminal": data.terminals,
        "timeout": data.timeouts,
        **{name: data.info[name] for name in ("over", "kind", "episode_return", "success")},
    }
    assert {*expected, "version"} == {
        *NUMBERS, "observation", "action", "next_observation", "acted"
    }  # fmt: skip
    for name, column in expected.items():
        assert np.array_equal(got[name], column.astype(np.float32)), name
    assert names == [log.policy_versions[number] for number in data.info["version"]]


@st.composite
def runs(draw):
    """Return the ticks of a run with all that can happen to one."""
    records, number, episode, step = [], 0, 0, 0
    often = st.sampled_from([True] * 9 + [False])
    for _ in range(draw(st.integers(0, 25))):
        done = draw(st.sampled_from(["", "", "", "", "", "terminated", "truncated"]))
        changes = {done: True} if done else {}
        if not draw(often):
            changes["arrays"] = (np.array([0.0, draw(st.sampled_from([np.nan, 1e300]))]),
                                 *arrays(number)[1:])  # fmt: skip
        if not draw(often):
            changes["reward"] = np.nan
        if not draw(often):
            changes["requested"] = np.array([np.inf, 0], np.float32)
        records.append(
            tick(
                number,
                mode=Mode.RUN if draw(often) else Mode.HOLD,
                rung=draw(st.sampled_from(Rung)),
                reasons=int(draw(st.sampled_from([Reason.NONE, Reason.EXPLORED, Reason.LIMIT]))),
                version=draw(st.sampled_from(["v1", "v2", ""])),
                episode=episode,
                step=step,
                episode_return=float(draw(st.integers(-3, 3))),
                success=draw(st.booleans()),
                applied_tick=number - draw(st.sampled_from([1, 1, 1, 2])),
                **{"reward": float(draw(st.integers(-3, 3))), **changes},
            )
        )
        number += 1 if draw(often) else 2
        if done and draw(often):
            episode, step = episode + 1, 0
        else:
            step += draw(st.sampled_from([1, 1, 1, 1, 0, 2, -1]))
    return records


@settings(max_examples=80, deadline=None)
@given(runs(), st.data())
def test_the_rows_are_those_of_the_whole_log_wherever_they_are_taken(records, data):
    stream, parts = RowStream(SPEC), []
    for record in records:
        stream.add(record)
        if data.draw(st.booleans()):
            parts.append(stream.take())
    parts.append(stream.finish())
    with tempfile.TemporaryDirectory() as place:
        log = written(Path(place) / "log.mcap", records)
    assert_rows_of(log, parts, stream.layout)
    assert len(stream) == 0
    assert [len(rows) for rows, _ in (stream.take(), stream.finish())] == [0, 0]


def test_a_row_comes_with_the_tick_after_its_own_or_the_one_behind_that():
    stream, taken = RowStream(SPEC), []
    for number in range(4):
        stream.add(tick(number))
        taken.append(len(stream.take()[0]))
    assert taken == [0, 0, 1, 1]
    # An episode's last row need not wait.
    stream.add(tick(4, truncated=True))
    rows, _ = stream.take()
    assert stream.layout.split(rows)["timeout"].tolist() == [0, 1]
    assert stream.layout.split(rows)["over"].tolist() == [0, 1]


def test_a_row_before_a_gap_comes_when_the_gap_is_seen():
    stream = RowStream(SPEC)
    for number in (0, 1, 3):
        stream.add(tick(number))
    rows, _ = stream.take()
    assert stream.layout.split(rows)["timeout"].tolist() == [1]
    assert len(stream) == 3


def test_what_is_kept_does_not_grow_while_no_rows_come():
    stream = RowStream(SPEC)
    for number in range(50):
        stream.add(tick(number, mode=Mode.HOLD, step=3))
        stream.take()
    assert len(stream) == 1 + ACTING_TICKS


def test_a_run_that_ends_in_the_middle_of_an_episode_ends_in_a_timeout():
    stream = RowStream(SPEC)
    for number in range(3):
        stream.add(tick(number))
    rows, versions = stream.finish()
    named = stream.layout.split(rows)
    assert (named["timeout"].tolist(), named["over"].tolist()) == ([0, 1], [0, 0])
    assert versions == ("v1",)


@pytest.mark.parametrize(
    ("rung", "reasons", "asked", "known", "kind"),
    [
        (Rung.FRESH, Reason.LIMIT | Reason.BLENDED, True, True, RowKind.POLICY),
        (Rung.TAIL, 0, True, True, RowKind.POLICY),
        (Rung.LOCAL, Reason.LATE, True, True, RowKind.POLICY),
        (Rung.LOCAL, 0, True, False, RowKind.UNAPPLIED),
        (Rung.FRESH, Reason.EXPLORED | Reason.SLEW, True, True, RowKind.EXPLORED),
        (Rung.FRESH, Reason.EXPLORED, True, False, RowKind.UNAPPLIED),
        (Rung.FRESH, Reason.NONFINITE, False, True, RowKind.FALLBACK),
        (Rung.HUMAN, 0, True, True, RowKind.HUMAN),
        (Rung.HUMAN, Reason.EXPLORED, True, True, RowKind.HUMAN),
        (Rung.HUMAN, 0, True, False, RowKind.UNAPPLIED),
        (Rung.HOLD, Reason.LATE, True, True, RowKind.FALLBACK),
        (Rung.STOP, 0, True, False, RowKind.FALLBACK),
    ],
)
def test_whose_command_a_tick_holds(rung, reasons, asked, known, kind):
    flags = [np.array([flag]) for flag in (asked, known)]
    found = kinds(np.array([rung], np.int64), np.array([reasons], np.int64), *flags)
    assert [RowKind(value) for value in found] == [kind]
    assert found.dtype == np.uint8
