"""The list of a run's bundles."""

from policies import checkpoints
from policies.checkpoints import Checkpoint

FIRST = Checkpoint(100, "v0001-aaaaaaaa", 0.5)
SECOND = Checkpoint(200, "v0001-bbbbbbbb", 0.25)
THIRD = Checkpoint(300, "v0001-cccccccc")


def test_it_is_read_as_it_was_written(tmp_path):
    assert checkpoints.read(tmp_path) == []
    for each in (FIRST, SECOND, THIRD):
        checkpoints.append(tmp_path, each)
    assert checkpoints.read(tmp_path) == [FIRST, SECOND, THIRD]


def test_a_run_that_goes_on_forgets_what_came_after(tmp_path):
    for each in (FIRST, SECOND, THIRD):
        checkpoints.append(tmp_path, each)
    checkpoints.forget_after(tmp_path, 200)
    assert checkpoints.read(tmp_path) == [FIRST, SECOND]
    checkpoints.forget_after(tmp_path, 0)
    assert checkpoints.read(tmp_path) == []


def test_finished_means_the_last_update_was_reached(tmp_path):
    assert not checkpoints.finished(tmp_path, 200)
    checkpoints.append(tmp_path, FIRST)
    assert not checkpoints.finished(tmp_path, 200)
    checkpoints.append(tmp_path, SECOND)
    assert checkpoints.finished(tmp_path, 200)


def test_a_line_cut_short_by_a_kill_does_not_count(tmp_path):
    checkpoints.append(tmp_path, FIRST)
    with (tmp_path / checkpoints.CHECKPOINTS).open("ab") as stream:
        stream.write(b'{"step":200,"vers')
    assert checkpoints.read(tmp_path) == [FIRST]
