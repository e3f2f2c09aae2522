"""Batches from rows: the codec's numbers, the share of offline rows, and what is imitated."""

import numpy as np
import pytest
import torch

from controller.feed.rows import RowKind
from policies import codec
from policies.finetuning.batches import Encoder, Mixer, Offline, own_rows
from policies.finetuning.rules import Rules
from policies.finetuning.settings import RowRules
from policies.learning import RewardSettings
from policies.table import Table
from tests.policies.finetuning.experience import LAYOUT, rows_of
from tests.policies.robots import SPEC, toy_data

DATA = toy_data(600)
CODEC = codec.fit(DATA, SPEC, ("position", "target"))
TABLE = Table(DATA, CODEC, RewardSettings())


def mixer(batch=32, share=0.5, offline=True, rules=RowRules(), seed=0):  # noqa: B008
    generator = torch.Generator().manual_seed(seed)
    drawn = Offline(TABLE, generator) if offline else None
    return Mixer(Encoder(LAYOUT, CODEC), Rules(rules), drawn, share, batch, generator)


def test_a_row_becomes_what_the_same_transition_becomes_in_a_table():
    batch, answers = Encoder(LAYOUT, CODEC).batch(rows_of(DATA))
    assert torch.equal(answers, batch.action)
    kept = TABLE.take(torch.arange(len(DATA))[None])
    for name in ("condition", "action", "reward", "next_condition", "alive"):
        ours, theirs = getattr(batch, name), getattr(kept, name)
        assert ours.shape == theirs.shape
        assert ours.dtype == torch.float32
        # Rows are float32 in plant units, the table's come from float64.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-7 * float(theirs.abs().max()))
    assert not batch.next_action.any()


@pytest.mark.parametrize(
    ("batch", "share", "offline", "own"),
    [(256, 0.5, True, 128), (256, 0.5, False, 256), (10, 1.0, True, 1), (10, 0.0, True, 10)],
)
def test_rows_of_a_batch_that_come_from_replay(batch, share, offline, own):
    assert own_rows(batch, share, offline) == own


def test_half_of_a_batch_is_offline():
    mix = mixer()
    rows = rows_of(DATA.select(np.arange(32)))
    rows[:, LAYOUT.number("reward")] = 7.0
    lessons = list(mix.lessons(rows))
    assert [lesson.batch.reward.shape for lesson in lessons] == [(1, 32), (1, 32)]
    for lesson in lessons:
        assert (lesson.batch.reward[0, :16] == 7.0).all()
        assert (lesson.batch.reward[0, 16:] < 1.0).all()


def test_each_batch_has_its_own_rows_in_order():
    rows = rows_of(DATA.select(np.arange(48)))
    rows[:, LAYOUT.number("reward")] = np.arange(48)
    rewards = [lesson.batch.reward[0].tolist() for lesson in mixer(16, offline=False).lessons(rows)]
    assert rewards == [list(range(start, start + 16)) for start in (0, 16, 32)]


def test_where_every_row_is_imitated_the_anchors_are_the_batch():
    (lesson,) = mixer(16, offline=False).lessons(rows_of(DATA.select(np.arange(16))))
    for name, column in vars(lesson.anchors).items():
        assert torch.equal(column, getattr(lesson.batch, name))


def test_critics_learn_from_what_acted_and_the_policy_from_what_answered():
    rows = rows_of(DATA.select(np.arange(16)))
    views = LAYOUT.split(rows)
    for name, encoded in (("acted", 0.5), ("action", -0.25)):
        wanted = CODEC.decode_action(np.full((16, 2), encoded, np.float32))
        views[name][:] = wanted.reshape(16, -1)
    (lesson,) = mixer(32).lessons(rows)
    torch.testing.assert_close(lesson.batch.action[:, :16], torch.full((1, 16, 2), 0.5))
    torch.testing.assert_close(lesson.anchors.action[:, :16], torch.full((1, 16, 2), -0.25))
    assert torch.equal(lesson.anchors.action[:, 16:], lesson.batch.action[:, 16:])


def test_only_rows_by_rule_and_offline_ones_are_imitated():
    kinds = np.resize([RowKind.POLICY, RowKind.FALLBACK, RowKind.EXPLORED, RowKind.HUMAN], 16)
    rows = rows_of(DATA.select(np.arange(16)), kinds)
    rows[:, LAYOUT.number("reward")] = 10.0 + kinds
    (lesson,) = mixer(32).lessons(rows)
    seen = lesson.anchors.reward[0]
    assert seen.shape == (32,)
    own = set(seen[seen >= 10.0].tolist())
    assert own <= {10.0 + RowKind.POLICY, 10.0 + RowKind.HUMAN}
    assert own
    assert (seen < 1.0).any()


def test_anchors_are_drawn_evenly_from_the_rows_that_are_imitated():
    """Of 16 own rows 4 are imitated, 16 offline: a fifth of all anchors are own."""
    kinds = np.resize([RowKind.POLICY, *[RowKind.FALLBACK] * 3], 16 * 400)
    rows = np.resize(rows_of(DATA), (16 * 400, LAYOUT.width)).copy()
    rows[:, LAYOUT.number("kind")] = kinds
    rows[:, LAYOUT.number("reward")] = 10.0
    drawn = torch.stack([lesson.anchors.reward[0] for lesson in mixer(32).lessons(rows)])
    share = float((drawn == 10.0).float().mean())
    # 400 batches of 32: the standard error is 0.0035.
    assert share == pytest.approx(0.2, abs=0.015)


def test_nothing_to_imitate_leaves_no_anchors():
    rows = rows_of(DATA.select(np.arange(16)), RowKind.EXPLORED)
    (lesson,) = mixer(16, offline=False).lessons(rows)
    assert lesson.anchors is None
    assert lesson.batch.reward.shape == (1, 16)


def test_rows_that_teach_nobody_give_way_to_others_of_their_batch():
    kinds = np.resize([RowKind.POLICY, RowKind.UNAPPLIED], 16)
    rows = rows_of(DATA.select(np.arange(16)), kinds)
    rows[:, LAYOUT.number("reward")] = np.where(kinds == RowKind.POLICY, 1.0, 99.0)
    mix = mixer(16, offline=False)
    (lesson,) = mix.lessons(rows)
    assert (lesson.batch.reward == 1.0).all()
    assert (lesson.anchors.reward == 1.0).all()


def test_a_batch_of_nothing_else_is_left_out_or_all_offline():
    rows = rows_of(DATA.select(np.arange(16)), RowKind.UNAPPLIED)
    rows[:, LAYOUT.number("reward")] = 99.0
    assert list(mixer(16, offline=False).lessons(rows)) == []
    (lesson,) = mixer(32).lessons(rows)
    assert lesson.batch.reward.shape == (1, 32)
    assert (lesson.batch.reward < 1.0).all()


def test_what_is_random_is_drawn_as_each_lesson_is_taken():
    """Two draws of one batch and one draw of two give the same lessons."""
    rows = rows_of(DATA.select(np.arange(32)))
    whole = list(mixer(seed=5).lessons(rows))
    again = mixer(seed=5)
    parts = [next(iter(again.lessons(rows[:16]))), next(iter(again.lessons(rows[16:])))]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.batch.condition, other.batch.condition)
