"""Rules for rows: what each kind teaches, what is counted, where chains are cut."""

from dataclasses import replace

import numpy as np
import pytest

from controller.feed.rows import RowKind
from policies.finetuning.rules import Rules, closed, kinds_of, use_of
from policies.finetuning.settings import RowRules
from tests.policies.robots import toy_data

KINDS = np.array([0, 0, 1, 2, 3, 4, 4])


def test_by_default_only_what_somebody_chose_is_imitated():
    rules = Rules(RowRules())
    assert rules.imitated(KINDS).tolist() == [True, True, True, False, False, False, False]
    assert rules.kept(KINDS).tolist() == [True] * 5 + [False, False]


@pytest.mark.parametrize("kind", list(RowKind))
@pytest.mark.parametrize("use", ["imitate", "value", "drop"])
def test_each_rule_is_that_of_its_own_kind(kind, use):
    others = dict.fromkeys((k.name.lower() for k in RowKind), "value")
    settings = RowRules(**(others | {kind.name.lower(): use}))
    rules, every = Rules(settings), np.arange(len(RowKind))
    assert use_of(settings, kind) == use
    assert rules.imitated(every).tolist() == [k is kind and use == "imitate" for k in RowKind]
    assert rules.kept(every).tolist() == [k is not kind or use != "drop" for k in RowKind]


def test_the_table_says_how_many_rows_taught_what():
    rules = Rules(RowRules(human="value"))
    rules.count(KINDS)
    rules.count(KINDS[:3].astype(np.uint8))
    assert rules.table() == {
        "policy": {"rows": 4, "use": "imitate"},
        "human": {"rows": 2, "use": "value"},
        "fallback": {"rows": 1, "use": "value"},
        "explored": {"rows": 1, "use": "value"},
        "unapplied": {"rows": 2, "use": "drop"},
    }
    assert rules.words() == (
        "4 policy (imitate), 2 human (value), 1 fallback (value), 1 explored (value), "
        "2 unapplied (drop)"
    )


def test_rows_that_do_not_say_are_the_policys():
    data = toy_data(7)
    assert kinds_of(data).tolist() == [0] * 7
    assert kinds_of(replace(data, info={"kind": KINDS})).tolist() == KINDS.tolist()


def test_a_chain_is_cut_where_a_row_is_left_out():
    data = toy_data(100)
    chosen = np.ones(100, bool)
    chosen[[3, 49, 60]] = False
    part = closed(data, chosen)
    kept = np.flatnonzero(chosen)
    ends = kept[part.terminals | part.timeouts].tolist()
    # Row 49 ended its episode: the row before it ends the chain now; row 99 is the last.
    assert ends == [2, 48, 59, 99]
    assert not (part.terminals & part.timeouts).any()
    assert data.timeouts.sum() == 1, "the data themselves are left as they were"
