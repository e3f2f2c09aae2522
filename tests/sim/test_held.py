"""The latch under a virtual clock: which command acts in which physics step."""

import math

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import ConfigError, PlantFailed
from controller.fault_settings import FaultsConfig
from controller.wire import Reset
from sim.faults import Faults
from sim.held import HeldPlant
from sim.registry import make_plant
from tests.sim.plants import SPEC, Integrator, SubsteppedIntegrator, command

US = 1000
PERIOD = SPEC.period_ns  # 5 ms
HOLD = 0.25


class Scene:
    """A latched plant, and commands that arrive at set times."""

    def __init__(self, plant=None, arrivals=(), clock=None, **options):
        self.clock = clock or VirtualClock()
        self.plant = plant or SubsteppedIntegrator(5, self.clock)
        self.arrivals = sorted(arrivals)
        self.waits = []
        self.held = HeldPlant(self.plant, self.clock, self.wait, **options)
        self.next_ns = self.clock.now_ns()

    def wait(self, time_ns):
        """Stand in for the server: hand over what arrives until then."""
        self.waits.append(time_ns)
        while self.arrivals and self.arrivals[0][0] <= max(time_ns, self.clock.now_ns()):
            at_ns, tick, value = self.arrivals.pop(0)
            self.clock.sleep_until(at_ns)
            assert self.held.command(command(value), tick) == ""
        self.clock.sleep_until(time_ns)

    def run(self, steps):
        for _ in range(steps):
            self.wait(self.next_ns)
            self.held.advance(self.next_ns)
            self.next_ns += PERIOD
        return self.held.observation


# Offset of a command after t_0 in µs; physics steps of 1 ms; the first of them it acts in.
OFFSETS = [-2500, -1, 0, 1, 500, 999, 1000, 1001, 1200, 2000, 3999, 4000, 4001, 4999, 5000, 5001]


@pytest.mark.parametrize("offset_us", OFFSETS)
def test_a_command_acts_from_the_physics_step_that_begins_after_its_arrival(offset_us):
    clock = VirtualClock(start_ns=10 * PERIOD)
    begun_ns = clock.now_ns()
    scene = Scene(SubsteppedIntegrator(5, clock), clock=clock)
    scene.arrivals = [(begun_ns + offset_us * US, 7, 9.0)]
    scene.run(3)
    first = max(0, math.ceil(offset_us / 1000))
    values = [value for _, value in scene.plant.poured_at]
    assert values == [HOLD] * first + [9.0] * (15 - first)
    times = [time_ns - begun_ns for time_ns, _ in scene.plant.poured_at]
    assert times == [part * 1000 * US for part in range(15)], "physics ran ahead of the clock"


def test_the_reward_of_a_mixed_step_is_that_of_both_commands():
    scene = Scene(arrivals=[(0, 0, 1.0), (1200 * US, 1, 6.0)])
    seen = scene.run(1)
    assert seen.reward == pytest.approx((2 * 1.0 + 3 * 6.0) / 5)
    assert seen.applied_tick == 1, "the newest command that acted"
    assert scene.run(1).reward == 6.0


def test_of_several_commands_between_two_physics_steps_the_newest_acts():
    arrivals = [(100 * US, 0, 1.0), (200 * US, 1, 2.0), (2100 * US, 2, 3.0), (2200 * US, 3, 4.0)]
    scene = Scene(arrivals=arrivals)
    scene.run(1)
    assert [value for _, value in scene.plant.poured_at] == [HOLD, 2.0, 2.0, 4.0, 4.0]


def test_a_command_too_late_for_the_last_physics_step_is_the_first_of_the_next_step():
    scene = Scene(arrivals=[(4500 * US, 3, 1.0)])
    assert scene.run(1).applied_tick == -1
    seen = scene.run(1)
    assert (seen.applied_tick, seen.reward) == (3, 1.0)


def test_physics_steps_shorter_than_a_millisecond_are_latched_in_groups():
    """12 of 0.42 ms: groups of 3, at 1.25, 2.5 and 3.75 ms."""
    clock = VirtualClock()
    scene = Scene(SubsteppedIntegrator(12, clock), [(1300 * US, 0, 1.0)], clock)
    scene.run(1)
    assert scene.held.substeps == 4
    assert scene.waits == [0, 1_250_000, 2_500_000, 3_750_000]
    assert [value for _, value in scene.plant.poured_at] == [HOLD] * 6 + [1.0] * 6


def test_groups_need_not_fill_the_control_step():
    """7 of 0.71 ms: groups of 2, 2, 2 and 1."""
    clock = VirtualClock()
    scene = Scene(SubsteppedIntegrator(7, clock), [(4200 * US, 0, 1.0)], clock)
    scene.run(1)
    assert scene.held.substeps == 4
    assert [value for _, value in scene.plant.poured_at] == [HOLD] * 6 + [1.0]


@pytest.mark.parametrize("make", [Integrator, lambda: SubsteppedIntegrator(1)])
def test_a_plant_of_one_physics_step_takes_commands_between_control_steps(make):
    scene = Scene(make(), [(1200 * US, 0, 1.0)])
    assert scene.held.substeps == 1
    scene.run(1)
    assert scene.waits == [0]
    assert scene.run(1).reward == 1.0


def test_in_lockstep_a_substepped_plant_computes_the_step_at_once():
    plant = SubsteppedIntegrator(5)
    plant.reset()
    plant.command(np.array([2.0]), 0)
    assert plant.observe().reward == pytest.approx(2.0)


def test_a_driver_that_leaves_within_a_step_is_replaced_within_it():
    scene = Scene(arrivals=[(0, 4, 1.0)])
    wait = scene.wait

    def leave(time_ns):
        wait(time_ns)
        if time_ns == 3_000_000:
            scene.held.hold()

    scene.held._wait_until = leave
    seen = scene.run(1)
    assert [value for _, value in scene.plant.poured_at] == [1.0, 1.0, 1.0, HOLD, HOLD]
    assert seen.applied_tick == -1


# Late physics.


def slow(clock, lasts_us):
    """A plant whose k-th physics step takes ``lasts_us[k]``, 0 after the last."""
    rest = iter(lasts_us)
    return SubsteppedIntegrator(5, clock, on_part=lambda: clock.advance(next(rest, 0) * US))


@pytest.mark.parametrize(
    ("lasts_us", "late_substeps", "late_us"),
    [
        ([], 0, 0),
        ([1000] * 5, 0, 0),  # ready exactly at the end
        ([0, 1500], 1, 0),  # one interval overruns, the step does not
        ([1500] * 5, 5, 2500),
        ([0, 0, 0, 0, 3000], 1, 2000),
        ([0, 0, 6000], 3, 3000),  # the two after it are computed late, too
    ],
)
def test_late_physics_is_counted_by_interval_and_by_step(lasts_us, late_substeps, late_us):
    clock = VirtualClock()
    scene = Scene(slow(clock, lasts_us), clock=clock)
    seen = scene.run(1)
    held = scene.held
    assert held.late_substeps == late_substeps
    assert (seen.late_ns, seen.late_steps) == (late_us * US, int(late_us > 0))
    expected = [{"episode": 0, "step": 1, "late_us": late_us}] if late_us else []
    assert list(held.late) == expected


def test_only_the_state_of_a_late_step_is_late_but_the_count_stays():
    clock = VirtualClock()
    scene = Scene(slow(clock, [0, 0, 0, 0, 1300]), clock=clock)
    assert (scene.run(1).late_ns, scene.run(1).late_ns) == (300 * US, 0)
    assert scene.held.observation.late_steps == 1
    scene.held.reset(Reset(None, 1))
    seen = scene.run(1)
    assert (seen.episode, seen.late_ns, seen.late_steps) == (1, 0, 1)


# Commands that are not taken, and episodes.


def test_the_newest_command_acts_until_it_is_replaced():
    scene = Scene(Integrator())
    held, plant = scene.held, scene.plant
    scene.run(1)
    held.command(command(1.0), 0)
    held.command(command(2.0), 1)
    scene.run(2)
    held.command(command(3.0), 2)
    assert held.observation.arrays[0] == [4.25]
    scene.run(1)
    held.hold()
    scene.run(1)
    assert plant.taken == [(-1, 0.25), (1, 2.0), (1, 2.0), (2, 3.0), (-1, 0.25)]
    assert (held.steps, held.commands) == (5, 3)


def test_a_reset_takes_one_period_and_forgets_the_command():
    scene = Scene(Integrator())
    held, plant = scene.held, scene.plant
    held.command(command(1.0), 0)
    scene.run(1)
    held.reset(Reset(7, 1))
    held.command(command(9.0), 1)  # of the old episode
    scene.run(1)
    assert (held.observation.episode, held.observation.step) == (1, 0)
    held.command(command(8.0), 2, episode=0)  # late, of the old episode
    scene.run(1)
    held.command(command(2.0), 3, episode=1)
    scene.run(1)
    assert plant.taken == [(0, 1.0), (-1, 0.25), (3, 2.0)]
    assert (held.commands, held.outdated) == (3, 1)
    assert plant.seeds == [None, 7]


@pytest.mark.parametrize("episode", [0, 2, 100])
def test_a_reset_for_any_but_the_next_episode_is_ignored(episode):
    scene = Scene(Integrator())
    scene.held.reset(Reset(7, episode))
    seen = scene.run(1)
    assert (seen.episode, seen.step) == (0, 1)


def test_a_repeated_reset_begins_one_episode():
    scene = Scene(Integrator())
    for seed in (1, 2):
        scene.held.reset(Reset(seed, 1))
    scene.run(1)
    scene.held.reset(Reset(3, 1))
    seen = scene.run(1)
    assert (seen.episode, seen.step) == (1, 1)
    assert scene.plant.seeds == [None, 1]


def test_the_end_of_an_episode_stays():
    scene = Scene(Integrator(episode_steps=2))
    for _ in range(5):
        scene.held.command(command(1.0), 0)
        seen = scene.run(1)
    assert (seen.step, seen.done, scene.held.steps) == (2, True, 2)
    scene.held.reset(Reset(None, 1))
    seen = scene.run(1)
    assert (seen.step, seen.done) == (0, False)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (command(np.nan), "not finite"),
        (command(np.inf), "not finite"),
        ([b"1234"], "rate has 4 bytes, expected 8"),
        ([], "0 array frames"),
        (command(0.1), "rate: flow is 0.1, expected 0.25 to inf"),
    ],
)
def test_a_bad_command_leaves_the_good_one(arrays, match):
    scene = Scene(Integrator())
    assert scene.held.command(command(1.0), 0) == ""
    assert match in scene.held.command(arrays, 1)
    scene.run(1)
    assert scene.plant.taken == [(0, 1.0)]


def test_limits_allow_for_rounding():
    """float32(0.1) is 1.5e-9 above 0.1: a client that clips in float32 is not at fault."""
    action = SPEC.action.__class__("rate", (2,), "float32", low=(-0.1, 0.0), high=(0.1, 5.0))
    plant = Integrator()
    plant.spec = SPEC.__class__("x", SPEC.observation, action, 200.0)
    held = HeldPlant(plant, VirtualClock())
    good = np.array([0.1, 5.0], np.float32)
    assert float(good[0]) > 0.1
    assert held.command([good.tobytes()], 0) == ""
    for bad, why in (([0.101, 1.0], "number 0 is 0.101"), ([0.0, -0.01], "number 1 is -0.01")):
        assert why in held.command([np.array(bad, np.float32).tobytes()], 0)


def test_a_hold_action_of_one_s_own():
    scene = Scene(Integrator(), hold_action=np.array([0.5], np.float32))
    scene.run(1)
    assert scene.plant.taken == [(-1, 0.5)]
    for wrong in (np.zeros(2), np.array([np.nan])):
        with pytest.raises(ConfigError, match="hold action"):
            HeldPlant(Integrator(), VirtualClock(), hold_action=wrong)


# A plant that fails.


def test_a_failed_plant_waits_for_a_reset():
    scene = Scene(Integrator(fail_at=2))
    assert scene.run(2).step == 2
    assert not scene.held.failure
    assert scene.run(3).step == 2, "the last good state"
    assert scene.held.failure == "the tank burst"
    assert len(scene.plant.taken) == 3, "a failed plant was stepped"
    scene.held.reset(Reset(5, 1))
    seen = scene.run(1)
    assert (seen.episode, seen.step, scene.held.failure) == (1, 0, "")
    assert scene.run(1).step == 1


def test_a_plant_without_a_first_state_is_no_plant():
    class Broken(Integrator):
        def observe(self):
            raise PlantFailed("no")

    with pytest.raises(PlantFailed):
        HeldPlant(Broken(), VirtualClock())


# Faults on the way of a command.


def faults(**settings):
    return Faults(FaultsConfig(**settings), SPEC)


def test_a_delayed_command_acts_from_the_physics_step_after_its_delay():
    """Arrives 0.2 ms after t_0, under way for 2.5 ms: acts from 3 ms on."""
    scene = Scene(arrivals=[(200 * US, 0, 9.0)], faults=faults(action_delay_s=0.0025))
    scene.run(1)
    assert [value for _, value in scene.plant.poured_at] == [HOLD] * 3 + [9.0] * 2


def test_a_lost_command_leaves_the_one_before_it():
    scene = Scene(Integrator(), faults=faults(action_loss=0.5))
    taken = []
    for tick in range(200):
        assert scene.held.command(command(1.0 + tick), tick) == ""
        taken.append(scene.run(1).applied_tick)
    lost = sum(now != tick for tick, now in enumerate(taken))
    assert 70 <= lost <= 130, "half of 200, give or take four standard deviations"
    assert taken == sorted(taken)
    assert scene.held._faults.actions.lost == lost


def test_commands_under_way_at_a_reset_never_arrive():
    scene = Scene(Integrator(), faults=faults(action_delay_s=0.012))
    scene.held.command(command(9.0), 0)
    scene.held.reset(Reset(1, 1))
    scene.run(6)
    assert {tick for tick, _ in scene.plant.taken} == {-1}


# Real environments.


@pytest.mark.parametrize("task", ["hopper", "halfcheetah", "antmaze-umaze"])
def test_a_command_that_holds_gives_the_lockstep_trajectory_bit_for_bit(task):
    """The latch looks for a newer command between any two physics steps, and finds none."""
    stepped, latched = make_plant(task), make_plant(task)
    scene = Scene(latched)
    scene.held.reset(Reset(3, 1))
    scene.run(1)
    period_ns, steps = latched.spec.period_ns, latched.physics_steps
    assert steps > 1
    assert scene.held.substeps == steps, "no physics step here is shorter than 1 ms"
    stepped.reset(3)
    rng = np.random.default_rng(0)
    for tick in range(30):
        action = rng.uniform(-1, 1, latched.spec.action.shape).astype(np.float32)
        scene.waits.clear()
        assert scene.held.command([action.tobytes()], tick) == ""
        scene.next_ns = begun_ns = tick * period_ns + 10**9
        scene.clock.sleep_until(begun_ns)
        scene.held.advance(begun_ns)
        stepped.command(action, tick)
        assert [(at - begun_ns) * steps / period_ns for at in scene.waits] == [*range(1, steps)]
        seen, expected = scene.held.observation, stepped.observe()
        for got, wanted in zip(seen.arrays, expected.arrays, strict=True):
            assert got.tobytes() == wanted.tobytes()
        assert (seen.reward, seen.done) == (expected.reward, expected.done)
        if seen.done:
            break


def test_a_new_command_within_a_step_changes_the_motion():
    """Hopper: full torque from the third of four physics steps on, against none at all."""

    def after(arrivals):
        plant = make_plant("hopper")
        held = HeldPlant(plant, VirtualClock(), lambda at_ns: arrive(at_ns))

        def arrive(at_ns):
            for tick, due_ns in enumerate(arrivals):
                if due_ns <= at_ns:
                    assert held.command([np.ones(3, np.float32).tobytes()], tick) == ""

        held.reset(Reset(1, 1))
        held.advance(0)
        held.advance(0)
        return held.observation

    still, early, late = after([]), after([2_000_000]), after([6_000_000])
    speed = [np.abs(one.arrays[0] - still.arrays[0]).max() for one in (late, early)]
    assert 0 < speed[0] < speed[1]
    assert (still.applied_tick, late.applied_tick) == (-1, 0)
