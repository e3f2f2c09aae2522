import numpy as np
import pytest

from controller.chunk_settings import FallbackSettings
from controller.clock import VirtualClock
from controller.holding import Holding
from controller.interfaces import Plant
from controller.loop import ControlLoop, LoopConfig
from controller.testing import FakePlant, FakePolicy, FakeRealTimePlant, ListSink
from controller.types import Reason, Rung

SAFE = np.zeros(2, np.float32)
LAST = np.array([0.8, -0.4], np.float32)


class Sent:
    """A holding whose commands are sent as they are."""

    def __init__(self, hold, ramp_ticks=4, safe=SAFE, last=LAST):
        self.previous = last
        self.holding = Holding(safe, hold, ramp_ticks, lambda: self.previous)

    def command(self, tick, latched=False):
        self.previous, eased = self.holding.command(tick, latched)
        return [round(float(value), 6) for value in self.previous], eased


def test_safe_is_the_safe_command_at_once():
    sent = Sent("safe")
    assert sent.holding.command(0) == (SAFE, False)
    assert sent.holding.command(1, latched=True) == (SAFE, False)


def test_a_ramp_is_linear_and_ends_in_the_safe_command():
    sent = Sent("ramp")
    assert [sent.command(tick) for tick in range(7, 13)] == [
        ([0.6, -0.3], True),
        ([0.4, -0.2], True),
        ([0.2, -0.1], True),
        ([0.0, 0.0], True),
        ([0.0, 0.0], False),
        ([0.0, 0.0], False),
    ]


def test_a_ramp_that_the_filter_slows_is_eased_until_it_is_through():
    holding = Holding(SAFE, "ramp", 1, lambda: LAST)
    assert [holding.command(tick)[1] for tick in range(5)] == [True] * 5


def test_a_ramp_goes_by_ticks_skipped_ones_included():
    sent = Sent("ramp")
    sent.command(0)
    assert sent.command(2) == ([0.2, -0.1], True)
    assert sent.command(9) == ([0.0, 0.0], True)


def test_a_ramp_goes_on_when_the_stop_latches():
    sent = Sent("ramp")
    sent.command(0)
    assert sent.command(1, latched=True) == ([0.4, -0.2], True)


def test_last_keeps_the_command_until_the_stop_latches():
    sent = Sent("last")
    assert [sent.command(tick) for tick in range(3)] == [([0.8, -0.4], True)] * 3
    assert sent.command(3, latched=True) == ([0.6, -0.3], True)
    assert sent.command(6, latched=True) == ([0.0, 0.0], True)


def test_each_hold_begins_at_the_command_before_it():
    sent = Sent("ramp")
    sent.command(0)
    sent.holding.release()
    sent.previous = np.array([0.4, 0.4], np.float32)
    assert sent.command(9) == ([0.3, 0.3], True)


def test_whole_numbers_are_rounded():
    sent = Sent("ramp", 4, np.zeros(1, np.uint8), np.array([10], np.uint8))
    assert [sent.command(tick)[0] for tick in range(4)] == [[8.0], [5.0], [2.0], [0.0]]
    assert sent.previous.dtype == np.uint8


# In the loop.


def drive(hold, outcomes, ticks=24, realtime=True, **settings):
    clock, sink = VirtualClock(), ListSink()
    plant: Plant = FakeRealTimePlant(clock) if realtime else FakePlant()
    policy = FakePolicy(clock=clock, outcomes=dict.fromkeys(outcomes, "refused"))
    config = LoopConfig(fallback=FallbackSettings(hold=hold, ramp_s=0.04), **settings)
    ControlLoop(plant, policy, sink, clock, config, seed=1).run(ticks=ticks)
    return sink.records, plant


def test_the_loop_ramps_down_instead_of_jumping():
    records, plant = drive("ramp", range(5, 12))
    last = records[4].executed
    assert np.linalg.norm(last) > 0.1
    for i, record in enumerate(records[5:9], start=1):
        assert record.rung is Rung.HOLD
        assert record.reasons & Reason.BLENDED
        assert np.allclose(record.executed, last * (1 - i / 4), atol=1e-6)
    for record in records[9:12]:
        assert not record.reasons & Reason.BLENDED
        assert record.executed.tolist() == [0.0, 0.0]
    sent = dict(plant.commands)
    assert all(sent[record.tick].tolist() == record.executed.tolist() for record in records)


def test_the_ramp_keeps_the_slew_limit_to_its_end():
    records, _ = drive("ramp", range(5, 24), slew_per_s=3.0)
    commands = np.array([record.executed for record in records])
    assert np.abs(np.diff(commands, axis=0)).max() <= 0.03 + 1e-6
    assert commands[-1].tolist() == [0.0, 0.0]
    slowed = [r.tick for r in records if r.rung is Rung.HOLD and r.reasons & Reason.SLEW]
    assert slowed[-1] == 8  # the tick at which the ramp ends; the command is one behind
    assert records[9].reasons & Reason.BLENDED


def test_the_latched_stop_ramps_down_too():
    records, _ = drive("last", range(5, 24), stop_after_s=0.05)
    rungs = [record.rung for record in records]
    stop = rungs.index(Rung.STOP)
    assert {r.executed.tolist() == records[4].executed.tolist() for r in records[5:stop]} == {True}
    steps = np.diff([record.executed for record in records[stop - 1 : stop + 5]], axis=0)
    assert np.allclose(steps[:4], -records[4].executed / 4, atol=1e-6)
    assert records[stop + 4].executed.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("hold", ["safe", "ramp", "last"])
def test_between_episodes_the_safe_command_is_sent_at_once(hold):
    records, _ = drive(hold, (), ticks=40)
    waits = [record for record in records if record.reasons & Reason.EPISODE]
    assert waits
    assert {tuple(record.executed.tolist()) for record in waits} == {(0.0, 0.0)}
