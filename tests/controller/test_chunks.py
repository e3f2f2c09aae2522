import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.chunks import MAX_ROWS, Joined, Plan, faded_elements
from controller.errors import ConfigError
from controller.spec import ArraySpec
from controller.types import ActionChunk

ACTION = ArraySpec("arm", (3,), "float64", elements=("shoulder", "elbow", "gripper"))


def chunk(tick, rows, value=None, size=1, dtype=np.float64):
    """Rows that tell tick and chunk: 1000 * (chunk's tick) + (row's tick), or a constant."""
    ticks = np.arange(tick, tick + rows)
    values = 1000.0 * tick + ticks if value is None else np.full(rows, value)
    return ActionChunk(tick, np.repeat(values[:, None], size, axis=1).astype(dtype), f"v{tick}")


def values(plan, ticks):
    rows = [plan.row(tick) for tick in ticks]
    return [None if row is None else float(row.action[0]) for row in rows]


def test_an_empty_plan():
    plan = Plan()
    assert plan.row(0) is None
    assert (plan.left(5), plan.commit(0, 3), plan.newest) == (0, None, None)


def test_rows_belong_to_their_ticks():
    plan = Plan()
    assert plan.join(chunk(10, 4), 10, span=2) is Joined.TAKEN
    assert values(plan, range(9, 15)) == [None, 10010, 10011, 10012, 10013, None]
    assert [plan.row(t).source.until for t in range(10, 14)] == [12] * 4
    assert [plan.left(t) for t in (10, 12, 14, 20)] == [4, 2, 0, 0]
    assert plan.newest.tick == 10


@pytest.mark.parametrize(
    ("late", "joined", "expected"),
    [
        (0, Joined.TAKEN, [10010, 10011, 10012, 10013]),
        (1, Joined.TAKEN, [None, 10011, 10012, 10013]),
        (3, Joined.TAKEN, [None, None, None, 10013]),
        (4, Joined.PAST, [None] * 4),
        (900, Joined.PAST, [None] * 4),
        (-1, Joined.FUTURE, [None] * 4),
    ],
)
def test_a_late_chunk_loses_the_rows_whose_ticks_have_passed(late, joined, expected):
    plan = Plan()
    assert plan.join(chunk(10, 4), 10 + late) is joined
    assert values(plan, range(10, 14)) == expected


def test_a_newer_chunk_takes_over_from_the_tick_it_comes_at():
    plan = Plan()
    plan.join(chunk(0, 8), 0)
    assert plan.join(chunk(4, 8), 6) is Joined.TAKEN
    assert values(plan, range(6, 13)) == [*(4000 + t for t in range(6, 12)), None]
    assert plan.row(7).source.chunk.version == "v4"
    assert not plan.row(7).blended


@pytest.mark.parametrize("older", [0, 3, 4])
def test_neither_an_older_chunk_nor_the_same_again_replaces_one(older):
    plan = Plan()
    plan.join(chunk(4, 8), 4)
    assert plan.join(chunk(older, 20), 6) is Joined.OLD
    assert values(plan, (6, 11, 12)) == [4006, 4011, None]


def test_a_chunk_all_of_whose_rows_passed_leaves_the_plan_as_it_is():
    plan = Plan()
    plan.join(chunk(0, 20), 0)
    assert plan.join(chunk(5, 2), 9) is Joined.PAST
    assert values(plan, (9,)) == [9]


def test_nothing_of_before_a_clearing_comes_back():
    plan = Plan()
    plan.join(chunk(0, 20), 0)
    plan.clear(7)
    assert plan.row(8) is None
    assert plan.join(chunk(6, 20), 8) is Joined.OLD
    assert plan.join(chunk(7, 20), 8) is Joined.TAKEN


@pytest.mark.parametrize(("tail", "last"), [(None, 9), (0, 1), (3, 4), (99, 9)])
def test_the_tail_may_be_bounded(tail, last):
    plan = Plan(tail=tail)
    plan.join(chunk(0, 10), 0, span=2)
    assert [t for t in range(12) if plan.row(t)] == list(range(last + 1))
    assert plan.left(0) == last + 1


def test_a_fade_is_linear_between_the_rows_of_the_same_tick():
    plan = Plan(blend=3)
    plan.join(chunk(0, 20, value=0.0), 0)
    plan.join(chunk(4, 20, value=8.0), 5)
    assert values(plan, range(5, 10)) == [2.0, 4.0, 6.0, 8.0, 8.0]
    assert [plan.row(t).blended for t in range(5, 10)] == [True] * 3 + [False] * 2
    assert {plan.row(t).source.chunk.tick for t in range(5, 10)} == {4}


def test_a_fade_is_as_short_as_what_is_left_to_fade_from():
    plan = Plan(blend=9)
    plan.join(chunk(0, 6, value=0.0), 0)
    plan.join(chunk(4, 20, value=9.0), 4)
    assert values(plan, range(4, 8)) == [3.0, 6.0, 9.0, 9.0]
    alone = Plan(blend=9)
    alone.join(chunk(0, 2, value=0.0), 0)
    alone.join(chunk(4, 20, value=9.0), 4)
    assert values(alone, (4,)) == [9.0]
    assert not alone.row(4).blended


def test_a_fade_may_begin_in_a_fade():
    plan = Plan(blend=3)
    plan.join(chunk(0, 20, value=0.0), 0)
    plan.join(chunk(1, 20, value=8.0), 1)  # 2, 4, 6, 8, ... from tick 1 on
    plan.join(chunk(2, 20, value=0.0), 2)  # from 4, 6, 8 towards 0 by quarters
    assert values(plan, range(2, 6)) == [3.0, 3.0, 2.0, 0.0]


def test_excluded_elements_switch_at_the_seam():
    plan = Plan(blend=1, faded=faded_elements(ACTION, ("gripper",)))
    plan.join(chunk(0, 9, value=0.0, size=3), 0)
    plan.join(chunk(1, 9, value=1.0, size=3), 1)
    assert plan.row(1).action.tolist() == [0.5, 0.5, 1.0]
    assert plan.row(2).action.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_fade_keeps_the_dtype_and_may_go_down(dtype):
    plan = Plan(blend=2)
    plan.join(chunk(0, 9, value=250, dtype=dtype), 0)
    plan.join(chunk(1, 9, value=10, dtype=dtype), 1)
    assert values(plan, (1, 2, 3)) == [170, 90, 10]
    assert plan.row(1).action.dtype == dtype


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (("griper",), "arm has no element 'griper', expected 0 to 2, or shoulder, elbow, "
         "gripper; did you mean gripper?"),
        ((3,), "arm has no element 3, expected 0 to 2"),
        ((-1,), "arm has no element -1"),
    ],
)  # fmt: skip
def test_an_element_that_is_not_there_cannot_be_excluded(exclude, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        faded_elements(ACTION, exclude)


def test_elements_are_excluded_by_name_or_number_in_the_actions_shape():
    square = ArraySpec("square", (2, 2), "float64")
    assert faded_elements(square, (2,)).tolist() == [[True, True], [False, True]]
    assert faded_elements(ACTION, ("elbow", 0)).tolist() == [False, False, True]


def test_committed_rows_stay_whatever_comes():
    plan = Plan(blend=2)
    plan.join(chunk(0, 20), 0)
    assert plan.commit(5, 3).ravel().tolist() == [5, 6, 7]
    plan.join(chunk(4, 20, value=0.0), 6)
    assert values(plan, range(6, 9)) == [6, 7, pytest.approx(8 * 2 / 3)]
    assert [plan.row(t).source.chunk.tick for t in (6, 7, 8)] == [0, 0, 4]
    assert [plan.row(t).blended for t in range(6, 11)] == [False, False, True, True, False]
    plan.join(chunk(6, 20, value=-1.0), 7)
    assert values(plan, (7,)) == [7]
    assert plan.row(7).source.chunk.tick == 0


def test_a_fade_that_is_committed_is_kept_as_it_is():
    plan = Plan(blend=3)
    plan.join(chunk(0, 20, value=0.0), 0)
    plan.join(chunk(1, 20, value=8.0), 1)
    committed = plan.commit(1, 2)
    plan.join(chunk(2, 20, value=-50.0), 2)
    assert committed.ravel().tolist() == [2.0, 4.0]
    assert values(plan, (2,)) == [4.0]
    assert plan.row(2).blended


def test_no_more_is_committed_than_there_is():
    plan = Plan(tail=0)
    plan.join(chunk(0, 9), 0, span=4)
    assert len(plan.commit(2, 9)) == 2
    assert plan.commit(2, 0) is None
    assert plan.join(chunk(1, 2), 2) is Joined.PAST  # up to tick 2, which is committed


def test_what_is_committed_does_not_alias_the_plan():
    plan = Plan()
    answer = chunk(0, 5)
    plan.join(answer, 0)
    plan.commit(0, 3)[:] = -1
    answer.actions[:] = -2
    assert values(plan, range(3)) == [0, 1, 2]


def test_a_plan_is_bounded():
    plan = Plan()
    plan.join(chunk(0, 5 * MAX_ROWS), 0, span=10**9)
    assert plan.left(0) == MAX_ROWS


arrivals = st.lists(
    st.tuples(
        st.integers(0, 3),  # ticks that pass first
        st.integers(-2, 12),  # age of the chunk
        st.integers(1, 12),  # its rows
        st.integers(1, 8),  # its span
        st.integers(0, 4),  # rows committed afterwards
        st.booleans(),  # cleared before
    ),
    max_size=60,
)


@settings(deadline=None)
@given(arrivals, st.integers(0, 4), st.sampled_from([None, 0, 2]))
def test_whatever_arrives_every_row_is_used_for_its_own_tick_only(steps, blend, tail):
    plan, tick, cleared = Plan(blend, tail=tail), 20, 0
    promised = {}
    plan.clear(tick)
    for passed, age, rows, span, count, clearing in steps:
        tick += passed
        if clearing:
            plan.clear(tick)
            cleared, promised = tick, {}
        plan.join(chunk(tick - age, rows), tick, span)
        committed = plan.commit(tick, count)
        for ahead in range(14):
            row = plan.row(tick + ahead)
            assert (row is not None) == (ahead < plan.left(tick))
            if row is None:
                continue
            source = row.source
            assert cleared <= source.chunk.tick <= tick + ahead
            assert source.chunk.at(tick + ahead) is not None
            assert tail is None or tick + ahead < source.until + tail
            if not row.blended:
                assert row.action.tolist() == source.chunk.at(tick + ahead).tolist()
            if tick + ahead in promised:
                assert row.action.tolist() == promised[tick + ahead]
        for i, action in enumerate([] if committed is None else committed):
            promised[tick + i] = action.tolist()
        assert plan.left(tick) <= 12 + 4
