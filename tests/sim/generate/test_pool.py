"""Recordings in several processes: the same whoever runs what, and nothing is left behind."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.process import ChildDied
from sim.generate.pool import MAX_BLOCK_EPISODES, Gathering, record, record_here
from sim.generate.rollout import Job
from sim.generate.worker import Block, Head

JOBS = (
    Job("pointmaze-umaze", "random", seed=5, episode_steps=30),
    Job("pointmaze-umaze", "random", seed=5, stream=1, episode_steps=7),
)
STEPS = (1234, 500)


def block(first, lengths):
    """Return a block whose rows say which step of which episode they are."""
    rows = [(first + i, step) for i, length in enumerate(lengths) for step in range(length)]
    terminals = np.concatenate([np.arange(length) == length - 1 for length in lengths])
    columns = {
        "observations": np.array(rows, np.float32).reshape(-1, 2),
        "terminals": terminals,
        "timeouts": np.zeros_like(terminals),
    }
    return Block(Head(0, first, tuple(lengths), (True,) * len(lengths), ()), columns)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_blocks_in_any_order_give_the_first_rows_in_order(groups, data):
    lengths = [length for group in groups for length in group]
    steps = data.draw(st.integers(1, sum(lengths)))
    firsts = np.cumsum([0, *[len(group) for group in groups]]).tolist()
    gathering = Gathering(steps)
    for index in data.draw(st.permutations(range(len(groups)))):
        gathering.take(block(firsts[index], groups[index]))
    assert gathering.complete
    recording = gathering.recording()
    expected = [[k, step] for k, length in enumerate(lengths) for step in range(length)][:steps]
    assert recording.columns["observations"].tolist() == expected
    assert sum(recording.lengths) == steps
    assert list(recording.lengths[:-1]) == lengths[: len(recording.lengths) - 1]
    ends = recording.columns["terminals"] | recording.columns["timeouts"]
    assert (np.flatnonzero(ends) + 1).tolist() == np.cumsum(recording.lengths).tolist()
    assert not (recording.columns["terminals"] & recording.columns["timeouts"]).any()


def test_orders_grow_with_short_episodes():
    gathering = Gathering(10_000)
    assert gathering.block_episodes() == 1
    gathering.take(block(0, [5] * 4))
    assert gathering.block_episodes() == MAX_BLOCK_EPISODES
    gathering.take(block(4, [995] * 4))
    assert gathering.block_episodes() == 2000 * 8 // 4000
    gathering.take(block(8, [999] * 6))
    assert gathering.block_episodes() == 1


@pytest.fixture(scope="module")
def here():
    return record_here(JOBS, STEPS)


@pytest.mark.parametrize("processes", [1, 3])
def test_the_number_of_processes_changes_nothing(here, processes):
    told = []
    there = record(JOBS, STEPS, processes, on_progress=lambda *count: told.append(count))
    for one, other in zip(here, there, strict=True):
        assert one.lengths == other.lengths
        assert one.successes == other.successes
        assert one.columns.keys() == other.columns.keys()
        for name, column in one.columns.items():
            assert column.dtype == other.columns[name].dtype
            assert np.array_equal(column, other.columns[name])
    assert told[-1] == (sum(STEPS), sum(STEPS))
    assert told == sorted(told)


def test_exactly_the_steps_asked_for(here):
    for recording, steps, length in zip(here, STEPS, (30, 7), strict=True):
        assert all(len(column) == steps for column in recording.columns.values())
        assert set(recording.lengths[:-1]) == {length}
        assert recording.columns["timeouts"][-1]


def test_a_longer_recording_continues_a_shorter_one(here):
    (shorter,) = record_here(JOBS[:1], (700,))
    for name, column in shorter.columns.items():
        assert np.array_equal(column[:-1], here[0].columns[name][:699])


def test_streams_share_nothing(here):
    first, second = (one.columns["observations"][0].tolist() for one in here)
    assert first != second


def workers():
    """Return the process ids of this process' living workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if b"sim.generate.worker" in words and int(status[1]) == os.getpid() and status[0] != "Z":
            found.add(int(entry.name))
    return found


def test_ctrl_c_leaves_no_process_behind():
    def interrupt(done, total):
        assert workers()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(JOBS, (10**6, 1), 2, interrupt)
    assert not workers()


def test_a_killed_worker_is_an_error():
    def kill(done, total):
        for pid in workers():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(ChildDied, match=r"ran episodes died \(killed by signal 9\)"):
        record(JOBS, (10**6, 1), 2, kill)
    assert not workers()


def test_what_a_dying_worker_says_is_told():
    job = Job("pointmaze-umaze", "random", seed=5, options={"goal": 1})
    with pytest.raises(ChildDied, match=r"exit status 1.*has no option goal; valid: goal_cell"):
        record((job,), (100,), 2)
    assert not workers()
