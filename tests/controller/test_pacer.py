"""The choice between sleeping and spinning, on scripted time."""

import itertools

import pytest

from controller.clock import VirtualClock
from controller.loop_config import LoopConfig
from controller.pacer import WAKES, choose_pacer, wake_ups

US = 1_000


class Late(VirtualClock):
    """Wakes up late by the next entry of a script, again and again."""

    def __init__(self, *late_us):
        super().__init__(start_ns=7)
        self.script = itertools.cycle(late_us)

    def sleep_until(self, deadline_ns):
        super().sleep_until(deadline_ns)
        self.advance(next(self.script) * US)


def scripted(asleep_us, spun_us):
    return lambda spin_ns: Late(spun_us if spin_ns else asleep_us)


@pytest.mark.parametrize(
    ("asleep_us", "spun_us", "fifo", "name"),
    [
        (100, 1, True, "spin"),
        (100, 90, True, "spin"),
        # No clear gain: sleeping leaves the core to others.
        (100, 91, True, "sleep"),
        (1, 1, True, "sleep"),
        (1, 100, True, "sleep"),
        # Without SCHED_FIFO a quiet moment says little of a busy one.
        (100, 26, False, "sleep"),
        (100, 24, False, "spin"),
    ],
)
def test_spinning_has_to_be_clearly_less_late(asleep_us, spun_us, fifo, name):
    pacer = choose_pacer(LoopConfig(spin_us=80), scripted(asleep_us, spun_us), fifo)
    assert (pacer.name, pacer.spin_ns) == (name, 80_000 if name == "spin" else 0)
    figures = f"{asleep_us} and {asleep_us} / {spun_us} and {spun_us} us asleep / with 80 us"
    assert f"pacer {name}: p90 and p99 of {WAKES} wake-ups {figures}" in pacer.why
    assert ("no SCHED_FIFO" in pacer.why) is not fifo


def test_what_is_set_is_not_measured():
    def never(spin_ns):
        raise AssertionError("measured")

    spin = choose_pacer(LoopConfig(pacer="spin", spin_us=150), never)
    assert spin == ("spin", 150_000, "pacer spin: 150 us, as set")
    assert choose_pacer(LoopConfig(pacer="sleep"), never)[:2] == ("sleep", 0)
    assert choose_pacer(LoopConfig(spin_us=0), never)[:2] == ("sleep", 0)


def test_p99_of_a_few_wake_ups_is_their_worst():
    steady, rare, often = Late(5), Late(*[3] * 49, 400), Late(*[3] * 4, 400)
    assert wake_ups(steady, rare, often) == [(5_000, 5_000), (3_000, 400_000), (400_000, 400_000)]


def test_one_accident_does_not_decide():
    accident = lambda spin_ns: Late(3) if spin_ns else Late(*[5] * 49, 8000)  # noqa: E731
    assert choose_pacer(LoopConfig(), accident, fifo=False).name == "sleep"
    assert choose_pacer(LoopConfig(), accident, fifo=True).name == "spin"


def test_a_look_takes_a_fifth_of_a_second():
    clocks = Late(0), Late(0)
    wake_ups(*clocks)
    assert sum(clock.now_ns() - 7 for clock in clocks) == 200_000_000
