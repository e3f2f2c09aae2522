"""The examination of a machine: arithmetic on scripted time, and one short real look."""

import io
import sys
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from rich.console import Console

from controller.clock import VirtualClock
from controller.doctor import DoctorReport, examine, print_report
from controller.doctor_report import Verdict, advise, in_words, judge
from controller.errors import ConfigError, PeerTimeout
from controller.floor import collector_paused, echo, lateness, load, pace, quantiles
from controller.host import Host, examine_host
from controller.process import ChildDied, RuntimeDirectory
from controller.transport import endpoint_for

MS = 1_000_000


class LateClock(VirtualClock):
    """Wakes up late by the next entry of a script, then on time."""

    def __init__(self, late_ns):
        super().__init__(start_ns=5 * MS)
        self.script = list(late_ns)

    def sleep_until(self, deadline_ns):
        super().sleep_until(deadline_ns)
        if self.script:
            self.advance(self.script.pop(0))


def test_lateness_of_each_tick():
    late = lateness(LateClock([0, 3 * MS, 1 * MS]), 100.0, 0.05)
    assert late.tolist() == [0, 3 * MS, 1 * MS, 0, 0]


def test_skipped_ticks_are_as_late_as_the_return():
    late = lateness(LateClock([0, 25 * MS]), 100.0, 0.06)
    assert late.tolist() == [0, 25 * MS, 15 * MS, 5 * MS, 0, 0]


def test_lateness_at_the_very_end():
    assert lateness(LateClock([0, 95 * MS]), 100.0, 0.03).tolist() == [0, 95 * MS, 85 * MS]


def test_pace_counts_calls_and_skipped_periods():
    clock, seen = VirtualClock(), []

    def act(tick):
        seen.append(tick)
        clock.advance(25 * MS if tick == 2 else 1 * MS)

    assert pace(clock, 100.0, 0.08, act) == (7, 1)
    assert seen == [0, 1, 2, 4, 5, 6, 7]
    assert clock.now_ns() == 80 * MS


def test_back_to_back_goes_on_for_the_time_given():
    clock, seen = VirtualClock(), []

    def act(tick):
        seen.append(tick)
        clock.advance(3 * MS)

    assert pace(clock, None, 0.01, act) == (4, 0)
    assert seen == [0, 1, 2, 3]


def test_quantiles_by_hand():
    found = quantiles(np.arange(1, 1001, dtype=np.int64) * 1000)
    assert msgspec.structs.astuple(found) == (501.0, 991.0, 1000.0, 1000.0, 1000)
    assert msgspec.structs.astuple(quantiles(np.array([1234]))) == (1.2, 1.2, 1.2, 1.2, 1)
    assert quantiles(np.zeros(0, dtype=np.int64)) is None


def test_collector_is_paused_and_comes_back():
    import gc

    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("wakes_us", "rest_us", "wait", "ticks_hz", "answers_hz"),
    [
        ({"sleep": 100.0, "spin": 10.0}, 300.0, "spin", 1000.0, 1000.0),
        ({"sleep": 100.0, "spin": 5000.0}, 400.0, "sleep", 1000.0, 500.0),
        ({"sleep": 100.0, "spin": 200.0, "fifo": 1.0}, 999.0, "fifo", 1000.0, 200.0),
        ({"sleep": 2500.0}, 0.0, "sleep", 100.0, 100.0),
        ({"sleep": 2499.0}, 3000.0, "sleep", 200.0, 50.0),
        ({"sleep": 9000.0}, 2000.0, "sleep", 50.0, None),
        ({"sleep": 10_000.0}, 0.0, "sleep", None, None),
    ],
)
def test_verdict_is_half_a_period(wakes_us, rest_us, wait, ticks_hz, answers_hz):
    verdict = judge("idle", wakes_us, rest_us)
    assert (verdict.wait, verdict.ticks_hz, verdict.answers_hz) == (wait, ticks_hz, answers_hz)
    assert verdict.wake_us == wakes_us[wait]
    assert verdict.floor_us == wakes_us[wait] + rest_us


def test_verdict_in_words():
    words = in_words(Verdict("loaded", "fifo", 20.0, 11_000.0, 1000.0, None))
    assert words.startswith(
        "every core busy: ticks on time up to 1000 Hz, answers in time not even at 50 Hz "
    )
    assert "SCHED_FIFO" in words
    assert "0.02 ms" in words
    assert "11.00 ms" in words


def host(**changes):
    facts = Host(
        cpu="x",
        cores=8,
        kernel="Linux",
        preemption="PREEMPT_RT",
        governor="performance",
        realtime=True,
        rtprio=99,
        memlock_bytes=-1,
        python="3",
        blas_threads={},
    )
    return msgspec.structs.replace(facts, **changes)


SLOW = [Verdict("idle", "sleep", 100.0, 900.0, 1000.0, 500.0)]
FAST = [Verdict("idle", "sleep", 10.0, 100.0, 1000.0, 1000.0)]


def test_advice_names_what_is_in_the_way_and_nothing_else():
    assert advise(host(), [], SLOW) == []
    (line,) = advise(host(cores=2), [], SLOW)
    assert "more cores (now 2)" in line
    (line,) = advise(host(governor="powersave"), [], SLOW)
    assert "performance (now powersave)" in line
    (line,) = advise(host(preemption="PREEMPT_DYNAMIC"), [], SLOW)
    assert "PREEMPT_RT" in line
    assert advise(host(governor=None), [], SLOW) == []
    first, second = advise(host(), ["no SCHED_FIFO"], SLOW)
    assert (first, "--cap-add SYS_NICE" in second) == ("no SCHED_FIFO", True)


def test_no_advice_where_the_highest_rate_is_held():
    assert advise(host(cores=1), ["no SCHED_FIFO"], FAST) == []
    assert advise(host(cores=1), [], [*FAST, *SLOW]) != []


def test_host_facts_are_of_this_machine():
    facts = examine_host(realtime=False)
    assert facts.cores >= 1
    assert facts.python.endswith(sys.version.split()[0])
    assert facts.cpu
    assert facts.kernel


def test_a_late_echo_is_not_taken_for_a_newer_one():
    with RuntimeDirectory() as directory, echo(endpoint_for(directory, "echo")) as client:
        for _ in range(20):
            # Most give up before the echo; a fast machine may answer one in time.
            with suppress(PeerTimeout):
                client.round_trip_ns((b"x",), timeout_ns=0)
        assert client.round_trip_ns((b"x" * 1000, b"")) > 0


def test_an_address_in_use_is_named():
    with RuntimeDirectory() as directory:
        endpoint = endpoint_for(directory, "echo")
        with (
            echo(endpoint),
            pytest.raises(ChildDied, match=f"^echo server died .*{endpoint}: in use"),
            echo(endpoint),
        ):
            pass


def test_short_look_at_this_machine():
    with load(1):
        report = examine(1.0, infer=lambda: None)
    assert {(w.load, w.rate_hz) for w in report.wake} == {
        (state, hz) for state in ("idle", "loaded") for hz in (100.0, 500.0, 1000.0)
    }
    assert ("fifo" in {w.wait for w in report.wake}) == report.host.realtime
    for verdict in report.verdicts:
        trips = [t.round_trip_us.max for t in report.transport if t.load == verdict.load]
        waits = {w.wait for w in report.wake}
        worst = [
            max(w.late_us.max for w in report.wake if (w.load, w.wait) == (verdict.load, wait))
            for wait in waits
        ]
        # So few samples have their maximum as p99.9.
        assert verdict.wake_us == min(worst)
        calls = [c.infer_us.max for c in report.inference if c.load == verdict.load]
        assert verdict.floor_us == pytest.approx(min(worst) + max(trips) + max(calls), abs=0.2)
    encoded = msgspec.json.encode(report)
    assert msgspec.json.decode(encoded, type=DoctorReport) == report
    text = io.StringIO()
    print_report(report, Console(file=text, width=200))
    for words in ("wake-up, sleep", "round trip, ipc", "inference", "idle: ", "every core busy: "):
        assert words in text.getvalue()


def test_too_short_a_look_is_refused():
    with pytest.raises(ConfigError, match=r"^seconds: expected a number >= 1, got 0\.5$"):
        examine(0.5)
