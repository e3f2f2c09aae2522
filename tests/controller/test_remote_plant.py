import contextlib
import logging
import time

import msgspec
import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import PlantFailed, PlantLost, SpecMismatch
from controller.interfaces import Plant
from controller.remote_plant import RemotePlant
from controller.wire import Command, Failure, Reject, Reset, State
from tests.controller.scripted import ARRAYS, CLOCK, SPEC, ScriptedServer, repeat, welcome


@pytest.fixture
def plant(endpoint, closing):
    return closing(RemotePlant(endpoint, CLOCK))


def state(step, episode=0, done=False, arrays=ARRAYS):
    return State(episode, step, 123, 0.5, 1.5, done, False, True, 4), arrays


def observe_until(plant, server, step):
    for _ in range(2000):
        if (observation := plant.observe()).step == step:
            return observation
        time.sleep(0.005)
    raise AssertionError(f"step {step} never seen")


def test_the_newest_state_is_observed(endpoint, plant):
    with ScriptedServer(endpoint, SPEC) as server:
        assert plant.connect() == SPEC == plant.spec
        assert isinstance(plant, Plant)
        server.push(*(state(step) for step in range(20)), state(20, episode=3, done=True))
        seen = observe_until(plant, server, 20)
        assert plant.observe() is seen
        assert [array.tolist() for array in seen.arrays] == [[1.0, 2.0], [3.0]]
        assert not seen.arrays[0].flags.writeable
        assert (seen.episode, seen.stamp_ns, seen.reward, seen.episode_return) == (3, 123, 0.5, 1.5)
        assert (seen.terminated, seen.truncated, seen.success, seen.applied_tick) == (
            True, False, True, 4,
        )  # fmt: skip
        assert server.received[0].spec_digest == ""


def test_lateness_of_states_that_nobody_looked_at_is_kept(endpoint, plant):
    """Three states arrive at once; the newest tells the largest lateness and the total."""

    def late(step, late_ns, late_steps):
        header = msgspec.structs.replace(state(step)[0], late_ns=late_ns, late_steps=late_steps)
        return header, ARRAYS

    with ScriptedServer(endpoint, SPEC) as server:
        plant.connect()
        server.push(late(0, 0, 0))
        observe_until(plant, server, 0)
        server.push(late(1, 5_000, 1), late(2, 9_000, 2), late(3, 0, 2))
        time.sleep(0.2)
        seen = plant.observe()
        assert (seen.step, seen.late_ns, seen.late_steps) == (3, 9_000, 2)
        server.push(late(4, 0, 2))
        seen = observe_until(plant, server, 4)
        assert (seen.late_ns, seen.late_steps) == (0, 2)


def test_a_failed_plant_says_why_until_a_reset_revives_it(endpoint, plant):
    def reply(message, arrays):
        return [state(0, episode=message.episode)] if isinstance(message, Reset) else []

    with ScriptedServer(endpoint, SPEC, reply) as server:
        plant.connect()
        server.push(state(1, episode=4))
        observe_until(plant, server, 1)
        server.push(Failure(4, "unstable", "the arm exploded"))
        with pytest.raises(PlantFailed, match="the arm exploded"):
            repeat(plant.observe)
        plant.reset(3)
        for _ in range(2000):
            with contextlib.suppress(PlantFailed):
                assert plant.observe().episode == 5
                return
            time.sleep(0.005)
        raise AssertionError("never revived")


def test_a_client_of_a_plant_that_had_failed_before_can_revive_it(endpoint, plant):
    def greet(hello):
        return [welcome(hello, SPEC), Failure(7, "unstable", "the arm exploded")]

    with ScriptedServer(endpoint, SPEC, greet=greet) as server:
        plant.connect()
        with pytest.raises(PlantFailed, match="exploded"):
            plant.observe()
        plant.reset(3)
        for _ in range(2000):
            if Reset(3, 8) in server.received:
                return
            time.sleep(0.005)
        raise AssertionError("no reset arrived")


def test_the_first_observation_is_waited_for(endpoint, plant):
    def greet(hello):
        return [welcome(hello, SPEC), state(0)]

    with ScriptedServer(endpoint, SPEC, greet=greet):
        assert plant.observe().step == 0  # connects by itself, too


def test_a_plant_that_never_says_anything(endpoint, closing):
    plant = closing(RemotePlant(endpoint, CLOCK, connect_timeout_s=0.2))
    with ScriptedServer(endpoint, SPEC):
        plant.connect()
        with pytest.raises(PlantLost, match=r"no observation within 0\.2 s"):
            plant.observe()


def test_silence_is_a_lost_plant_and_a_new_state_a_found_one(endpoint, closing):
    clock = VirtualClock(0)
    plant = closing(RemotePlant(endpoint, clock, lost_after_s=1.0))
    with ScriptedServer(endpoint, SPEC) as server:
        plant.connect()
        server.push(state(1))
        assert plant.observe().step == 1
        clock.advance(1_000_000_000)
        assert plant.observe().step == 1
        clock.advance(500_000_000)
        with pytest.raises(PlantLost, match=r"no observation for 1\.5 s"):
            plant.observe()
        server.push(state(2))
        for _ in range(2000):
            try:
                assert plant.observe().step == 2
                return
            except PlantLost:
                time.sleep(0.005)
        raise AssertionError("never found again")


def test_states_of_another_shape_are_not_observed(endpoint, plant):
    with ScriptedServer(endpoint, SPEC) as server:
        plant.connect()
        server.push(state(1), state(2, arrays=(np.zeros(3), ARRAYS[1])), [b"?"], state(3))
        observe_until(plant, server, 3)
        assert plant.malformed == 2


def test_commands_and_resets(endpoint, plant):
    commands = []

    def reply(message, arrays):
        if isinstance(message, Command):
            commands.append((message.tick, np.frombuffer(arrays[0], np.float32).tolist()))
        return []

    with ScriptedServer(endpoint, SPEC, reply) as server:
        plant.connect()
        server.push(state(5, episode=3))
        plant.reset(7)
        plant.reset()
        plant.command(np.array([0.5, -1.0]), tick=-1)
        plant.command(np.array([2.0, 3.0], np.float32), tick=8)
        with pytest.raises(SpecMismatch, match=r"shape \(3,\), expected \(2,\)"):
            plant.command(np.zeros(3), tick=9)
        for _ in range(2000):
            if len(commands) == 2:
                break
            time.sleep(0.005)
        assert commands == [(-1, [0.5, -1.0]), (8, [2.0, 3.0])]
        resets = [message for message in server.received if isinstance(message, Reset)]
        assert resets == [Reset(7, 4), Reset(None, 4)]
        assert plant.unsent == 0


@pytest.mark.parametrize(
    ("code", "match"), [("not_driver", "driven by another"), ("no_session", "was replaced")]
)
def test_a_plant_that_is_not_ours_is_lost(endpoint, plant, code, match):
    def reply(message, arrays):
        return [Reject(message.tick, code, "")] if isinstance(message, Command) else []

    with ScriptedServer(endpoint, SPEC, reply) as server:
        plant.connect()
        server.push(state(1))
        plant.observe()
        plant.command(np.zeros(2), 0)
        with pytest.raises(PlantLost, match=match):
            repeat(plant.observe)
        plant.connect()
        server.push(state(2))
        assert plant.observe().step == 2


def test_a_bad_command_is_counted_and_logged(endpoint, plant, caplog):
    def reply(message, arrays):
        return [Reject(message.tick, "bad_command", "not finite"), state(2)]

    with ScriptedServer(endpoint, SPEC, reply) as server, caplog.at_level(logging.WARNING):
        plant.connect()
        server.push(state(1))
        plant.observe()
        plant.command(np.zeros(2), 0)
        observe_until(plant, server, 2)
        assert plant.rejected == 1
        assert "bad_command (1 so far): not finite" in caplog.text


def test_commands_to_nobody_are_counted(endpoint, closing):
    plant = closing(RemotePlant(endpoint, CLOCK, lost_after_s=0.2))
    with ScriptedServer(endpoint, SPEC) as server:
        plant.connect()
        server.push(state(1))
        plant.observe()
    with pytest.raises(PlantLost, match="no observation for"):
        repeat(lambda: (plant.command(np.zeros(2), 0), plant.observe()))
    assert plant.unsent > 0
