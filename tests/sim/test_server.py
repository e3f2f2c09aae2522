import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from controller.clients import RemotePlant, control
from controller.clock import MonotonicClock
from controller.errors import ConfigError, EndpointInUse, PlantLost, Refused, SpecMismatch
from controller.greeting import Session
from controller.spec import ArraySpec, Spec
from controller.transport import endpoint_for
from controller.types import Observation
from controller.wire import Command, Reject, Reset, State
from sim.server import HeldPlant, RealTimeServer

SPEC = Spec(
    task="integrator",
    observation=(ArraySpec("sum", (1,)), ArraySpec("episode_seed", (), "float64")),
    action=ArraySpec("rate", (1,), "float64", low=(0.25,), high=(None,)),
    rate_hz=200.0,
)
CLOCK = MonotonicClock()


class Integrator:
    """Adds up its commands, and keeps a list of them."""

    spec = SPEC

    def __init__(self, episode_steps=10**9, on_step=lambda: None):
        self.episode_steps, self.on_step = episode_steps, on_step
        self.taken, self.seeds = [], []
        self.now = None

    def reset(self, seed=None):
        self.seeds.append(seed)
        episode = 0 if self.now is None else self.now.episode + 1
        arrays = (np.zeros(1), np.array(-1.0 if seed is None else float(seed)))
        self.now = Observation(arrays, stamp_ns=-1, episode=episode)

    def observe(self):
        return self.now

    def command(self, action, tick):
        assert not self.now.done, "physics after the end of an episode"
        self.on_step()
        self.taken.append((tick, float(action[0])))
        now, step = self.now, self.now.step + 1
        self.now = Observation(
            (now.arrays[0] + action, now.arrays[1]),
            stamp_ns=-1,
            episode=now.episode,
            step=step,
            reward=float(action[0]),
            episode_return=now.episode_return + float(action[0]),
            truncated=step >= self.episode_steps,
            applied_tick=tick,
        )

    def close(self):
        pass


def command(value):
    return [np.array([value]).tobytes()]


# The rule, without time or sockets.


def test_the_newest_command_acts_until_it_is_replaced():
    plant = Integrator()
    held = HeldPlant(plant)
    held.advance()
    held.command(command(1.0), 0)
    held.command(command(2.0), 1)
    held.advance()
    held.advance()
    held.command(command(3.0), 2)
    assert held.observation.arrays[0] == [4.25]
    held.advance()
    held.hold()
    held.advance()
    assert plant.taken == [(-1, 0.25), (1, 2.0), (1, 2.0), (2, 3.0), (-1, 0.25)]
    assert (held.steps, held.commands) == (5, 3)


def test_a_reset_takes_one_period_and_forgets_the_command():
    plant = Integrator()
    held = HeldPlant(plant)
    held.command(command(1.0), 0)
    held.advance()
    held.reset(Reset(7, 1))
    held.command(command(9.0), 1)  # of the old episode
    held.advance()
    assert (held.observation.episode, held.observation.step) == (1, 0)
    held.command(command(8.0), 2, episode=0)  # late, of the old episode
    held.advance()
    held.command(command(2.0), 3, episode=1)
    held.advance()
    assert plant.taken == [(0, 1.0), (-1, 0.25), (3, 2.0)]
    assert (held.commands, held.outdated) == (3, 1)
    assert plant.seeds == [None, 7]


@pytest.mark.parametrize("episode", [0, 2, 100])
def test_a_reset_for_any_but_the_next_episode_is_ignored(episode):
    plant = Integrator()
    held = HeldPlant(plant)
    held.reset(Reset(7, episode))
    held.advance()
    assert (held.observation.episode, held.observation.step) == (0, 1)


def test_a_repeated_reset_begins_one_episode():
    plant = Integrator()
    held = HeldPlant(plant)
    for seed in (1, 2):
        held.reset(Reset(seed, 1))
    held.advance()
    held.reset(Reset(3, 1))
    held.advance()
    assert (held.observation.episode, held.observation.step) == (1, 1)
    assert plant.seeds == [None, 1]


def test_the_end_of_an_episode_stays():
    plant = Integrator(episode_steps=2)
    held = HeldPlant(plant)
    for _ in range(5):
        held.command(command(1.0), 0)
        held.advance()
    assert (held.observation.step, held.observation.done, held.steps) == (2, True, 2)
    held.reset(Reset(None, 1))
    held.advance()
    assert (held.observation.step, held.observation.done) == (0, False)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (command(np.nan), "not finite"),
        (command(np.inf), "not finite"),
        ([b"1234"], "rate has 4 bytes, expected 8"),
        ([], "0 array frames"),
    ],
)
def test_a_bad_command_leaves_the_good_one(arrays, match):
    plant = Integrator()
    held = HeldPlant(plant)
    assert held.command(command(1.0), 0) == ""
    assert match in held.command(arrays, 1)
    held.advance()
    assert plant.taken == [(0, 1.0)]


def test_a_hold_action_of_one_s_own():
    plant = Integrator()
    held = HeldPlant(plant, np.array([0.5], np.float32))
    held.advance()
    assert plant.taken == [(-1, 0.5)]
    for wrong in (np.zeros(2), np.array([np.nan])):
        with pytest.raises(ConfigError, match="hold action"):
            HeldPlant(plant, wrong)


# In real time.


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


def test_an_answer_to_a_state_acts_one_period_after_it(endpoint):
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
        assert ready == {"task": "integrator", "spec": SPEC.digest()}
        plant.command(np.array([1.0]), 0)
        until(lambda: plant.observe().done)
        stats = control(endpoint, "stats", timeout_s=20.0)
        assert (stats["steps"], stats["episodes"], stats["commands"]) == (3, 1, 1)
        assert 0 < stats["real_time_factor"] <= 1
        with pytest.raises(Refused, match="unknown verb 'stop', expected ready or stats"):
            control(endpoint, "stop", timeout_s=20.0)


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
    assert stats["steps"] == 40
    assert stats["late_steps"] >= 40
    assert stats["skipped_periods"] >= 59
    assert 0 < stats["real_time_factor"] < 0.5


def test_a_taken_address(endpoint):
    with serving(Integrator(), endpoint), pytest.raises(EndpointInUse):
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
