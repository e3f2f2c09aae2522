"""When a process is started again, and when it is not."""

import signal
import sys

import pytest

from controller.process import Child, Supervisor
from controller.tuning.kept import HOPELESS, Kept, words_file


def python(code: str) -> Child:
    return Child([sys.executable, "-c", code], "part")


def ended(kept: Kept) -> None:
    assert kept.child.wait(10.0) is not None


def test_one_that_was_killed_is_started_again_and_told_of_once():
    with Supervisor() as supervisor:
        kept = Kept(supervisor, "part", lambda: python("import time; time.sleep(60)"))
        first = kept.child
        kept.look(0.0)
        first.kill()
        kept.look(1.0)
        kept.look(1.0)
        assert kept.notes == ["part died (killed by SIGKILL): it wrote no message; started again"]
        kept.look(2.0)
        assert kept.child is not first
        assert kept.running
        assert (kept.deaths, kept.done, kept.failure) == (1, False, "")


def test_one_that_is_done_is_not_started_again():
    with Supervisor() as supervisor:
        kept = Kept(supervisor, "part", lambda: python(""))
        first = kept.child
        ended(kept)
        for now in range(5):
            kept.look(float(now))
        assert kept.child is first
        assert (kept.deaths, kept.done, kept.failure) == (0, True, "")


def failing(supervisor: Supervisor, hopeless=lambda child: "") -> Kept:
    return Kept(supervisor, "part", lambda: python("raise SystemExit('no such thing')"), hopeless)


def test_one_that_fails_at_once_is_given_up_after_a_while():
    with Supervisor() as supervisor:
        kept = failing(supervisor)
        now = 0.0
        while not kept.done and now < 100.0:
            ended(kept)
            kept.look(now)
            now += 5.0
        assert kept.deaths == HOPELESS
        assert kept.failure == "no such thing"
        assert kept.notes[-1].endswith("no such thing; given up")


def test_one_that_fails_after_a_time_of_health_is_not_given_up():
    with Supervisor() as supervisor:
        kept = failing(supervisor)
        kept.look(0.0)
        for turn in range(1, 3 * HOPELESS):
            ended(kept)
            kept.look(100.0 * turn)
            kept.look(100.0 * turn + 50.0)
        assert not kept.done
        assert kept.deaths == 3 * HOPELESS - 1


def test_one_for_which_there_is_no_hope_is_given_up_at_once_with_the_reason():
    with Supervisor() as supervisor:
        kept = failing(supervisor, lambda child: f"hopeless: {child.last_error()}")
        ended(kept)
        kept.look(0.0)
        assert (kept.done, kept.failure) == (True, "hopeless: no such thing")


def test_signals_never_count_towards_giving_up():
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    with Supervisor() as supervisor:
        kept = Kept(supervisor, "part", lambda: python(code))
        for turn in range(2 * HOPELESS):
            ended(kept)
            kept.look(10.0 * turn)
            kept.look(10.0 * turn + 6.0)
        assert kept.deaths == 2 * HOPELESS
        assert not kept.done


@pytest.mark.parametrize("said", [["one"], ["one", "two"], ["one", "two", "three"]])
def test_what_each_process_said_is_kept(tmp_path, said):
    for words in said:
        words_file(tmp_path, "part").write_text(words)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    numbered = {f"part.{n}.log": words for n, words in enumerate(said[:-1], 1)}
    assert kept == {"part.log": said[-1], **numbered}


def test_of_one_that_said_nothing_nothing_is_kept(tmp_path):
    for _ in range(2):
        words_file(tmp_path, "part").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["part.log"]
