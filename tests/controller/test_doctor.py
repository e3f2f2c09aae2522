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
from controller.doctor_report import (
    RARE,
    Verdict,
    advise,
    in_settings,
    in_words,
    judge,
    on_the_tail,
    settings_for,
)
from controller.endpoints import endpoint_for
from controller.errors import ConfigError, PeerTimeout
from controller.floor import collector_paused, echo, lateness, load, pace, quantiles
from controller.host import Host, Steal, chosen, examine_host
from controller.process import ChildDied, RuntimeDirectory

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
        isolated="7",
        huge_pages="madvise",
    )
    return msgspec.structs.replace(facts, **changes)


REPORT = DoctorReport(
    host=host(),
    seconds=10.0,
    wake=(),
    transport=(),
    inference=(),
    verdicts=(),
    settings=None,
    steal=None,
    advice=(),
)
SLOW = [Verdict("idle", "sleep", 100.0, 900.0, 1000.0, 500.0)]
FAST = [Verdict("idle", "sleep", 10.0, 100.0, 1000.0, 1000.0)]


def test_advice_names_what_is_in_the_way_and_nothing_else():
    assert advise(host(), [], SLOW) == []
    (line,) = advise(host(cores=2, isolated=""), [], SLOW)
    assert "more cores (now 2)" in line
    (line,) = advise(host(governor="powersave"), [], SLOW)
    assert "performance (now powersave)" in line
    (line,) = advise(host(preemption="PREEMPT_DYNAMIC"), [], SLOW)
    assert "PREEMPT_RT" in line
    assert advise(host(governor=None), [], SLOW) == []
    (line,) = advise(host(isolated=""), [], SLOW)
    assert "isolcpus=N, and set loop.cpu=N" in line
    (line,) = advise(host(huge_pages="always"), [], SLOW)
    assert "huge pages to madvise (now always)" in line
    (line,) = advise(host(virtual=True), [], SLOW, steal=0.001)
    assert line.startswith("This is a virtual machine")
    (line,) = advise(host(virtual=True), [], SLOW, steal=0.0123)
    assert line.startswith("The hypervisor took 1.2% of the processor time")
    first, second = advise(host(), ["no SCHED_FIFO"], SLOW)
    assert (first, "--cap-add SYS_NICE" in second) == ("no SCHED_FIFO", True)


def verdict(load, wait, wake_us, floor_us, answers_hz, samples=2000):
    return Verdict(load, wait, wake_us, floor_us, 1000.0, answers_hz, samples)


@pytest.mark.parametrize(
    ("idle", "loaded", "words"),
    [
        (
            # At 500 Hz: 1.5 times (900 - 100) of 2000 us.
            verdict("idle", "spin", 10.0, 300.0, 1000.0),
            verdict("loaded", "fifo", 100.0, 900.0, 500.0),
            "loop.rate_hz=500 loop.pacer=spin loop.spin_us=100 loop.answer_fraction=0.6",
        ),
        (
            # What the busy machine does not hold, the idle one may; it still waits asleep.
            verdict("idle", "spin", 10.0, 2000.0, 200.0),
            verdict("loaded", "sleep", 9000.0, 20_000.0, None),
            "loop.rate_hz=200 loop.pacer=sleep loop.answer_fraction=0.6",
        ),
        (
            verdict("idle", "sleep", 11_000.0, 12_000.0, None),
            verdict("loaded", "sleep", 9000.0, 50_000.0, None),
            "loop.pacer=sleep loop.answer_fraction=0.8",
        ),
        (
            verdict("idle", "sleep", 1.0, 2.0, 1000.0),
            verdict("loaded", "sleep", 1.0, 2.0, 1000.0),
            "loop.rate_hz=1000 loop.pacer=sleep loop.answer_fraction=0.3",
        ),
    ],
)
def test_settings_that_follow(idle, loaded, words):
    assert in_settings(settings_for([idle, loaded], True)) == f"{words} loop.sched_fifo=auto"
    assert settings_for([idle, loaded], False).sched_fifo == "off"


def test_a_short_look_says_what_it_cannot_see():
    looks = [verdict("idle", "sleep", 1.0, 2.0, 1000.0, n) for n in (5000, 500)]
    short = msgspec.structs.replace(REPORT, verdicts=tuple(looks))
    words = on_the_tail(short)
    assert words.startswith("p99.9 rests on 500 wake-ups, the worst seen: a rarer delay")
    assert "onebeat doctor seconds=2000" in words
    longer = msgspec.structs.replace(REPORT, verdicts=(looks[0],))
    assert "5000 wake-ups, the worst 5 of them" in on_the_tail(longer)
    enough = verdict("idle", "sleep", 1.0, 2.0, 1000.0, RARE)
    assert on_the_tail(msgspec.structs.replace(REPORT, verdicts=(enough,))) == ""


def test_stolen_time_is_a_share_of_all():
    """Fields of cpu: user nice system idle iowait irq softirq steal; guest is in user."""
    texts = iter(["cpu0 1\ncpu  100 0 50 800 10 0 0 40 7 0\n", "cpu  160 0 50 810 10 0 0 70 9 0\n"])
    assert Steal(lambda: next(texts)).share() == 30 / 100
    assert Steal(lambda: "nothing").share() is None
    assert Steal(lambda: "cpu  1 2 3 4 5 6 7 8\n").share() == 0.0
    assert 0.0 <= (Steal().share() or 0.0) <= 1.0


def test_the_choice_of_the_kernel_is_in_brackets():
    assert [chosen("always [madvise] never"), chosen("[always] never"), chosen("")] == [
        "madvise",
        "always",
        "",
    ]


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
    for words in (
        "wake-up, sleep",
        "round trip, ipc",
        "inference",
        "idle: ",
        "every core busy: ",
        "p99.9 rests on",
        "settings that follow: loop.",
    ):
        assert words in text.getvalue()
    narrow = io.StringIO()
    print_report(report, Console(file=narrow, width=80))
    assert "…" not in narrow.getvalue()


def test_too_short_a_look_is_refused():
    with pytest.raises(ConfigError, match=r"^seconds: expected a number >= 1, got 0\.5$"):
        examine(0.5)
