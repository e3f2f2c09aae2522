"""The far side of a process on a Ray node, without a Ray."""

import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from controller.ray_node import REFUSED, Order, Report, Seat, lay, refusal, version


@pytest.fixture(autouse=True)
def _here():
    """A seat changes the directory of its process."""
    before = os.getcwd()
    yield
    os.chdir(before)


def seat(*words, **more):
    order = Order(words=words, name="x", directory=os.getcwd(), **more)
    return Seat(msgspec.json.encode(order).decode())


def heard(text):
    return msgspec.json.decode(text, type=Report)


def ended(one, limit_s=30.0):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        report = heard(one.look())
        if report.code is not None:
            return report
        time.sleep(0.02)
    raise AssertionError("still running")


def test_a_command_runs_and_what_it_wrote_comes_back():
    one = seat("sim", "list", "--help")
    begun = heard(one.begin())
    assert begun.pid > 0
    report = ended(one)
    assert report.code == 0
    assert report.stdout.startswith("usage: onebeat sim list")
    assert report == heard(one.look()) == heard(one.stop(0.0))


def test_a_fault_comes_back_with_its_last_line_and_its_log():
    one = seat("nonsense")
    one.begin()
    report = ended(one)
    assert report.code == 2
    assert report.said.startswith("onebeat: nonsense: no such command")
    assert report.said in report.log


def test_stop_ends_it_and_tells_by_what():
    one = seat("sim", "serve", "pointmaze-medium")
    pid = heard(one.begin()).pid
    report = heard(one.stop(0.0))
    assert report.code in (-signal.SIGTERM, -signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_files_are_laid_on_the_node_and_the_words_call_them_by_their_place_there(tmp_path):
    files = {"runs/x/finetune.yaml": "a: 1\n", "/etc/keys/b.yaml": "b"}
    words = (
        "finetune",
        "actor",
        "settings=runs/x/finetune.yaml",
        "/etc/keys/b.yaml",
        "x=runs/x",
    )
    laid = lay(Order(words=words, name="x", files=files), tmp_path)
    assert laid[:2] == ["finetune", "actor"]
    key, _, path = laid[2].partition("=")
    assert key == "settings"
    assert Path(path).parent == tmp_path
    assert Path(path).read_text() == "a: 1\n"
    assert Path(path).suffix == ".yaml"
    assert Path(laid[3]).read_text() == "b"
    assert laid[4] == "x=runs/x"


def test_files_are_read_by_the_command_and_gone_after_it(tmp_path):
    one = seat("show", "nowhere/there.txt", files={"nowhere/there.txt": "no log\n"})
    one.begin()
    report = ended(one)
    assert report.code == 1
    assert "there.txt" in report.said
    path = report.said.partition(": ")[2].partition(":")[0]
    assert Path(path).is_absolute()
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"version": "0.0.0"}, f"has onebeat {version()}, expected 0.0.0"),
        ({"shared": "/nowhere/runs/.here"}, "does not see /nowhere/runs: a shared file system"),
    ],
)
def test_a_node_refuses_what_it_cannot_do(more, words):
    one = seat("sim", "list", **more)
    report = heard(one.begin())
    assert report.code == REFUSED
    assert words in report.said
    assert heard(one.look()) == report


def test_a_node_that_can_does_not_refuse(tmp_path):
    (tmp_path / ".here").touch()
    order = Order(words=("x",), name="x", version=version(), shared=str(tmp_path / ".here"))
    assert refusal(order) == ""


def test_an_order_is_checked_on_arrival():
    with pytest.raises(msgspec.ValidationError, match="words"):
        Seat('{"name": "x", "words": 3}')
