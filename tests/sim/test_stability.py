"""A simulation that breaks down: found at once, its states kept, the run in FAULT."""

import tempfile
import threading

import mujoco
import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.endpoints import endpoint_for
from controller.errors import PlantFailed
from controller.log_reader import read_log
from controller.loop import ControlLoop, LoopConfig
from controller.remote_plant import RemotePlant
from controller.session import run_lockstep
from controller.settings import RunConfig
from controller.spec import ArraySpec, Spec
from controller.testing import FakePolicy, ListSink
from controller.types import Mode, Reason, Rung
from sim.errors import SimError, SimulationUnstable
from sim.gym_plant import GymPlant
from sim.server import RealTimeServer
from sim.stability import KEPT, dump

SPEC = Spec(
    task="rocket",
    observation=(ArraySpec("height", (1,)), ArraySpec("speed", (1,))),
    action=ArraySpec("thrust", (1,), "float32", low=(-1.0,), high=(1.0,)),
    rate_hz=100.0,
)
MODEL = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody><body><joint name="lift" type="slide" axis="0 0 1" {joint}/>
    <geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor joint="lift" gear="{gear}"/></actuator>
</mujoco>
"""


class Rocket:
    """A mass on a slide; with a spring too stiff for its time step it oscillates to infinity.

    Args:
        joint: attributes of the joint.
        gear: force per action.
        spoil: step at which the observation, or the reward, is NaN while the state is not.
    """

    def __init__(self, joint="", gear=1.0, spoil=None, part="observation"):
        self.model = mujoco.MjModel.from_xml_string(MODEL.format(joint=joint, gear=gear))
        self.data = mujoco.MjData(self.model)
        self.spoil, self.part, self.steps = spoil, part, 0

    def reset(self, *, seed=None, options=None):
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = 0.01
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        self.steps += 1
        spoilt = self.steps == self.spoil
        seen = self.seen()
        if spoilt and self.part == "observation":
            seen["speed"] = np.full(1, np.inf)
        reward = np.nan if spoilt and self.part == "reward" else 1.0
        return seen, reward, False, False, {}

    def seen(self):
        return {"height": self.data.qpos, "speed": self.data.qvel}

    def close(self):
        pass


STIFF = 'stiffness="100000" damping="0"'
"""ω·h = 316 · 0.01 = 3.2: beyond 2 the semi-implicit Euler step is unstable."""


def plant(tmp_path, episode_steps=1000, **options):
    return GymPlant(lambda: Rocket(**options), SPEC, episode_steps=episode_steps, dumps=tmp_path)


def until_it_breaks(plant, action=0.5):
    plant.reset(1)
    seen = [plant.observe()]
    for tick in range(5000):
        try:
            plant.command(np.full(1, action, np.float32), tick)
        except SimulationUnstable as error:
            return seen, str(error)
        seen.append(plant.observe())
    raise AssertionError("it never broke")


def test_a_state_that_explodes_is_found_and_what_led_there_is_kept(tmp_path):
    broken = plant(tmp_path, joint=STIFF)
    seen, message = until_it_breaks(broken)
    last = seen[-1].step
    path = tmp_path / f"unstable-rocket-episode0-step{last + 1}.npz"
    assert message == (
        f"rocket: the simulation became unstable in step {last + 1} of episode 0 "
        f"(NaN, infinite or huge qacc); the {len(seen)} states before it are in {path}"
    )
    with np.load(path, allow_pickle=False) as kept:
        assert set(kept) == {"step", "qpos", "qvel", "action"}
        assert kept["step"].tolist() == list(range(len(seen)))
        assert kept["qpos"].tolist() == [one.arrays[0].tolist() for one in seen]
        assert kept["qvel"].tolist() == [one.arrays[1].tolist() for one in seen]
        assert np.abs(kept["qpos"]).max() < 1e10, "MuJoCo gives up beyond that"
        assert kept["action"].dtype == np.float32
        assert (kept["action"] == 0.5).all()


def test_states_of_an_earlier_episode_are_not_kept(tmp_path):
    broken = plant(tmp_path, joint=STIFF)
    broken.reset(0)
    for tick in range(4):
        broken.command(np.full(1, 0.5, np.float32), tick)
    seen, _ = until_it_breaks(broken)
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as kept:
        assert kept["step"].tolist() == list(range(len(seen)))
        assert kept["qpos"].tolist() == [one.arrays[0].tolist() for one in seen]


def test_only_the_last_states_are_kept(tmp_path):
    """A spring just beyond stability takes long to get there."""
    broken = plant(tmp_path, joint='stiffness="40010" damping="0"')
    seen, _ = until_it_breaks(broken)
    (path,) = tmp_path.iterdir()
    assert len(seen) > KEPT
    with np.load(path, allow_pickle=False) as kept:
        assert kept["step"].tolist() == list(range(len(seen) - KEPT, len(seen)))
        assert kept["qpos"].tolist() == [one.arrays[0].tolist() for one in seen[-KEPT:]]


@pytest.mark.parametrize("part", ["observation", "reward"])
def test_a_number_that_is_not_finite_is_found_whoever_made_it(tmp_path, part):
    broken = plant(tmp_path, spoil=4, part=part)
    seen, message = until_it_breaks(broken)
    assert seen[-1].step == 3
    assert "in step 4 of episode 0 (the observation or the reward is not finite)" in message


@pytest.mark.filterwarnings("ignore:overflow")
def test_large_but_finite_numbers_are_no_trouble(tmp_path):
    """The square of 1e200 overflows, and 1e200 does not."""

    class Far(Rocket):
        def seen(self):
            return {"height": np.full(1, 1e200), "speed": np.full(1, -1e200)}

    far = GymPlant(Far, SPEC, episode_steps=10, dumps=tmp_path)
    far.reset(0)
    far.command(np.zeros(1), 0)
    assert far.observe().step == 1


def test_an_unstable_plant_is_over_until_it_is_reset(tmp_path):
    broken = plant(tmp_path, joint=STIFF)
    _, message = until_it_breaks(broken)
    for look in (broken.observe, lambda: broken.command(np.zeros(1), 0)):
        with pytest.raises(SimulationUnstable) as caught:
            look()
        assert str(caught.value) == message
    broken.reset(2)
    assert (broken.observe().episode, broken.observe().step) == (1, 0)
    broken.command(np.zeros(1), 0)
    assert broken.observe().step == 1


def test_states_are_dumped_once(tmp_path):
    broken = plant(tmp_path, joint=STIFF)
    until_it_breaks(broken)
    _, message = until_it_breaks(broken)
    assert message.endswith("; its states were dumped at an earlier failure")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dump_replaces_nothing(tmp_path):
    for _ in range(2):
        until_it_breaks(plant(tmp_path, joint=STIFF))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"unstable-rocket-episode0-step9.npz", "unstable-rocket-episode0-step9-2.npz"}


def test_a_directory_that_takes_nothing_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    said = dump({"step": np.zeros(1)}, tmp_path / "file" / "x", "task")
    assert said.startswith("the states before it could not be written: ")


def test_names_become_file_names(tmp_path):
    said = dump({"step": np.zeros(3)}, tmp_path / "new", "a b/../c")
    assert said == f"the 3 states before it are in {tmp_path / 'new' / 'unstable-a-b-..-c.npz'}"


def test_an_environment_without_physics_keeps_its_actions(tmp_path):
    class Bare:
        def reset(self, *, seed=None, options=None):
            return {"height": np.zeros(1), "speed": np.zeros(1)}, {}

        def step(self, action):
            return {"height": np.full(1, np.nan), "speed": np.zeros(1)}, 0.0, False, False, {}

        def close(self):
            pass

    bare = GymPlant(Bare, SPEC, episode_steps=10, dumps=tmp_path)
    until_it_breaks(bare)
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as kept:
        assert set(kept) == {"step", "action"}


def test_an_exception_of_the_environment_upon_a_broken_state_is_the_same_failure(tmp_path):
    class Raising(Rocket):
        def step(self, action):
            result = super().step(action)
            if self.data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number:
                raise RuntimeError("physics error")
            return result

    broken = GymPlant(lambda: Raising(STIFF), SPEC, episode_steps=1000, dumps=tmp_path)
    _, message = until_it_breaks(broken)
    assert "huge qacc" in message


def test_another_exception_of_the_environment_stays_what_it_is(tmp_path):
    class Raising(Rocket):
        def step(self, action):
            raise RuntimeError("a bug")

    other = GymPlant(Raising, SPEC, episode_steps=10, dumps=tmp_path)
    other.reset(0)
    with pytest.raises(RuntimeError, match="a bug"):
        other.command(np.zeros(1), 0)


def test_a_first_observation_that_is_not_finite_is_no_episode(tmp_path):
    class Born(Rocket):
        def seen(self):
            return {"height": np.full(1, np.nan), "speed": np.zeros(1)}

    with pytest.raises(SimulationUnstable, match="in step 0 of episode 0"):
        GymPlant(Born, SPEC, episode_steps=10, dumps=tmp_path).reset(0)


def test_it_is_an_error_of_the_simulation_a_failed_plant_and_arithmetic():
    error = SimulationUnstable("x")
    for kind in (SimError, PlantFailed, ArithmeticError):
        assert isinstance(error, kind)


def test_mujoco_writes_no_log_into_the_working_directory(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    until_it_breaks(plant(tmp_path / "dumps", joint=STIFF))
    assert [path.name for path in tmp_path.iterdir()] == ["dumps"]
    assert "WARNING" not in "".join(capfd.readouterr())


# Runs.


class Steady(FakePolicy):
    """Asks for half thrust."""

    def _actions(self, request):
        return np.full((1, 1), 0.5, np.float32)


def test_a_lockstep_run_ends_in_fault_and_its_log_says_why(tmp_path):
    config = RunConfig(mode="lockstep", seconds=50.0, task="rocket")
    log = tmp_path / "log.mcap"
    with pytest.raises(PlantFailed, match="the simulation became unstable in step"):
        run_lockstep(config, plant(tmp_path, joint=STIFF), Steady(SPEC), log)
    found = read_log(log)
    assert not found.truncated
    assert found.mode[-1] == Mode.FAULT
    assert found.rung[-1] == Rung.STOP
    assert found.reasons[-1] & Reason.PLANT_FAILED
    (fault,) = [one.detail for one in found.events if "-> FAULT" in one.detail]
    assert fault.startswith("RUN -> FAULT: plant failed (rocket: the simulation became unstable")
    assert ".npz" in fault
    assert np.isfinite(found.flat_observations()).all()
    assert len(found.transitions()) == found.step[-1] > 5, "what came before is training data"


def test_a_real_time_run_ends_in_fault_and_the_server_lives_on(tmp_path):
    clock = MonotonicClock()
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as directory:
        endpoint = endpoint_for(directory, "s")
        stop = threading.Event()
        server = RealTimeServer(plant(tmp_path, joint=STIFF), endpoint, clock)
        thread = threading.Thread(target=server.run, args=(stop.is_set,))
        thread.start()
        remote = RemotePlant(endpoint, clock, connect_timeout_s=20.0)
        sink = ListSink()
        try:
            loop = ControlLoop(remote, Steady(SPEC), sink, clock, LoopConfig(linger_s=0.05), seed=0)
            with pytest.raises(PlantFailed, match=r"unstable in step \d+ of episode 1 .*\.npz"):
                loop.run(ticks=1000)
        finally:
            remote.close()
            stop.set()
            thread.join(20)
    assert any("RUN -> FAULT: plant failed (rocket: the" in detail for _, _, detail in sink.events)
    assert sink.records[-1].mode is Mode.FAULT
