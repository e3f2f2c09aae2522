import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.control import control
from controller.endpoints import endpoint_for
from controller.errors import EndpointInUse, PlantFailed, PlantLost, Refused, SpecMismatch
from controller.fault_settings import FaultsConfig
from controller.greeting import Session
from controller.loop import ControlLoop, LoopConfig
from controller.remote_plant import RemotePlant
from controller.spec import Spec
from controller.testing import FakePolicy, ListSink
from controller.types import Observation, Rung
from controller.wire import Command, Reject, State
from sim.server import RealTimeServer
from tests.sim.plants import SPEC, Integrator, SubsteppedIntegrator

CLOCK = MonotonicClock()


@pytest.fixture
def endpoint():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        yield endpoint_for(path, "s")


@contextlib.contextmanager
def serving(plant, endpoint, clock=CLOCK, **options):
    """A server in a thread."""
    stop = threading.Event()
    server = RealTimeServer(plant, endpoint, clock, **options)
    thread = threading.Thread(target=server.run, args=(stop.is_set,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


@contextlib.contextmanager
def connected(endpoint):
    plant = RemotePlant(endpoint, CLOCK, connect_timeout_s=20.0)
    try:
        plant.connect()
        yield plant
    finally:
        plant.close()


def states(plant, count, act=lambda observation: None):
    """Watch ``count`` different states, acting once on each."""
    seen = []
    for _ in range(100_000):
        observation = plant.observe()
        if not seen or observation is not seen[-1]:
            seen.append(observation)
            act(observation)
        if len(seen) == count:
            return seen
        time.sleep(0.0002)
    raise AssertionError(f"{len(seen)} of {count} states within 20 s")


def until(found):
    for _ in range(4000):
        if result := found():
            return result
        time.sleep(0.005)
    raise AssertionError("not within 20 s")


def test_an_answer_to_a_state_acts_one_period_after_it_without_substeps(endpoint):
    """Published at t_k, the earliest effect is in the step from t_{k+1}: state k + 2 shows it."""
    sent = {}
    with serving(Integrator(), endpoint), connected(endpoint) as plant:

        def act(observation):
            tick = len(sent)
            sent[tick] = (observation.step, 1.0 + tick)
            plant.command(np.array([1.0 + tick]), tick)

        seen = states(plant, 60, act)
    answered = [one for one in seen if one.applied_tick >= 0]
    assert len(answered) > 20
    for observation in answered:
        step, value = sent[observation.applied_tick]
        assert observation.step >= step + 2
        assert observation.reward == value
    for before, after in pairwise(seen):
        if after.step == before.step + 1:
            assert after.arrays[0] == before.arrays[0] + after.reward


def test_an_answer_to_a_state_acts_within_the_same_step_with_substeps(endpoint):
    """The step over [t_k, t_k + 5 ms] mixes the command before it and the answer to state k.

    How they are mixed is the machine's affair, but in whole parts of 1 ms, and the first is
    always the old command's.
    """
    sent = {}
    with serving(SubsteppedIntegrator(5), endpoint), connected(endpoint) as plant:

        def act(observation):
            sent[observation.step] = 1.0 + observation.step
            plant.command(np.array([sent[observation.step]]), observation.step)

        seen = states(plant, 80, act)
    mixed = 0
    for before, after in pairwise(seen):
        if after.step != before.step + 1:
            continue
        assert after.applied_tick <= before.step
        if after.applied_tick == before.step and before.applied_tick == before.step - 1 >= 0:
            old, new = sent[before.step - 1], sent[before.step]
            parts = (after.reward - old) / (new - old) * 5
            assert abs(parts - round(parts)) < 1e-6
            assert 1 <= round(parts) <= 4
            mixed += 1
    assert mixed > 20


def test_stamps_lie_on_the_grid_and_never_ahead(endpoint):
    arrivals = []
    with serving(Integrator(), endpoint), connected(endpoint) as plant:
        seen = states(plant, 20, lambda observation: arrivals.append(CLOCK.now_ns()))
    for observation, arrival_ns in zip(seen, arrivals, strict=True):
        assert (observation.stamp_ns - seen[0].stamp_ns) % SPEC.period_ns == 0
        assert observation.stamp_ns <= arrival_ns
    assert all(after.stamp_ns > before.stamp_ns for before, after in pairwise(seen))


def test_physics_does_not_wait_for_a_controller(endpoint):
    with serving(Integrator(), endpoint) as server, connected(endpoint) as plant:
        seen = states(plant, 10)
        assert {one.applied_tick for one in seen} == {-1}
        assert seen[-1].step >= 9
        assert server.stats()["commands"] == 0


def test_an_episode_ends_stays_and_begins_anew(endpoint):
    with serving(Integrator(episode_steps=5), endpoint), connected(endpoint) as plant:
        end = until(lambda: (one := plant.observe()).done and one)
        later = until(lambda: (one := plant.observe()).stamp_ns > end.stamp_ns and one)
        assert (later.step, later.truncated, later.episode_return) == (5, True, 1.25)
        plant.reset(42)
        plant.reset(43)
        begun = until(lambda: (one := plant.observe()).episode == 1 and one)
        assert float(begun.arrays[1]) == 42.0
        assert until(lambda: (one := plant.observe()).done and one).episode == 1


def test_one_drives_and_others_watch(endpoint):
    with serving(Integrator(), endpoint), connected(endpoint) as driver:
        driver.command(np.array([1.0]), 5)
        until(lambda: driver.observe().applied_tick == 5)
        with connected(endpoint) as other:
            assert until(lambda: other.observe().applied_tick == 5)
            other.command(np.array([9.0]), 6)
            with pytest.raises(PlantLost, match="another client"):
                until(lambda: other.observe() is None)
            assert driver.observe().applied_tick == 5


def test_three_watch_what_one_drives_and_take_over_one_after_the_other(endpoint):
    with serving(Integrator(), endpoint) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(endpoint)) for _ in range(4)]
        for number, driver in enumerate(clients[:3]):
            driver.command(np.array([1.0 + number]), number)
            for client in clients[number:]:
                seen = until(lambda c=client, n=number: (o := c.observe()).applied_tick == n and o)
                assert seen.reward == 1.0 + number
            driver.close()
            until(lambda: clients[3].observe().applied_tick == -1)
        together = [clients[3].observe(), server.stats()]
        assert together[1]["commands"] == 3
        assert together[0].episode_return > 0


def test_two_servers_are_two_plants(endpoint):
    with (
        serving(Integrator(), endpoint),
        serving(Integrator(), f"{endpoint}2"),
        connected(endpoint) as one,
        connected(f"{endpoint}2") as two,
    ):
        one.command(np.array([1.0]), 5)
        two.command(np.array([2.0]), 6)
        assert until(lambda: (seen := one.observe()).applied_tick == 5 and seen).reward == 1.0
        assert until(lambda: (seen := two.observe()).applied_tick == 6 and seen).reward == 2.0


def test_the_seat_is_free_when_the_driver_leaves(endpoint):
    plant = Integrator()
    with serving(plant, endpoint), connected(endpoint) as other:
        with connected(endpoint) as driver:
            driver.command(np.array([1.0]), 5)
            until(lambda: other.observe().applied_tick == 5)
        until(lambda: other.observe().applied_tick == -1)
        other.command(np.array([2.0]), 6)
        until(lambda: other.observe().applied_tick == 6)


def test_a_silent_driver_is_replaced_by_the_hold_action(endpoint):
    with (
        serving(Integrator(), endpoint, driver_timeout_s=0.05),
        connected(endpoint) as driver,
        connected(endpoint) as other,
    ):
        driver.command(np.array([1.0]), 5)
        until(lambda: driver.observe().applied_tick == 5)
        until(lambda: driver.observe().applied_tick == -1)
        other.command(np.array([2.0]), 6)
        until(lambda: driver.observe().applied_tick == 6)


def test_a_bad_command_is_rejected_and_the_one_before_holds(endpoint):
    with serving(Integrator(), endpoint), connected(endpoint) as plant:
        plant.command(np.array([1.0]), 0)
        plant.command(np.array([np.nan]), 1)
        until(lambda: plant.observe() and plant.rejected)
        assert plant.observe().applied_tick in (-1, 0)
        until(lambda: plant.observe().applied_tick == 0)


def test_a_command_out_of_limits_is_rejected_by_name(endpoint, caplog):
    with serving(Integrator(), endpoint), connected(endpoint) as plant:
        plant.command(np.array([0.1]), 0)
        until(lambda: plant.observe() and plant.rejected)
    assert "bad_command (1 so far): rate: flow is 0.1, expected 0.25 to inf" in caplog.text


def test_a_failed_plant_tells_everybody_and_a_reset_revives_it(endpoint):
    with (
        serving(Integrator(fail_at=20), endpoint),
        connected(endpoint) as driver,
        connected(endpoint) as other,
    ):
        driver.command(np.array([1.0]), 5)
        for client in (driver, other):
            with pytest.raises(PlantFailed, match="the tank burst"):
                until(lambda c=client: c.observe() is None)
        assert control(endpoint, "stats", timeout_s=20.0)["failure"] == "the tank burst"
        driver.reset(3)

        def revived():
            with contextlib.suppress(PlantFailed):
                return driver.observe()

        seen = until(revived)
        assert (seen.episode, float(seen.arrays[1])) == (1, 3.0)


def test_a_run_on_a_plant_that_fails_ends_in_fault_with_the_plants_words(endpoint):
    """The loop, its client and the server in real time; then a second run on the same server."""
    with serving(Integrator(fail_at=20), endpoint), connected(endpoint) as plant:
        sink = ListSink()
        policy = Steady(SPEC)
        loop = ControlLoop(plant, policy, sink, CLOCK, LoopConfig(linger_s=0.05), seed=0)
        with pytest.raises(PlantFailed, match=r"^the tank burst$"):
            loop.run(ticks=2000)
        modes = [detail for _, kind, detail in sink.events if kind == "mode"]
        assert "RUN -> FAULT: plant failed (the tank burst)" in modes
        assert sink.records[-1].rung is Rung.STOP
        again = ControlLoop(plant, policy, ListSink(), CLOCK, LoopConfig(), seed=0)
        assert again.run(ticks=10) == "ticks"


def test_late_physics_is_in_the_observation(endpoint):
    clock = SlowClock()

    def take_long():
        clock.ahead_ns += 3 * SPEC.period_ns // 2

    with serving(Integrator(on_step=take_long), endpoint, clock), connected(endpoint) as plant:
        seen = until(lambda: (one := plant.observe()).late_steps > 5 and one)
    assert seen.late_ns >= SPEC.period_ns // 2


def test_observations_under_way_carry_the_time_they_were_sampled(endpoint):
    """50 ms under way, and 10 steps of 5 ms behind what the server has computed."""
    faults = FaultsConfig(observation_delay_s=0.05)
    ages = []
    with serving(Integrator(), endpoint, faults=faults) as server, connected(endpoint) as plant:
        seen = states(plant, 20, lambda one: ages.append(CLOCK.now_ns() - one.stamp_ns))
        stats = server.stats()
    assert min(ages) >= 50_000_000
    assert stats["steps"] >= seen[-1].step + 9
    assert stats["faults"] == {"observation_delay_s": 0.05, "seed": 0}


def test_an_observation_leaves_when_its_delay_is_over(endpoint):
    """Not at the next deadline, 200 ms later, nor at the server's next poll, 50 ms later."""
    plant = Integrator()
    plant.spec = msgspec.structs.replace(SPEC, rate_hz=5.0)
    faults, ages_ms = FaultsConfig(observation_delay_s=0.01), []
    with serving(plant, endpoint, faults=faults), connected(endpoint) as client:
        states(client, 5, lambda one: ages_ms.append((CLOCK.now_ns() - one.stamp_ns) / 1e6))
    assert 10 <= min(ages_ms) < 45


def test_lost_observations_are_missing_and_counted(endpoint):
    faults = FaultsConfig(observation_loss=0.5, seed=3)
    with serving(Integrator(), endpoint, faults=faults) as server, connected(endpoint) as plant:
        seen = states(plant, 60)
        stats = server.stats()
    gaps = sum(after.step - before.step - 1 for before, after in pairwise(seen))
    assert stats["lost"] >= gaps >= 20


def test_noise_is_in_what_is_seen_but_not_in_the_plant(endpoint):
    plant = Integrator()
    with (
        serving(plant, endpoint, faults=FaultsConfig(noise=0.01)),
        connected(endpoint) as client,
    ):
        seen = states(client, 20)
    errors = [float(one.arrays[0][0]) - one.episode_return for one in seen]
    assert 0.002 < np.std(errors) < 0.03
    assert plant.now.arrays[0] == pytest.approx(plant.now.episode_return)


def test_strangers_and_nonsense(endpoint):
    with serving(Integrator(), endpoint) as server, connected(endpoint) as plant:
        stranger = Session(endpoint, "plant", CLOCK)
        until(lambda: stranger.send(Command(3), (np.zeros(1),)))
        assert stranger.receive(20_000_000_000)[0] == Reject(3, "no_session", "say hello first")
        for frames in ([b"junk"], [b""], [b"\x91" * 100] * 3, [b"x"] * 80):
            stranger._client.send(frames)
        until(lambda: server.stats()["malformed"] == 4)
        stranger.connect(20.0)
        stranger.send(State(0, 0, 0, 0.0, 0.0, False, False, False, 0), (np.zeros(1),))
        until(lambda: server.stats()["malformed"] == 5)
        stranger.close()
        assert len(states(plant, 5)) == 5


def test_a_policy_client_and_one_of_another_robot_are_refused(endpoint):
    with serving(Integrator(), endpoint):
        policy = Session(endpoint, "policy", CLOCK, spec=SPEC)
        with pytest.raises(Refused, match="this is a plant server"):
            policy.connect(20.0)
        other = Session(endpoint, "plant", CLOCK, spec=Spec("x", SPEC.observation, SPEC.action, 1))
        with pytest.raises(SpecMismatch, match="integrator"):
            other.connect(20.0)
        policy.close()
        other.close()


def test_control_verbs(endpoint):
    with serving(Integrator(episode_steps=3), endpoint), connected(endpoint) as plant:
        ready = control(endpoint, "ready", timeout_s=20.0)
        about = {"substeps": 1, "faults": {}}
        assert ready == {"task": "integrator", "spec": SPEC.digest(), **about}
        plant.command(np.array([1.0]), 0)
        until(lambda: plant.observe().done)
        stats = control(endpoint, "stats", timeout_s=20.0)
        assert (stats["steps"], stats["episodes"], stats["commands"]) == (3, 1, 1)
        assert 0 < stats["real_time_factor"] <= 1
        with pytest.raises(Refused, match="unknown verb 'stop', expected ready or stats"):
            control(endpoint, "stop", timeout_s=20.0)


class Steady(FakePolicy):
    """Asks for the same action always."""

    def _actions(self, request):
        return np.full((1, 1), 2.0)


class SlowClock(MonotonicClock):
    """Real time, with a way to make it jump: how a test makes a step take long."""

    ahead_ns = 0

    def now_ns(self):
        return super().now_ns() + self.ahead_ns


def test_a_plant_that_cannot_keep_up_says_so(endpoint):
    """A step of 2.5 periods or a little more: 1 or 2 periods are skipped after each."""
    clock = SlowClock()

    def take_long():
        clock.ahead_ns += 5 * SPEC.period_ns // 2

    plant = Integrator(episode_steps=40, on_step=take_long)
    with serving(plant, endpoint, clock) as server:
        until(lambda: plant.now.done)
        time.sleep(0.01)
        stats = server.stats()
    assert stats["steps"] == stats["late_steps"] == 40
    assert len(stats["late"]) == 40
    assert stats["late"][0]["step"] == 1
    assert all(one["late_us"] >= 1.5 * SPEC.period_ns / 1000 for one in stats["late"])
    assert stats["skipped_periods"] >= 59
    assert 0 < stats["real_time_factor"] < 0.5


def test_a_taken_address(endpoint):
    with (
        serving(Integrator(), endpoint),
        pytest.raises(EndpointInUse, match=f"{endpoint}: in use by another server"),
    ):
        RealTimeServer(Integrator(), endpoint, CLOCK)


def test_a_broken_plant_frees_the_address(endpoint):
    def fail():
        raise RuntimeError("physics exploded")

    server = RealTimeServer(Integrator(on_step=fail), endpoint, CLOCK)
    with pytest.raises(RuntimeError, match="exploded"):
        server.run(lambda: False)
    with serving(Integrator(), endpoint):
        pass


def test_a_plant_that_is_not_what_its_spec_says_is_not_published(endpoint):
    plant = Integrator()
    server = RealTimeServer(plant, endpoint, CLOCK)
    plant.now = Observation((np.zeros(1), np.array(1)), 0)  # an integer, of the same length
    with pytest.raises(SpecMismatch, match=r"episode_seed is \[\] int64, expected \[\] float64"):
        server.run(lambda: False)


SERVE = """
import sys
sys.path.insert(0, ".")
from tests.sim.test_server import CLOCK, Integrator
from sim.server import RealTimeServer
server = RealTimeServer(Integrator(), sys.argv[1], CLOCK)
sys.stdout.write("serving\\n")
sys.stdout.flush()
server.run(lambda: False)
"""


def test_a_killed_plant_is_lost_and_its_address_free(endpoint):
    child = subprocess.Popen([sys.executable, "-c", SERVE, endpoint], stdout=subprocess.PIPE)
    plant = RemotePlant(endpoint, CLOCK, lost_after_s=0.3)
    try:
        assert child.stdout.readline() == b"serving\n"
        plant.connect(20.0)
        states(plant, 5, lambda seen: plant.command(np.ones(1), seen.step))
        child.kill()
        with pytest.raises(PlantLost, match="no observation for"):
            until(lambda: plant.command(np.ones(1), 0) or plant.observe() is None)
        with serving(Integrator(), endpoint):
            with pytest.raises(PlantLost, match=r"no observation for|replaced"):
                until(lambda: plant.command(np.ones(1), 0) or plant.observe() is None)
            plant.connect(20.0)
            assert plant.observe().episode == 0
    finally:
        plant.close()
        child.kill()
        child.communicate(timeout=20)
