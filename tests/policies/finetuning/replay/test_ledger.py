"""The ledger: episodes come out the same however their rows were cut into messages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.feed.rows import RowKind
from policies.finetuning.replay.ledger import KEPT, RATE_NS, Ledger, Records
from tests.policies.finetuning.replay.rows import LAYOUT, rows_of

NAMES = ["v1", "v2", "v3"]


def note(ledger, actor, rows, step):
    numbers = LAYOUT.split(rows)["version"].astype(np.int64)
    ledger.note(actor, rows, numbers, step, NAMES)


def test_episodes_by_hand():
    ledger = Ledger(LAYOUT, Records())
    first = rows_of(0, 5, ends=(4,), version=1, total=7.5)
    first[:3, LAYOUT.number("version")] = 0
    first[1, LAYOUT.number("kind")] = RowKind.HUMAN
    first[4, LAYOUT.number("success")] = 1
    note(ledger, "arm", np.concatenate([first, rows_of(5, 2)]), 100)
    note(ledger, "leg", rows_of(0, 1, ends=(0,), version=2), 107)
    [one, two], following = ledger.since(0)
    assert (one.actor, one.episode, one.total, one.length, one.success) == ("arm", 0, 7.5, 5, True)
    assert (one.version, one.mixed, one.env_step, one.commanded) == ("v1", True, 105, 4)
    assert (two.actor, two.version, two.mixed, two.env_step) == ("leg", "v3", False, 108)
    assert following == 2
    assert ledger.since(1) == ([two], 2)
    assert ledger.since(2) == ledger.since(99) == ([], 2)
    assert ledger.rows_of("arm") == 7
    assert ledger.rows_of("nobody") == 0
    note(ledger, "arm", rows_of(7, 2, ends=(8,), version=2), 108)
    [three] = ledger.since(2)[0]
    assert (three.episode, three.length, three.version, three.mixed) == (1, 4, "v3", True)
    note(ledger, "arm", rows_of(9, 1, ends=(9,), version=1), 110)
    [four] = ledger.since(3)[0]
    assert (four.length, four.commanded, four.version, four.mixed) == (1, 1, "v2", False)


def test_of_two_that_acted_as_long_the_newer_one_counts():
    ledger = Ledger(LAYOUT, Records())
    rows = rows_of(0, 4, ends=(3,))
    rows[1:3, LAYOUT.number("version")] = 2
    note(ledger, "arm", rows, 0)
    assert ledger.since(0)[0][0].version == "v3"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_cut_into_messages_changes_anything(data):
    n = data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    rows = rows_of(0, n, ends=np.flatnonzero(rng.random(n) < 0.2))
    rows[:, LAYOUT.number("version")] = rng.integers(0, 3, n)
    rows[:, LAYOUT.number("kind")] = rng.integers(0, 5, n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=8)))
    whole, parts = Ledger(LAYOUT, Records()), Ledger(LAYOUT, Records())
    note(whole, "arm", rows, 0)
    for first, last in zip([0, *cuts], [*cuts, n], strict=True):
        if last > first:
            note(parts, "arm", rows[first:last], first)
    assert parts.records == whole.records
    arm = whole.records.actors["arm"]
    assert sum(arm.kinds) == n == arm.length + sum(e.length for e in whole.since(0)[0])
    kinds = LAYOUT.split(rows)["kind"]
    assert arm.kinds == [int((kinds == kind).sum()) for kind in RowKind]


def test_the_newest_episodes_are_kept():
    ledger = Ledger(LAYOUT, Records())
    note(ledger, "arm", rows_of(0, 300, ends=range(300)), 0)
    kept, following = ledger.since(0)
    assert [episode.episode for episode in kept] == list(range(300 - KEPT, 300))
    assert following == 300


def test_rates_and_silence():
    ledger = Ledger(LAYOUT, Records())
    for k in range(101):
        note(ledger, "arm", rows_of(10 * k, 10), 10 * k)
        ledger.hear("arm", k * 100_000_000, waits=k % 10 == 0)
    facts = ledger.facts(100 * 100_000_000 + 500_000_000, 64)["arm"]
    assert facts["rate_hz"] == pytest.approx(100, rel=0.01)
    assert (facts["rows"], facts["last_s"], facts["waits"]) == (1010, 0.5, 11)
    assert facts["kinds"]["policy"] == 1010
    assert ledger.facts(100 * 100_000_000 + 2 * RATE_NS, 64)["arm"]["rate_hz"] == 0.0
    ledger.hear("stranger", 0, waits=False)
    assert set(ledger.facts(0, 64)) == {"arm"}
