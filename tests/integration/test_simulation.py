"""The simulation around a run: faults from the settings, a breakdown, servers side by side."""

import contextlib
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controller.clock import MonotonicClock
from controller.endpoints import endpoint_for
from controller.launch import LiveRun, RunFailed
from controller.log_reader import read_log
from controller.process import RuntimeDirectory
from controller.remote_plant import RemotePlant
from controller.settings import PlantSettings, PolicySettings, RunConfig
from controller.types import Mode, Rung
from sim.gym_plant import GymPlant
from sim.registry import task_named
from sim.server import RealTimeServer

TASK = "pointmaze-umaze"
DELAYED = ("plant.faults.action_delay_s=0.02", "plant.faults.noise=0.01", "plant.faults.seed=3")


def lockstep(onebeat, store, out, *words):
    done = onebeat(
        "run", f"task={TASK}", "mode=lockstep", "seconds=2", f"out={out}",
        f"policy.bundle={store}", *words, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), read_log(out / "log.mcap")


def test_faults_of_a_lockstep_run_act_are_declared_and_repeat(onebeat, store, tmp_path):
    report, log = lockstep(onebeat, store, tmp_path / "one", *DELAYED)
    facts = {"action_delay_s": 0.02, "noise": 0.01, "seed": 3}
    assert report["plant"]["faults"] == log.header.plant["faults"] == facts
    assert log.header.config["plant"]["faults"]["action_delay_s"] == 0.02
    assert log.applied_tick[:5].tolist() == [-1, -1, -1, 0, 1]
    _, again = lockstep(onebeat, store, tmp_path / "two", *DELAYED)
    assert (again.flat_observations() == log.flat_observations()).all()
    bare, clean = lockstep(onebeat, store, tmp_path / "three")
    assert bare["plant"]["faults"] == {}
    assert clean.applied_tick[:3].tolist() == [-1, 0, 1]


def test_faults_of_a_real_time_run_go_to_the_simulation(onebeat, store, tmp_path):
    done = onebeat(
        "run", f"task={TASK}", "seconds=1", f"out={tmp_path}", f"policy.bundle={store}",
        "plant.faults.observation_delay_s=0.02", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report, log = json.loads(done.stdout), read_log(tmp_path / "log.mcap")
    assert report["plant"] == {"substeps": 1, "faults": {"observation_delay_s": 0.02, "seed": 0}}
    assert 0.5 < report["real_time_factor"] <= 1.0
    assert report["late_steps"] >= 0
    ages_ns = (log.sent_ns - log.stamp_ns)[log.rung == Rung.FRESH]
    assert ages_ns.min() >= 20_000_000


def test_faults_for_a_plant_that_is_not_ours_to_start_are_refused(onebeat, store, tmp_path):
    done = onebeat(
        "run", f"task={TASK}", f"out={tmp_path}", f"policy.bundle={store}",
        "plant.endpoint=ipc:///tmp/nobody", "plant.faults.noise=0.1",
    )  # fmt: skip
    assert done.returncode != 0
    assert "plant.faults: the plant at ipc:///tmp/nobody is not started by this run" in done.stderr


class Breaking:
    """A task whose reward is NaN from step 40 of its second episode on."""

    def __init__(self):
        self._env = task_named(TASK).make_env()
        self._episodes = self._steps = 0

    def reset(self, *, seed=None, options=None):
        self._episodes, self._steps = self._episodes + 1, 0
        return self._env.reset(seed=seed, options=options)

    def step(self, action):
        self._steps += 1
        observation, reward, *rest = self._env.step(action)
        broken = self._episodes > 1 and self._steps >= 40
        return observation, math.nan if broken else reward, *rest

    def close(self):
        self._env.close()


def test_a_simulation_that_breaks_down_ends_the_run_in_fault(store, tmp_path):
    """Loop, policy server and recorder are real processes; the broken plant lives in this one."""
    plant = GymPlant(Breaking, task_named(TASK).spec(), episode_steps=600, dumps=tmp_path)
    stop = threading.Event()
    with RuntimeDirectory() as directory:
        endpoint = endpoint_for(directory, "p")
        server = RealTimeServer(plant, endpoint, MonotonicClock())
        thread = threading.Thread(target=server.run, args=(stop.is_set,))
        thread.start()
        config = RunConfig(
            task=TASK,
            seconds=20.0,
            out=str(tmp_path / "run"),
            plant=PlantSettings(endpoint=endpoint),
            policy=PolicySettings(bundle=str(store)),
        )
        try:
            with (
                LiveRun(config) as live,
                pytest.raises(RunFailed, match=r"unstable in step 40 of episode 1 .*\.npz"),
            ):
                live.wait(lambda status: False)
        finally:
            stop.set()
            thread.join(20)
    log = read_log(tmp_path / "run" / "log.mcap")
    assert not log.truncated
    assert log.mode[-1] == Mode.FAULT
    assert any("-> FAULT: plant failed" in event.detail for event in log.events)
    assert len(list(tmp_path.glob("unstable-*.npz"))) == 1


@contextlib.contextmanager
def served(endpoint: str, *words: str):
    child = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "sim", "serve", f"task={TASK}",
         f"endpoint={endpoint}", *words],
        cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=20)


def test_two_servers_side_by_side_and_none_on_top_of_another():
    clock = MonotonicClock()
    with RuntimeDirectory() as directory, contextlib.ExitStack() as stack:
        endpoints = [endpoint_for(directory, name) for name in ("a", "b")]
        for endpoint, seed in zip(endpoints, (1, 2), strict=True):
            stack.enter_context(served(endpoint, f"seed={seed}"))
        starts = []
        for endpoint in endpoints:
            plant = RemotePlant(endpoint, clock, connect_timeout_s=30.0)
            stack.callback(plant.close)
            plant.connect()
            starts.append(plant.observe().arrays[0].tolist())
        assert starts[0] != starts[1], "two seeds, two plants"
        with served(endpoints[0]) as third:
            assert third.wait(30) != 0
            said = third.stderr.read()
    assert said.strip() == f"onebeat sim serve: {endpoints[0]}: in use by another server"
