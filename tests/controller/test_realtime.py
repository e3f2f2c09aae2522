import ctypes
import errno
import gc
import os
import resource
import sys

import pytest

from controller import realtime
from controller.loop import LoopConfig
from controller.realtime import has_fifo, prepare, realtime_section

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux scheduling")


class FakeLibc:
    """Records calls; fails those named, with EPERM."""

    def __init__(self, *failing):
        self.failing = failing
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            ctypes.set_errno(errno.EPERM)
            return -1 if name in self.failing else 0

        return call


class FakeScheduler:
    """Stands in for the scheduler of this process."""

    def __init__(self, monkeypatch, *, granted=True, may_clear=True):
        self.policy, self.cores = os.SCHED_OTHER, {0, 1}
        self.granted, self.may_clear = granted, may_clear
        for name in (
            "sched_setscheduler",
            "sched_getscheduler",
            "sched_getaffinity",
            "sched_setaffinity",
        ):
            monkeypatch.setattr(os, name, getattr(self, name))

    def sched_getscheduler(self, pid):
        return self.policy

    def sched_setscheduler(self, pid, policy, parameters):
        clears = self.policy & os.SCHED_RESET_ON_FORK and not policy & os.SCHED_RESET_ON_FORK
        if not self.granted or (clears and not self.may_clear):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        self.policy = policy

    def sched_getaffinity(self, pid):
        return self.cores

    def sched_setaffinity(self, pid, cores):
        if not cores <= {0, 1}:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.cores = set(cores)


@pytest.fixture
def libc(monkeypatch):
    fake = FakeLibc()
    monkeypatch.setattr(realtime, "_libc", lambda: fake)
    return fake


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.unfreeze()
    gc.enable()


def test_all_is_granted_and_all_is_undone(monkeypatch, libc):
    scheduler = FakeScheduler(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    config = LoopConfig(cpu=1, spin_us=80.0)
    with realtime_section(config) as notes:
        assert notes == []
        assert has_fifo()
        assert scheduler.cores == {1}
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert ("mlockall", 3) in libc.calls
    assert not has_fifo()
    assert scheduler.cores == {0, 1}
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert ("munlockall",) in libc.calls


def test_it_is_undone_when_the_body_fails(monkeypatch, libc):
    scheduler = FakeScheduler(monkeypatch)
    with pytest.raises(KeyError), realtime_section(LoopConfig(cpu=0)):
        raise KeyError
    assert scheduler.policy == os.SCHED_OTHER
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(monkeypatch, libc):
    FakeScheduler(monkeypatch)
    gc.disable()
    with realtime_section(LoopConfig()):
        pass
    assert not gc.isenabled()


def test_what_the_machine_refuses_is_a_sentence_each(monkeypatch):
    FakeScheduler(monkeypatch, granted=False)
    monkeypatch.setattr(realtime, "_libc", lambda: FakeLibc("mlockall", "prctl"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    core, fifo, memory, slack = prepare(LoopConfig(cpu=7))
    assert core == "the loop is not kept on core 7 (invalid argument): it may use 0, 1"
    assert fifo.startswith("no SCHED_FIFO (operation not permitted): other processes can delay")
    assert memory.startswith("memory is not locked (Operation not permitted)")
    assert slack.startswith("timer slack is not reduced (Operation not permitted)")
    assert not has_fifo()


def test_a_section_survives_a_machine_that_refuses_everything(monkeypatch):
    FakeScheduler(monkeypatch, granted=False)
    monkeypatch.setattr(realtime, "_libc", lambda: FakeLibc("mlockall", "prctl"))
    with realtime_section(LoopConfig(cpu=7)) as notes:
        assert len(notes) == 4
    assert gc.isenabled()


def test_memory_is_left_alone_under_a_finite_limit(monkeypatch, libc):
    FakeScheduler(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    (note,) = prepare(LoopConfig())
    assert note.startswith("memory is not locked (limit 8192 KiB)")
    assert not [call for call in libc.calls if call[0] == "mlockall"]


def test_fifo_off_is_not_tried(monkeypatch, libc):
    scheduler = FakeScheduler(monkeypatch)
    prepare(LoopConfig(sched_fifo="off"))
    assert scheduler.policy == os.SCHED_OTHER


def test_children_do_not_inherit_fifo_and_the_flag_may_stay(monkeypatch, libc):
    scheduler = FakeScheduler(monkeypatch, may_clear=False)
    with realtime_section(LoopConfig()):
        assert scheduler.policy == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert scheduler.policy == os.SCHED_OTHER | os.SCHED_RESET_ON_FORK


def test_on_this_machine_nothing_remains():
    before = (os.sched_getscheduler(0), os.sched_getaffinity(0))
    with realtime_section(LoopConfig()) as notes:
        assert all(isinstance(note, str) and note for note in notes)
    after = (os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getaffinity(0))
    assert after == before
