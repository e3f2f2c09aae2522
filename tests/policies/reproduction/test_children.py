"""Processes at work: how many, in which order, and what a failure or a stop does."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from policies.reproduction.children import Job, work


@dataclass
class Script(Job):
    """A job that runs a line of Python instead of a verb."""

    def command(self):
        return [sys.executable, "-S", "-c", self.verb]


def script(tmp_path, name, code="pass", **more):
    return Script(name, code, [], tmp_path / "logs" / f"{name}.log", **more)


def note(tmp_path, word):
    """Return code that appends a word to a file in one write."""
    return f"open({str(tmp_path / 'notes')!r}, 'a').write({word + ' '!r})"


def notes(tmp_path):
    return (tmp_path / "notes").read_text().split()


def test_jobs_are_done_in_order_and_what_comes_of_one_before_the_next(tmp_path):
    def then():
        return [
            script(tmp_path, "a1", note(tmp_path, "a1")),
            script(tmp_path, "a2", note(tmp_path, "a2")),
        ]

    first = script(tmp_path, "a", note(tmp_path, "a"), after=then)
    last = script(tmp_path, "b", note(tmp_path, "b"))
    assert work([first, last], 1)
    assert notes(tmp_path) == ["a", "a1", "a2", "b"]


def test_one_that_fails_is_told_and_does_not_stop_the_others(tmp_path):
    failed, done = {}, []
    words = "import sys; print('before', file=sys.stderr); sys.exit('onebeat train: it went wrong')"
    jobs = [
        script(tmp_path, "a", words, failed=lambda said: failed.update(a=said)),
        script(
            tmp_path, "b", "import os; os.kill(os.getpid(), 9)", failed=lambda s: failed.update(b=s)
        ),
        script(tmp_path, "c", after=lambda: done.append("c") or ()),
    ]
    assert work(jobs, 2)
    assert failed == {"a": "it went wrong", "b": "killed by SIGKILL"}
    assert done == ["c"]
    assert "before" in (tmp_path / "logs" / "a.log").read_text()


def test_no_more_processes_are_at_work_than_there_are_workers(tmp_path):
    """Each notes its begin and its end; at no time are more than two between them."""
    code = f"import time; {note(tmp_path, '+')}; time.sleep(0.15); {note(tmp_path, '-')}"
    assert work([script(tmp_path, f"j{n}", code) for n in range(5)], 2)
    depth, deepest = 0, 0
    for word in notes(tmp_path):
        depth += 1 if word == "+" else -1
        deepest = max(deepest, depth)
    assert deepest == 2


def test_one_is_passed_over_that_says_so_at_its_turn(tmp_path):
    jobs = [
        script(tmp_path, "a", note(tmp_path, "a")),
        script(tmp_path, "b", note(tmp_path, "b"), skip=(tmp_path / "notes").is_file),
        script(tmp_path, "c", note(tmp_path, "c"), skip=(tmp_path / "nowhere").is_file),
    ]
    assert work(jobs, 1)
    assert notes(tmp_path) == ["a", "c"]


def test_a_stop_reaches_those_at_work_and_lets_them_end_in_order(tmp_path):
    code = (
        "import signal, time, sys\n"
        f"def end(*_):\n {note(tmp_path, 'saved')}\n sys.exit(130)\n"
        f"signal.signal(signal.SIGTERM, end)\n{note(tmp_path, 'begun')}\ntime.sleep(60)\n"
    )
    said = []
    job = script(tmp_path, "a", code, failed=said.append, after=lambda: said.append("after") or ())
    after = script(tmp_path, "b", note(tmp_path, "b"))
    begin = time.monotonic()
    assert not work([job, after], 1, should_stop=(tmp_path / "notes").is_file)
    assert notes(tmp_path) == ["begun", "saved"]
    assert said == []
    assert time.monotonic() - begin < 50


def test_results_go_to_a_file_of_their_own_and_the_priority_is_lower(tmp_path):
    code = "import os, sys; print(os.nice(0)); print('aside', file=sys.stderr)"
    job = script(tmp_path, "a", code, stdout=tmp_path / "out")
    looked = []
    assert work([job], 1, niceness=5, look=lambda: looked.append(None))
    assert looked
    assert (tmp_path / "out").read_text() == f"{min(19, os.nice(0) + 5)}\n"
    assert Path(job.log).read_text() == "aside\n"


@pytest.mark.parametrize("verb", ["train", "data generate"])
def test_a_job_is_a_call_of_this_program(verb, tmp_path):
    job = Job("x", verb, ["a=b"], tmp_path / "log")
    assert job.command() == [sys.executable, "-m", "controller.cli", *verb.split(), "a=b"]
