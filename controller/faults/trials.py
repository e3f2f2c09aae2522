"""The faults, as a table: how each begins, how it ends, and what it is allowed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from controller.faults.middle import MUTATED
from controller.faults.stage import Stage
from controller.faults.verdict import Expectation
from controller.floor import load
from controller.latency import free_tcp_endpoint
from controller.launch import command
from controller.process import Child, Supervisor

Act = Callable[[Stage], None]

RECOVERS = Expectation()
STOPS = Expectation(recovers=False)
COUNTED = Expectation(records=None)

SERVER, PLANT = "policy server", "simulation"
SMALLEST_FILE = 100
STORM = (
    "import gc; heap = [[i, {i: i}] for i in range(300_000)]; gc.set_threshold(10, 2, 2); "
    "import sys; from controller.cli import main; sys.exit(main(['loop', sys.argv[1]]))"
)
"""A control loop with a large heap and an eager garbage collector."""


def nothing(stage: Stage) -> None:
    """Do nothing."""


def always(stage: Stage) -> str:
    """Return no reason against it."""
    return ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        about: one line for people.
        begin: injects it into the running system.
        end: takes it away again.
        lasts_s: time between the two.
        wire: what the process in the middle does; empty without one.
        expected: what it is allowed.
        loop: program that is the control loop; empty for the usual one.
        possible: reason why it cannot be injected here; empty when it can.
    """

    about: str
    begin: Act = nothing
    end: Act = nothing
    lasts_s: float = 1.0
    wire: str = ""
    expected: Expectation = RECOVERS
    loop: tuple[str, ...] = ()
    possible: Callable[[Stage], str] = always


def _kill(name: str, number: signal.Signals) -> Act:
    return lambda stage: stage.signal(name, number)


def _meddle(stage: Stage) -> None:
    assert stage.middle is not None
    os.kill(stage.middle.pid, signal.SIGUSR1)


def _leave_alone(stage: Stage) -> None:
    assert stage.middle is not None
    os.kill(stage.middle.pid, signal.SIGUSR2)


def _on_the_wire(about: str, wire: str, lasts_s: float = 1.0) -> Fault:
    return Fault(about, _meddle, _leave_alone, lasts_s, wire)


def _damaged_bundle(stage: Stage) -> None:
    directory = Path(stage.resources.enter_context(tempfile.TemporaryDirectory()))
    bundle = Path(shutil.copytree(stage.config.bundle, directory / "bundle"))
    weights = max(bundle.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)
    stage.expect_refusal("swap", {"bundle": str(bundle)})


def _wrong_bundle(stage: Stage) -> None:
    other = "hopper" if "hopper" not in (stage.config.task or "") else "walker2d"
    stage.expect_refusal("swap", {"bundle": other})


def _missing_bundle(stage: Stage) -> None:
    stage.expect_refusal("swap", {"bundle": "no/such/bundle"})


def _recorder(number: signal.Signals) -> Act:
    return lambda stage: os.kill(stage.recorder_pids()[0], number)


def _fill_disk(stage: Stage) -> None:
    # No file of these may grow: writing fails as on a full disk, and so does a further part.
    for pid in stage.recorder_pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALLEST_FILE, resource.RLIM_INFINITY))


def _free_disk(stage: Stage) -> None:
    limit = resource.RLIM_INFINITY
    for pid in stage.recorder_pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))


def _watch(stage: Stage) -> None:
    port = free_tcp_endpoint().rpartition(":")[2]
    words = command("view", str(stage.live.log), f"port={port}")
    viewer = stage.resources.enter_context(Supervisor()).start(Child(words, "viewer"))
    time.sleep(1.0)
    if viewer.poll() is not None:
        stage.complaints.append(f"the viewer ended: {viewer.last_error()}")
        return
    os.kill(viewer.pid, signal.SIGSTOP)


def _step_clock(seconds: float) -> Act:
    def step(stage: Stage) -> None:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    return step


def _may_step_clock(stage: Stage) -> str:
    if not stage.config.allow_clock_step:
        return "left out: it needs allow_clock_step=true"
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except OSError as error:
        return f"left out: the clock cannot be set ({error.strerror})"
    return ""


def _oversubscribe(stage: Stage) -> None:
    stage.resources.enter_context(load(2 * (os.cpu_count() or 1)))


def _relieve(stage: Stage) -> None:
    stage.resources.pop_all().close()


def _may_view(stage: Stage) -> str:
    return "" if find_spec("foxglove") else "left out: the viewer is not installed (onebeat[view])"


FAULTS: Final[dict[str, Fault]] = {
    "none": Fault("nothing happens: what a run is like without a fault"),
    "server_killed": Fault("the policy server dies (SIGKILL)", _kill(SERVER, signal.SIGKILL)),
    "server_stopped": Fault(
        "the policy server stands still for a second (SIGSTOP)",
        _kill(SERVER, signal.SIGSTOP),
        _kill(SERVER, signal.SIGCONT),
    ),
    "server_restarted": Fault(
        "the policy server is told to end (SIGTERM), and started again",
        _kill(SERVER, signal.SIGTERM),
    ),
    "answers_delayed": _on_the_wire("answers come 20 ms late", "delay"),
    "answers_reordered": _on_the_wire("answers come in pairs, the newer one first", "reorder"),
    "answers_duplicated": _on_the_wire("answers come three times", "duplicate"),
    "answers_lost": _on_the_wire("every second answer is lost", "lose"),
    "answers_garbage": _on_the_wire("random bytes come in place of answers", "garbage"),
    "answers_oversize": _on_the_wire("frames over the limit come in place of some", "oversize"),
    "answers_nonfinite": _on_the_wire("actions are NaN", "nonfinite"),
    "answers_out_of_range": _on_the_wire("actions are a million", "far_out"),
    "messages_mutated": _on_the_wire("mutated messages, both ways", MUTATED, 3.0),
    "bundle_corrupt": Fault("a bundle with one flipped bit is published", _damaged_bundle),
    "bundle_wrong": Fault("the bundle of another robot is published", _wrong_bundle),
    "bundle_missing": Fault("a bundle that does not exist is published", _missing_bundle),
    "plant_frozen": Fault(
        "the plant stands still for half a second (SIGSTOP)",
        _kill(PLANT, signal.SIGSTOP),
        _kill(PLANT, signal.SIGCONT),
        lasts_s=0.5,
    ),
    "plant_killed": Fault(
        "the plant dies (SIGKILL): the stop has to latch",
        _kill(PLANT, signal.SIGKILL),
        expected=STOPS,
    ),
    "recorder_stopped": Fault(
        "the recorder stands still for a second (SIGSTOP)",
        _recorder(signal.SIGSTOP),
        _recorder(signal.SIGCONT),
    ),
    "recorder_killed": Fault(
        "the recorder dies (SIGKILL)", _recorder(signal.SIGKILL), expected=COUNTED
    ),
    "disk_full": Fault(
        "the log cannot grow for a second", _fill_disk, _free_disk, expected=COUNTED
    ),
    "viewer_stalled": Fault(
        "a viewer of the run is opened, and stands still", _watch, possible=_may_view
    ),
    "clock_stepped": Fault(
        "the wall clock jumps by an hour and back",
        _step_clock(3600.0),
        _step_clock(-3600.0),
        possible=_may_step_clock,
    ),
    "collector_storm": Fault(
        "the loop has a heap of a million objects and an eager collector",
        loop=(sys.executable, "-c", STORM),
    ),
    "cpu_oversubscribed": Fault(
        "twice as many busy processes as cores", _oversubscribe, _relieve, lasts_s=3.0
    ),
}
"""Every fault by name, in the order of the report."""
