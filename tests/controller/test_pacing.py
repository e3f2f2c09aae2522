from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.clock import VirtualClock
from controller.pacing import Ticker

PERIOD = 10_000_000


def run(costs_in_periods, start_ns=0, now_ns=0):
    """Return the ticks of a body that takes the given numbers of periods, and what it skipped."""
    clock = VirtualClock(now_ns)
    ticks = []
    for tick, cost in zip(Ticker(clock, PERIOD, start_ns), [*costs_in_periods, 0.0], strict=False):
        ticks.append(tick)
        clock.advance(round(cost * PERIOD))
    return ticks


def test_ticks_lie_on_the_grid():
    clock = VirtualClock(3)
    ticks = list(islice(Ticker(clock, PERIOD, 7), 4))
    assert [t.index for t in ticks] == [0, 1, 2, 3]
    assert [t.deadline_ns for t in ticks] == [7 + k * PERIOD for k in range(4)]
    assert [t.wake_ns for t in ticks] == [t.deadline_ns for t in ticks]


@pytest.mark.parametrize(
    ("cost", "index", "lateness"),
    [
        (0.999, 1, 0.0),
        (1.0, 1, 0.0),
        (1.001, 1, 0.001),
        (1.5, 1, 0.5),
        (2.0, 2, 0.0),
        (2.5, 2, 0.5),
        (3.2, 3, 0.2),
    ],
)
def test_an_overrun_skips_whole_periods_and_keeps_the_grid(cost, index, lateness):
    first, second, third = run([cost, 0.0])
    assert first.index == 0
    assert second.index == index
    assert second.deadline_ns == index * PERIOD
    assert second.wake_ns - second.deadline_ns == round(lateness * PERIOD)
    assert third.index == index + 1
    assert third.wake_ns == third.deadline_ns == (index + 1) * PERIOD


def test_oversleeping_skips_too():
    class Oversleeper(VirtualClock):
        def sleep_until(self, deadline_ns):
            super().sleep_until(deadline_ns)
            self.advance(round(1.3 * PERIOD))

    ticks = list(islice(Ticker(Oversleeper(), PERIOD, 0), 3))
    assert [t.index for t in ticks] == [1, 3, 5]
    assert [t.wake_ns - t.deadline_ns for t in ticks] == [round(0.3 * PERIOD)] * 3


def test_a_start_in_the_past_joins_the_grid_where_it_is_now():
    assert run([], start_ns=0, now_ns=5 * PERIOD + 1)[0].index == 5


@given(st.lists(st.floats(0.0, 6.0), max_size=30), st.integers(0, 10**12))
def test_never_two_ticks_for_a_deadline_and_never_a_shifted_grid(costs, start_ns):
    ticks = run(costs, start_ns=start_ns)
    indices = [t.index for t in ticks]
    assert indices == sorted(set(indices))
    for tick in ticks:
        assert tick.deadline_ns == start_ns + tick.index * PERIOD
        assert 0 <= tick.wake_ns - tick.deadline_ns < PERIOD


def test_a_period_must_be_positive():
    with pytest.raises(ValueError, match="period_ns is 0"):
        Ticker(VirtualClock(), 0, 0)
