"""A plant in lockstep over the wire is the plant."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.control import control
from controller.endpoints import endpoint_for
from controller.errors import EndpointInUse, PlantFailed, PlantLost, Refused, SpecMismatch
from controller.interfaces import Plant
from controller.lockstep_client import LockstepPlant
from controller.remote_plant import RemotePlant
from controller.testing import check_plant
from sim.lockstep_server import LockstepServer
from sim.registry import make_plant
from sim.server import RealTimeServer
from tests.sim.plants import SPEC, Integrator

CLOCK = MonotonicClock()
FLOW = np.array([0.5])


@pytest.fixture
def endpoint():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        yield endpoint_for(path, "s")


@contextlib.contextmanager
def serving(plant, endpoint, kind=LockstepServer, **options):
    """A server in a thread."""
    stop = threading.Event()
    server = kind(plant, endpoint, CLOCK, **options)
    thread = threading.Thread(target=server.run, args=(stop.is_set,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


@contextlib.contextmanager
def connected(endpoint, **options):
    plant = LockstepPlant(endpoint, connect_timeout_s=20.0, **options)
    try:
        plant.connect()
        yield plant
    finally:
        plant.close()


def test_passes_the_checks_of_a_lockstep_plant(endpoint):
    with serving(make_plant("pointmaze-umaze", episode_steps=20), endpoint):
        plant = LockstepPlant(endpoint)
        assert isinstance(plant, Plant)
        plant.close()
        check_plant(lambda: LockstepPlant(endpoint))


def test_is_the_plant_bit_for_bit(endpoint):
    near = make_plant("pointmaze-umaze", episode_steps=20)
    with serving(make_plant("pointmaze-umaze", episode_steps=20), endpoint) as server:
        with connected(endpoint) as far:
            assert far.spec == near.spec
            random = np.random.default_rng(0)
            for plant in (near, far):
                plant.reset(3)
            for tick in range(20):
                action = random.uniform(-1, 1, 2).astype(np.float32)
                for plant in (near, far):
                    plant.command(action, tick)
                one, other = near.observe(), far.observe()
                for a, b in zip(one.arrays, other.arrays, strict=True):
                    assert np.array_equal(a, b)
                assert (one.reward, one.done, one.success, one.step, one.stamp_ns) == (
                    other.reward,
                    other.done,
                    other.success,
                    other.step,
                    other.stamp_ns,
                )
        assert server.steps == 20


def test_what_the_plant_refuses_is_told_and_the_episode_goes_on(endpoint):
    with (
        serving(make_plant("pointmaze-umaze", episode_steps=2), endpoint),
        connected(endpoint) as plant,
    ):
        with pytest.raises(Refused, match="no episode has begun; reset first"):
            plant.observe()
        with pytest.raises(Refused, match="no episode has begun"):
            plant.command(np.zeros(2), 0)
        plant.reset(0)
        with pytest.raises(SpecMismatch, match=r"shape \(3,\), expected \(2,\)"):
            plant.command(np.zeros(3), 0)
        with pytest.raises(Refused, match="action is not finite"):
            plant.command(np.full(2, np.nan), 0)
        plant.command(np.zeros(2), 1)
        plant.command(np.zeros(2), 2)
        assert (plant.observe().step, plant.observe().truncated) == (2, True)
        with pytest.raises(Refused, match="ended at step 2; reset first"):
            plant.command(np.zeros(2), 3)


def test_a_plant_that_fails_says_so_until_it_is_reset(endpoint):
    with serving(Integrator(fail_at=1), endpoint), connected(endpoint) as plant:
        plant.reset(0)
        plant.command(FLOW, 0)
        with pytest.raises(PlantFailed, match="the tank burst"):
            plant.command(FLOW, 1)
        for act in (plant.observe, lambda: plant.command(FLOW, 2)):
            with pytest.raises(PlantFailed, match="the tank burst"):
                act()
        assert control(endpoint, "stats")["failure"] == "the tank burst"
        plant.reset(0)
        plant.command(FLOW, 2)
        assert (plant.observe().episode, plant.observe().step) == (1, 1)


def test_one_drives_and_hands_over(endpoint):
    with serving(Integrator(), endpoint):
        with connected(endpoint, client_name="second") as second:
            with connected(endpoint, client_name="first") as first:
                first.reset(1)
                first.command(FLOW, 0)
                with pytest.raises(PlantLost, match="first drives this plant"):
                    second.reset(2)
                first.command(FLOW, 1)
                assert first.observe().step == 2
            # What it saw as an onlooker is not taken for an answer.
            second.reset(2)
            assert (second.observe().episode, second.observe().step) == (1, 0)
            second.command(FLOW, 0)
            assert second.observe().step == 1
        with connected(endpoint) as third:
            third.reset(3)
            assert third.observe().episode == 2


def test_a_silent_driver_loses_the_plant_to_the_next(endpoint):
    with (
        serving(Integrator(), endpoint, driver_timeout_s=0.2),
        connected(endpoint) as first,
        connected(endpoint) as second,
    ):
        first.reset(1)
        time.sleep(0.3)
        first.command(FLOW, 0)  # Nobody else asked for it.
        time.sleep(0.3)
        second.reset(2)
        with pytest.raises(PlantLost, match="another client drove the plant meanwhile"):
            first.command(FLOW, 1)
        with pytest.raises(Refused, match="reset first"):
            first.observe()


def test_reports_and_the_wrong_kind_of_server(endpoint):
    with serving(Integrator(), endpoint):
        facts = control(endpoint, "ready")
        assert (facts["task"], facts["spec"]) == (SPEC.task, SPEC.digest())
        assert (facts["mode"], facts["episodes"]) == ("lockstep", 0)
        with pytest.raises(Refused, match="unknown verb 'dance'"):
            control(endpoint, "dance")
        with pytest.raises(EndpointInUse):
            LockstepServer(Integrator(), endpoint, CLOCK)
        lost = RemotePlant(endpoint, CLOCK, connect_timeout_s=0.3)
        with pytest.raises(PlantLost, match="no observation within"):
            lost.observe()
        lost.close()
    with (
        serving(Integrator(), endpoint, RealTimeServer),
        pytest.raises(Refused, match="runs in real time, expected one in lockstep"),
    ):
        LockstepPlant(endpoint).connect()


def test_onebeat_sim_serve_in_lockstep_and_its_end(endpoint):
    command = [sys.executable, "-m", "controller.cli", "sim", "serve", "pointmaze-umaze"]
    words = [f"endpoint={endpoint}", "mode=lockstep"]
    with (
        subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL) as server,
        connected(endpoint, timeout_s=1.0) as plant,
    ):
        plant.reset(0)
        plant.command(np.zeros(2), 0)
        assert plant.observe().step == 1
        os.kill(server.pid, signal.SIGKILL)
        server.wait(20)
        with pytest.raises(PlantLost, match=r"no answer within 1 s|cannot be reached"):
            plant.command(np.zeros(2), 1)
