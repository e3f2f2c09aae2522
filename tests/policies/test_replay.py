"""The replay buffer: every row comes back once, in its copy's order, also after the file wraps."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import DataError
from controller.spec import ArraySpec, Spec
from controller.types import VectorStep
from policies.codec import of_limits
from policies.replay import Replay

SPEC = Spec(
    task="counter",
    observation=(ArraySpec("copy", (1,)), ArraySpec("time", (1,))),
    action=ArraySpec("u", (2,), "float32", "", (-3.0, 0.0), (3.0, 1.0)),
    rate_hz=10.0,
)
CODEC = of_limits(SPEC)


def fill(replay, steps, start=0, ends=()):
    """Add steps of copies whose observation is (copy, time), so that a row tells what it is."""
    n, later = replay.copies, np.array([0.0, 1.0])
    for t in range(start, start + steps):
        seen = np.stack([np.arange(n), np.full(n, t)], 1).astype(float)
        terminated = np.array([(c, t) in ends for c in range(n)])
        step = VectorStep(
            observations=seen + later,
            next_observations=seen + later,
            rewards=100.0 * np.arange(n) + t,
            terminated=terminated,
            truncated=np.zeros(n, bool),
            success=np.zeros(n, bool),
            episode_returns=np.zeros(n),
            episode_steps=np.zeros(n, int),
        )
        actions = np.full((n, 2), t % 3 - 1, np.float32)
        replay.add(seen, actions, step)


@settings(max_examples=40, deadline=None)
@given(
    copies=st.integers(1, 4),
    capacity=st.integers(1, 30),
    slack=st.integers(0, 10),
    steps=st.integers(1, 25),
)
def test_transitions_are_the_newest_rows_copy_by_copy(
    tmp_path_factory, copies, capacity, slack, steps
):
    file = tmp_path_factory.mktemp("replay") / "rows"
    replay = Replay(file, capacity, slack, (2, 2), copies)
    fill(replay, steps)
    kept = min(steps, -(-capacity // copies))
    assert len(replay) == kept * copies
    data = replay.to_transitions(SPEC, CODEC).validate("replay")
    expected = [(c, t) for c in range(copies) for t in range(steps - kept, steps)]
    assert data.observations.tolist() == [list(pair) for pair in expected]
    assert data.next_observations[:, 1].tolist() == [t + 1 for _, t in expected]
    assert data.rewards.tolist() == [100 * c + t for c, t in expected]
    # -1, 0, 1 of the network are the limits and the middle between.
    assert data.actions.tolist() == [[3.0 * (t % 3 - 1), (t % 3) / 2] for _, t in expected]
    assert np.flatnonzero(data.timeouts).tolist() == [kept * (c + 1) - 1 for c in range(copies)]
    assert data.actions.dtype == data.observations.dtype == np.float32


def test_terminals_and_cuts_end_episodes(tmp_path):
    replay = Replay(tmp_path / "rows", 100, 0, (2, 2), 2)
    fill(replay, 3, ends={(1, 2)})
    replay.cut()
    fill(replay, 2, start=3)
    data = replay.to_transitions(SPEC, CODEC).validate("replay")
    # Copy 0 is cut after its third row; copy 1 had just ended there.
    assert data.terminals.tolist() == [False] * 7 + [True, False, False]
    assert np.flatnonzero(data.timeouts).tolist() == [2, 4, 9]
    assert data.lengths().tolist() == [3, 2, 3, 2]


def test_batches_hold_whole_rows_from_the_window_drawn_evenly(tmp_path):
    replay = Replay(tmp_path / "rows", 20, 5, (2, 2), 2)
    fill(replay, 17, ends={(0, 12)})
    drawn = replay.draw(40, 50, np.random.default_rng(0), torch.device("cpu"))
    assert [len(b.reward) for b in drawn] == [50] * 40
    copy, time = torch.cat([b.observation for b in drawn]).T
    assert torch.equal(torch.cat([b.reward for b in drawn]), 100 * copy + time)
    assert torch.equal(torch.cat([b.next_observation for b in drawn])[:, 1], time + 1)
    assert torch.equal(torch.cat([b.action for b in drawn])[:, 0], time % 3 - 1)
    ended = (copy == 0) & (time == 12)
    assert torch.equal(torch.cat([b.alive for b in drawn]), (~ended).float())
    # 2000 draws of 20 rows: 100 each, with a standard deviation of 9.7.
    counts = torch.bincount((2 * (time - 7) + copy).long())
    assert len(counts) == 20
    assert (counts - 100).abs().max() < 45


def test_rows_can_be_taken_up_again_up_to_the_slack_earlier(tmp_path):
    file = tmp_path / "rows"
    replay = Replay(file, 10, 6, (2, 2), 2)
    fill(replay, 9)
    before = replay.to_transitions(SPEC, CODEC)
    fill(replay, 3, start=9)
    again = Replay(file, 10, 6, (2, 2), 2, count=18)
    assert again.to_transitions(SPEC, CODEC).digest() == before.digest()
    fill(again, 1, start=9)
    assert len(again) == 10
    assert again.to_transitions(SPEC, CODEC).observations[4].tolist() == [0.0, 9.0]


def test_a_file_that_is_gone_or_of_another_run_is_told(tmp_path):
    file = tmp_path / "rows"
    with pytest.raises(DataError, match="is gone; the run cannot go on"):
        Replay(file, 10, 0, (2, 2), 2, count=2)
    Replay(file, 10, 0, (2, 2), 2)
    with pytest.raises(DataError, match=r"has 360 bytes, expected 720"):
        Replay(file, 20, 0, (2, 2), 2, count=2)


def test_the_whole_file_is_on_the_disk_from_the_start(tmp_path):
    file = tmp_path / "rows"
    Replay(file, 10_000, 0, (2, 2), 2)
    assert os.stat(file).st_blocks * 512 >= 10_000 * 9 * 4


def test_no_room_is_told_before_anything_begins(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room for 343 MiB of replay .* lower capacity"):
        Replay(tmp_path / "rows", 10_000_000, 0, (2, 2), 1)
