"""The deterministic twin of the real-time plant."""

import math

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import ConfigError, PlantFailed
from controller.fault_settings import FaultsConfig
from controller.loop import ControlLoop, LoopConfig, Outcome
from controller.types import Rung
from sim.registry import make_plant
from sim.twin import TwinPlant
from tests.sim.plants import SPEC, Integrator, SubsteppedIntegrator

US = 1000
PERIOD = SPEC.period_ns
HOLD = 0.25


def value(number: float) -> np.ndarray:
    return np.array([number])


OFFSETS = [0, 1, 500, 999, 1000, 1001, 1200, 2000, 3999, 4000, 4001, 4999, 5000, 5001]


@pytest.mark.parametrize("offset_us", OFFSETS)
def test_a_command_acts_from_the_physics_step_that_begins_after_it_came(offset_us):
    """As the latch of the real-time server does; see test_held.py."""
    clock = VirtualClock(start_ns=10 * PERIOD)
    begun_ns = clock.now_ns()
    plant = SubsteppedIntegrator(5)
    twin = TwinPlant(plant, clock)
    clock.advance(offset_us * US)
    twin.command(value(9.0), 7)
    clock.sleep_until(begun_ns + 3 * PERIOD)
    seen = twin.observe()
    first = math.ceil(offset_us / 1000)
    assert seen.step == 3
    parts = [HOLD] * first + [9.0] * (15 - first)
    assert seen.episode_return == pytest.approx(sum(parts) / 5)


def test_nothing_of_a_step_shows_before_its_end():
    clock = VirtualClock()
    twin = TwinPlant(SubsteppedIntegrator(5), clock)
    clock.advance(PERIOD - 1)
    assert twin.observe().step == 0
    clock.advance(1)
    seen = twin.observe()
    assert (seen.step, seen.stamp_ns) == (1, PERIOD)


def test_a_reset_takes_one_period_and_drops_commands_of_the_episode_before():
    clock = VirtualClock()
    plant = SubsteppedIntegrator(5)
    twin = TwinPlant(plant, clock)
    twin.reset(3)
    assert twin.observe().episode == 0, "not at once, as in lockstep"
    twin.command(value(9.0), 0)
    clock.advance(PERIOD)
    assert (twin.observe().episode, twin.observe().step) == (1, 0)
    assert plant.seeds == [None, 3]
    clock.advance(PERIOD)
    assert twin.observe().reward == pytest.approx(HOLD)


def test_an_unacceptable_command_is_said():
    clock = VirtualClock()
    twin = TwinPlant(SubsteppedIntegrator(5), clock)
    twin.command(value(-1.0), 0)
    clock.advance(PERIOD)
    with pytest.raises(ConfigError, match=r"flow is -1, expected 0.25 to inf"):
        twin.observe()


def test_a_plant_that_fails_says_so_until_it_is_reset():
    clock = VirtualClock()
    twin = TwinPlant(Integrator(fail_at=1), clock)
    clock.advance(3 * PERIOD)
    with pytest.raises(PlantFailed, match="the tank burst"):
        twin.observe()
    twin.reset(1)
    clock.advance(PERIOD)
    assert twin.observe().episode == 1


def test_faults_delay_what_is_seen():
    clock = VirtualClock()
    faults = FaultsConfig(observation_delay_s=0.012)
    twin = TwinPlant(SubsteppedIntegrator(5), clock, faults=faults)
    clock.advance(3 * PERIOD)
    assert twin.observe().step == 0
    clock.advance(2 * PERIOD)
    assert twin.observe().step == 2, "sampled at 10 ms, arrived at 22 ms"


class Slow:
    """A policy that takes virtual time over a proportional law."""

    def __init__(self, plant, clock, takes_ns):
        self.spec, self.version = plant.spec, "slow"
        self._clock, self._takes_ns = clock, takes_ns

    def infer(self, request):
        from controller.types import ActionChunk

        self._clock.advance(self._takes_ns)
        size = self.spec.action.size
        state = request.observation.arrays[0].reshape(-1)[:size]
        action = np.clip(-state, -0.5, 0.5).astype(self.spec.action.dtype)
        return ActionChunk(request.tick, action.reshape(1, *self.spec.action.shape), "slow")

    def close(self):
        pass


class Kept:
    def __init__(self):
        self.ticks = []

    def tick(self, record):
        self.ticks.append(record)
        return True

    def event(self, stamp_ns, kind, detail=""):
        return True

    def close(self):
        pass


def run(takes_ns: int, seed: int = 4) -> list:
    clock, sink = VirtualClock(), Kept()
    plant = TwinPlant(make_plant("hopper"), clock)
    loop = ControlLoop(plant, Slow(plant, clock, takes_ns), sink, clock, LoopConfig(), seed=seed)
    assert loop.run(ticks=300) is Outcome.TICKS
    plant.close()
    return sink.ticks


def test_a_loop_drives_it_in_the_manner_of_real_time_and_the_same_every_time():
    first, again = run(1_000_000), run(1_000_000)
    assert [t.tick for t in first] == list(range(300))
    assert sum(t.rung is Rung.FRESH for t in first) > 250
    for ours, theirs in zip(first, again, strict=True):
        assert ours.executed.tobytes() == theirs.executed.tobytes()
        assert ours.sent_ns == theirs.sent_ns
    assert all(t.total_ns >= 1_000_000 for t in first if t.rung is Rung.FRESH)


def test_latency_changes_what_happens():
    quick, slow = run(0), run(4_000_000)
    returns = [[t.observation.episode_return for t in ticks] for ticks in (quick, slow)]
    assert returns[0] != returns[1]
