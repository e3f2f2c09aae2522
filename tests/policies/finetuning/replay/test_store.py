"""The store: rows are taken once, bad ones not at all, and a kill loses nothing for good."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import DataError, WireError
from policies.finetuning.replay.store import INDEX, Places, Store
from tests.policies.finetuning.replay.rows import LAYOUT, SPEC, rows_of, told
from tests.policies.weights import robot

V1, V2 = ("v1",), ("v2", "v1")


def store_in(directory, capacity=100, seed=3):
    return Store(SPEC, Places(directory, capacity), seed)


def held(store):
    """Return (actor, number) of the rows that can be drawn, oldest first."""
    places = np.arange(store.ring.count - len(store.ring), store.ring.count)
    return told(store.ring._table[places % store.ring._size])


def killed(store, directory):
    """Return a store that goes on where a killed one was, whose file holds all it ever wrote."""
    store._lock.close()
    return store_in(directory, store.ring.capacity)


def test_rows_are_taken_once_and_in_order(tmp_path):
    store = store_in(tmp_path)
    assert store.insert("arm", 0, V1, rows_of(0, 5)) == 5
    assert store.insert("arm", 0, V1, rows_of(0, 5)) == 0
    assert store.insert("arm", 3, V1, rows_of(3, 4)) == 2
    assert store.insert("arm", 8, V1, rows_of(8, 4)) == 0, "row 7 is missing"
    assert store.insert("leg", 0, V1, rows_of(0, 2, actor=1)) == 2
    assert held(store) == [(0, k) for k in range(7)] + [(1, 0), (1, 1)]
    assert store.ledger.rows_of("arm") == 7
    store.close()


def test_versions_get_numbers_that_all_messages_share(tmp_path):
    store = store_in(tmp_path)
    store.insert("arm", 0, V1, rows_of(0, 3))
    mixed = rows_of(3, 3)
    mixed[:, LAYOUT.number("version")] = (1, 0, 0)
    store.insert("arm", 3, V2, mixed)
    assert store.publications.names == ["v1", "v2"]
    assert store.ring.column(LAYOUT.number("version")).tolist() == [0, 0, 0, 0, 1, 1]
    assert store.publications.told(64) == {"v1": 4, "v2": 2}
    assert store.publications.told(1) == {"v2": 2}
    store.close()


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (1, 0, np.nan, r"row 1: observation\[0\] is nan, expected a finite number"),
        (2, 4, np.inf, r"row 2: action\[1\] is inf"),
        (0, LAYOUT.number("reward"), -np.inf, "row 0: reward is -inf"),
        (0, LAYOUT.number("success") + 3, np.nan, r"row 0: next_observation\[2\] is nan"),
        (0, LAYOUT.width - 1, np.nan, r"row 0: acted\[1\] is nan"),
        (2, LAYOUT.number("version"), 2, "row 2: version is 2, expected 0 to 1"),
        (2, LAYOUT.number("version"), -1, "row 2: version is -1, expected 0 to 1"),
        (2, LAYOUT.number("version"), 0.5, "row 2: version is 0.5"),
        (2, LAYOUT.number("kind"), 5, "row 2: kind is 5, expected 0 to 4"),
        (1, LAYOUT.number("terminal"), 0.5, "row 1: terminal is 0.5, expected 0 to 1"),
        (1, LAYOUT.number("over"), 2, "row 1: over is 2"),
        (1, LAYOUT.number("success"), -1, "row 1: success is -1"),
    ],
)
def test_bad_rows_are_told_and_nothing_is_kept(tmp_path, row, column, value, message):
    store, rows = store_in(tmp_path), rows_of(0, 3)
    rows[row, column] = value
    with pytest.raises(WireError, match=message):
        store.insert("arm", 0, V2, rows)
    assert (store.ring.count, store.ledger.rows_of("arm"), store.publications.names) == (0, 0, [])
    store.close()


def test_a_row_without_versions_or_with_two_ends_is_bad(tmp_path):
    store, rows = store_in(tmp_path), rows_of(0, 3, ends=(1,))
    with pytest.raises(WireError, match="expected none, for no version is declared"):
        store.insert("arm", 0, (), rows)
    rows[1, LAYOUT.number("terminal")] = 1
    with pytest.raises(WireError, match="row 1: terminal and a timeout"):
        store.insert("arm", 0, V1, rows)
    store.close()


def test_large_numbers_are_finite(tmp_path):
    store, rows = store_in(tmp_path), rows_of(0, 3)
    rows[:, 3:5] = 3e38
    assert store.insert("arm", 0, V1, rows) == 3
    store.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_after_a_kill_the_resend_makes_it_whole(tmp_path_factory, data):
    """Rows, versions and episodes are those of a service that never died, whenever it was saved."""
    draws = st.tuples(st.integers(0, 2), st.integers(1, 9), st.booleans())
    blocks = data.draw(st.lists(draws, min_size=1, max_size=12))
    root = tmp_path_factory.mktemp("store")
    store, sent = store_in(root / "a", 20), [0, 0, 0]
    logs = [rows_of(0, 120, actor=k, ends=range(k + 2, 120, 7)) for k in range(3)]
    saved = held(store)
    for actor, count, save in blocks:
        rows = logs[actor][sent[actor] : sent[actor] + count]
        assert store.insert(str(actor), sent[actor], V1, rows) == count
        sent[actor] += count
        if save:
            store.save()
            saved = held(store)
    again = killed(store, root / "a")
    assert held(again) == saved
    for actor in range(3):
        kept = again.ledger.rows_of(str(actor))
        assert kept <= sent[actor]
        again.insert(str(actor), 0, V1, logs[actor][: sent[actor]])
    assert again.ring.count == sum(sent)
    assert again.publications.told(9) == {"v1": sum(sent)}
    found = held(again)
    assert len(set(found)) == len(found)
    for actor in range(3):
        mine = [number for who, number in found if who == actor]
        assert mine == list(range(sent[actor] - len(mine), sent[actor]))
        kept = again.ledger.records.actors.get(str(actor))
        never = store.ledger.records.actors.get(str(actor))
        assert kept == never
    ended = {(e.actor, e.episode, e.length) for e in again.ledger.since(0)[0]}
    assert ended == {(e.actor, e.episode, e.length) for e in store.ledger.since(0)[0]}
    again.close()


def test_an_index_is_written_before_the_slack_is_used_up(tmp_path, monkeypatch):
    monkeypatch.setattr("policies.finetuning.replay.store.MAX_ROWS", 10)
    store = store_in(tmp_path, capacity=30)
    for first in range(0, 90, 9):
        store.insert("arm", first, V1, rows_of(first, 9))
    again = killed(store, tmp_path)
    # Of 90 rows the last index tells of 81; the file holds all that could be drawn then.
    assert again.ring.count == 81
    assert held(again) == [(0, k) for k in range(51, 81)]
    again.close()


def test_an_index_that_was_cut_short_is_told(tmp_path):
    store = store_in(tmp_path)
    store.insert("arm", 0, V1, rows_of(0, 5))
    store.close()
    blob = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(blob[: len(blob) // 2])
    with pytest.raises(DataError, match=r"index\.json: not the index of a replay"):
        store_in(tmp_path)
    (tmp_path / INDEX).write_bytes(blob)
    with pytest.raises(DataError, match=r"the settings say 50: set replay\.capacity=100"):
        store_in(tmp_path, 50)
    with pytest.raises(DataError, match="of another robot"):
        Store(robot(3, 1), Places(tmp_path, 100), 0)
    (tmp_path / INDEX).write_bytes(blob.replace(b"onebeat.replay/1", b"onebeat.replay/9"))
    with pytest.raises(DataError, match=r"this version reads 'onebeat\.replay/1'"):
        store_in(tmp_path)


def test_an_index_without_its_rows_is_told(tmp_path):
    store = store_in(tmp_path)
    store.close()
    shutil.move(tmp_path / "rows.f32", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"rows\.f32: is gone"):
        store_in(tmp_path)


def test_two_services_do_not_share_a_place(tmp_path):
    store = store_in(tmp_path)
    with pytest.raises(DataError, match="another replay service is at work there"):
        store_in(tmp_path)
    store.close()
    store_in(tmp_path).close()


def test_draws_go_on_where_they_were(tmp_path):
    store = store_in(tmp_path)
    store.insert("arm", 0, V1, rows_of(0, 50))
    store.draw(2, 8, counted=True)
    store.save()
    expected = told(store.draw(3, 8, counted=True))
    again = killed(store, tmp_path)
    assert again.progress.batches == 2
    assert told(again.draw(3, 8, counted=True)) == expected
    other = store_in(tmp_path / "other", seed=4)
    other.insert("arm", 0, V1, rows_of(0, 50))
    other.draw(2, 8, counted=True)
    assert told(other.draw(3, 8, counted=True)) != expected


def test_staleness_and_age_of_what_is_drawn(tmp_path):
    store = store_in(tmp_path, capacity=1000)
    enter = store.publications.enter
    enter("v1", "bundles/v1", False)
    store.insert("arm", 0, V1, rows_of(0, 500))
    enter("v2", "bundles/v2", False)
    enter("v3", "bundles/v3", False)
    store.draw(40, 250, counted=True)
    facts = store.freshness.facts()
    assert facts["staleness_p50"] == facts["staleness_p95"] == 2
    # Even draws from 500 rows of ages 0 to 499.
    assert facts["age_rows_p50"] == pytest.approx(249, abs=40)
    assert facts["age_rows_p95"] == pytest.approx(475, abs=20)
    # The first version comes back: its rows are fresh again, those of the others are not.
    enter("v1", "bundles/v1", True)
    assert store.publications.rollbacks == 1
    assert store.publications.staleness(np.zeros(2, np.float32)).tolist() == [0, 0]
    assert store.publications.staleness(np.ones(2, np.float32)).tolist() == [2, 2]
    assert enter("v1", "bundles/v1", True) is False
    assert store.publications.rollbacks == 1
    store.draw(1, 256, counted=False)
    assert store.progress.drawn == 10_000
    store.close()


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch):
    monkeypatch.setattr("policies.finetuning.replay.store.MAX_ROWS", 10)
    store = store_in(tmp_path, capacity=30)
    store.insert("arm", 0, V1, rows_of(0, 9))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("policies.disk.os.fsync", full)
        with pytest.raises(DataError, match="cannot be written: No space left on device"):
            store.save()
        # There is room for one more row until an index must be written.
        assert store.insert("arm", 9, V1, rows_of(9, 1)) == 1
        with pytest.raises(DataError, match="No space left"):
            store.insert("arm", 10, V1, rows_of(10, 1))
    assert store.ledger.rows_of("arm") == store.ring.count == 10
    assert store.insert("arm", 10, V1, rows_of(10, 9)) == 9
    assert held(killed(store, tmp_path)) == [(0, k) for k in range(10)]
