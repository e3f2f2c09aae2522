"""Processes, with real ones: each ends when told, with its launcher, or with a clear line."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from controller import runtime_directory
from controller.errors import ControllerError, PeerTimeout
from controller.process import (
    Child,
    ChildDied,
    RuntimeDirectory,
    StopFlag,
    Supervisor,
    die_with_parent,
)

LIMIT_S = 20.0
READY = "open({ready!r}, 'w').close(); "
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def python(code):
    return [sys.executable, "-S", "-c", code]


def alive(pid):
    """A zombie has ended, even where nobody collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "not within the limit"
        time.sleep(0.01)


@pytest.fixture
def start():
    children = []

    def start(code, name="child", **options):
        children.append(Child(python(code), name, **options))
        return children[-1].start()

    yield start
    for child in children:
        child.kill()


def test_exit_status_and_last_line(start):
    code = "import sys; print('out'); print('one\\ntwo \\x1b[31mred\\n\\n', file=sys.stderr)"
    child = start(code + "; sys.exit(3)")
    assert child.wait(LIMIT_S) == 3
    assert child.status() == "exit status 3"
    assert child.last_error() == "two [31mred"
    child.stop()
    child.stop()
    assert child.last_error() == "two [31mred"


def test_last_line_of_much_output_and_of_none(start):
    child = start("print('x' * 100_000); print('end')")
    assert child.wait(LIMIT_S) == 0
    assert child.last_error() == "end"
    silent = start("pass")
    assert silent.wait(LIMIT_S) == 0
    assert silent.last_error() == ""


def test_reading_the_last_line_does_not_disturb_the_writer(start, tmp_path):
    log, ready = tmp_path / "log", tmp_path / "ready"
    code = "import time, os, sys\nfor i in range(5):\n print(i, flush=True)\n"
    code += f"open({str(ready)!r}, 'w')\nwhile os.path.exists({str(ready)!r}): time.sleep(0.01)\n"
    child = start(code + "print('last')", log=log)
    eventually(ready.exists)
    assert child.last_error() == "4"
    ready.unlink()
    assert child.wait(LIMIT_S) == 0
    assert log.read_text().split() == ["0", "1", "2", "3", "4", "last"]


def test_standard_output_to_a_file(start, tmp_path):
    out = tmp_path / "out"
    child = start("import sys; print('answer'); print('note', file=sys.stderr)", stdout=out)
    assert child.wait(LIMIT_S) == 0
    assert out.read_text() == "answer\n"
    assert child.last_error() == "note"


def test_environment_session_and_niceness(start):
    code = (
        "import os, sys; "
        "print(*(os.environ[k] for k in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', "
        "'MKL_NUM_THREADS', 'ONEBEAT_PARENT', 'COLOUR')), os.getsid(0) == os.getpid(), "
        "sys.stdin.read() == '')"
    )
    child = start(code, environment={"COLOUR": "red"})
    assert child.wait(LIMIT_S) == 0
    assert child.last_error() == f"1 1 1 {os.getpid()} red True True"
    nice = start(SLEEP, niceness=7)
    assert os.getpriority(os.PRIO_PROCESS, nice.pid) == 7


def test_stop_lets_it_end_in_order(start, tmp_path):
    ready = tmp_path / "ready"
    code = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('bye')); "
        f"{READY.format(ready=str(ready))} time.sleep(60)"
    )
    child = start(code)
    assert child.status() == "running"
    eventually(ready.exists)
    child.stop(timeout_s=LIMIT_S)
    assert (child.poll(), child.last_error()) == (1, "bye")


def test_stop_kills_the_stubborn_and_what_it_started(start, tmp_path):
    ready, pids = tmp_path / "ready", tmp_path / "pid"
    inner = f"{STUBBORN}{SLEEP}"
    code = (
        f"{STUBBORN}import subprocess, sys, time; "
        f"p = subprocess.Popen([sys.executable, '-S', '-c', {inner!r}]); "
        f"open({str(pids)!r}, 'w').write(str(p.pid)); {READY.format(ready=str(ready))}"
        "time.sleep(60)"
    )
    child = start(code)
    eventually(ready.exists)
    grandchild = int(pids.read_text())
    assert alive(grandchild)
    child.stop(timeout_s=0.2)
    assert child.status() == "killed by SIGKILL"
    eventually(lambda: not alive(grandchild))


def test_stop_waits_for_what_it_started(start, tmp_path):
    done, pids = tmp_path / "done", tmp_path / "pid"
    inner = f"import time; time.sleep(0.3); open({str(done)!r}, 'w')"
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', {inner!r}]); "
        f"open({str(pids)!r}, 'w').write(str(p.pid)); {SLEEP}"
    )
    child = start(code)
    eventually(lambda: pids.exists() and pids.read_text())
    child.stop(timeout_s=LIMIT_S)
    assert done.exists()


def test_before_the_start_and_a_program_that_is_not_there():
    child = Child(["/no/such/program"], "server")
    assert (child.pid, child.poll(), child.wait(0.0), child.last_error()) == (0, None, None, "")
    assert child.status() == "not started"
    child.stop()
    with pytest.raises(ChildDied, match=r"^server cannot be started: /no/such/program: No such"):
        child.start()
    child.stop()


def test_supervisor_names_who_died_and_why():
    with Supervisor() as supervisor:
        supervisor.start(Child(python(SLEEP), "sleeper"))
        supervisor.check()
        bad = supervisor.start(Child(python("raise ValueError('no such task')"), "simulation"))
        assert bad.wait(LIMIT_S) == 1
        with pytest.raises(ChildDied) as caught:
            supervisor.check()
    expected = "simulation died (exit status 1): ValueError: no such task"
    assert str(caught.value) == expected
    assert isinstance(caught.value, ControllerError)
    assert not any(alive(child.pid) for child in supervisor.children)


def test_supervisor_names_the_signal_and_the_silence():
    with Supervisor() as supervisor:
        child = supervisor.start(Child(python(SLEEP), "policy server"))
        os.kill(child.pid, signal.SIGKILL)
        child.wait(LIMIT_S)
        with pytest.raises(ChildDied, match=r"server died \(killed by SIGKILL\): it wrote no"):
            supervisor.check()


def test_supervisor_waits_for_readiness_but_not_for_the_dead(tmp_path):
    ready = tmp_path / "ready"
    with Supervisor() as supervisor:
        supervisor.start(Child(python(READY.format(ready=str(ready)) + SLEEP), "server"))
        supervisor.wait_until(ready.exists, LIMIT_S, "server")
        with pytest.raises(PeerTimeout, match=r"^server: not ready within 0\.05 s$"):
            supervisor.wait_until(lambda: False, 0.05, "server")
        supervisor.start(Child(python("1/0"), "other"))
        with pytest.raises(ChildDied, match="ZeroDivisionError"):
            supervisor.wait_until(lambda: False, LIMIT_S, "other")


def test_supervisor_stops_in_reverse_order_and_on_an_exception(tmp_path):
    ends = tmp_path / "ends"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n open({ends!r}, 'a').write({name!r}); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nopen({ready!r}, 'w')\ntime.sleep(60)"
    )
    with suppress(KeyboardInterrupt), Supervisor(timeout_s=LIMIT_S) as supervisor:
        for name in "abc":
            ready = tmp_path / name
            text = code.format(ends=str(ends), name=name, ready=str(ready))
            supervisor.start(Child(python(text), name))
            supervisor.wait_until(ready.exists, LIMIT_S, name)
        raise KeyboardInterrupt
    assert ends.read_text() == "cba"


def test_second_interrupt_while_stopping_leaves_nobody(tmp_path, monkeypatch):
    supervisor = Supervisor()
    children = [supervisor.start(Child(python(SLEEP), name)) for name in "ab"]
    monkeypatch.setattr(children[1], "stop", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        supervisor.stop()
    assert [child.poll() for child in children] == [-signal.SIGKILL] * 2


def _interrupt(timeout_s):
    raise KeyboardInterrupt


LAUNCHER = """
import sys, time
from controller.process import Child, Supervisor
code = "from controller.process import die_with_parent; die_with_parent(); " \
       "print('ready', flush=True); import time; time.sleep(60)"
with Supervisor() as supervisor:
    for name in "ab":
        child = supervisor.start(Child([sys.executable, "-c", code], name))
        supervisor.wait_until(lambda: child.last_error() == "ready", 20, name)
        print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_no_orphan_survives_a_killed_launcher():
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE)
    try:
        assert launcher.stdout is not None
        pids = [int(launcher.stdout.readline()) for _ in range(2)]
        assert all(alive(pid) for pid in pids)
        launcher.kill()
        launcher.wait(LIMIT_S)
        eventually(lambda: not any(alive(pid) for pid in pids))
    finally:
        launcher.kill()
        launcher.wait(LIMIT_S)
        launcher.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_parent_that_ended_before_it_could_be_watched():
    code = "from controller.process import die_with_parent; die_with_parent({pid}); print('here')"
    for pid, status in ((os.getpid(), 0), (os.getppid(), -signal.SIGKILL)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(pid=pid)],
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert (done.returncode, bool(done.stdout)) == (status, status == 0)


def test_without_a_launcher_nothing_is_watched(monkeypatch):
    monkeypatch.delenv("ONEBEAT_PARENT", raising=False)
    assert not die_with_parent()


def test_the_parent_is_not_handed_on_to_grandchildren(monkeypatch):
    monkeypatch.setenv("ONEBEAT_PARENT", "not a number")
    assert not die_with_parent()
    assert "ONEBEAT_PARENT" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_flag_and_what_was_there_before(number):
    before = signal.getsignal(number)
    calls = []
    with StopFlag(on_stop=lambda: calls.append(1)) as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    assert calls == [1]
    assert signal.getsignal(number) is before


def test_second_interrupt_is_not_waited_for():
    with StopFlag() as stop:
        stop.set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_runtime_directory_is_private_short_and_temporary():
    with RuntimeDirectory() as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert len(str(path / "policy")) < 60
        (path / "policy").touch()
    assert not path.exists()


def test_only_directories_without_an_owner_are_swept(monkeypatch, tmp_path):
    base = Path(tempfile.mkdtemp(dir=tmp_path))
    left = base / "onebeat-run-left"
    left.mkdir()
    (left / "policy").touch()
    fresh = base / "onebeat-run-fresh"
    fresh.mkdir()
    other = base / "other"
    other.mkdir()
    scratch = base / "onebeat-delays-1"
    scratch.mkdir()
    (base / "onebeat-run-link").symlink_to(other)
    with RuntimeDirectory() as owned:
        mine = base / "onebeat-run-owned"
        mine.mkdir()
        descriptor = runtime_directory._locked(mine)
        for path in (left, mine, other, owned, scratch):
            os.utime(path, (0, 0))
        runtime_directory._sweep(base)
        os.close(descriptor)
        with RuntimeDirectory():
            assert owned.exists()
    assert sorted(path.name for path in base.iterdir()) == [
        "onebeat-delays-1",
        "onebeat-run-fresh",
        "onebeat-run-link",
        "onebeat-run-owned",
        "other",
    ]
