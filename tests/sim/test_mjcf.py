"""A robot of one's own: the shipped example, physics by hand, and what is said of bad files."""

import shutil
from pathlib import Path

import mujoco
import numpy as np
import pytest

from controller.errors import ConfigError
from sim.check import check_task
from sim.generate.dataset import generate
from sim.mjcf import is_robot_file, task_of_file
from sim.registry import make_plant, task_named
from sim.settings import GenerateConfig
from sim.vector import make_vector

ARM = Path(__file__).parents[2] / "configs" / "robots" / "arm" / "robot.yaml"
MASS_KG, TIMESTEP_S = 2.0, 0.01

SLIDER = f"""
<mujoco>
  <option timestep="{TIMESTEP_S}" gravity="0 0 0" integrator="INTEGRATOR"/>
  <worldbody>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom type="sphere" size="0.1" mass="{MASS_KG}"/>
      <site name="tip" pos="0.5 0 0"/>
    </body>
    <body name="ball" pos="0 3 0">
      <freejoint name="loose"/>
      <geom type="sphere" size="0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="push" joint="rail" ctrlrange="-3 3"/>
    <motor name="other" joint="rail" gear="0"/>
    <position name="unlimited" joint="rail" kp="0"/>
  </actuator>
  <sensor>
    <velocimeter name="speed" site="tip"/>
    <jointpos name="place" joint="rail"/>
  </sensor>
  <keyframe>
    <key name="moving" qpos="1 0 3 0 1 0 0 0" qvel="0.5 0 0 0 0 0 0"/>
  </keyframe>
</mujoco>
"""
SETTINGS = """
model: cart.xml
rate_hz: 25
episode_seconds: 2
observation:
  - {name: place, from: joint_positions, of: [rail], unit: m}
  - {name: speed, from: joint_velocities, of: [rail]}
  - {name: tip, from: site_positions}
  - {name: felt, from: sensors, of: [place, speed]}
action: [{name: push, low: -2}]
unit: N
reset: {keyframe: moving}
reward: cart.py:far
"""
REWARDS = """
import dataclasses

@dataclasses.dataclass
class Judgement:
    reward: float

def far(model, data, action):
    return Judgement(data.qpos[0]).reward

def ends(model, data, action):
    return data.qpos[0], data.qpos[0] > 1.5

def succeeds(model, data, action):
    return action[0], False, data.time > 0.1

def broken(model, data, action):
    return 1 / 0

def silent(model, data, action):
    pass

def four(model, data, action):
    return 1, 2, 3, 4

number = 3
"""


@pytest.fixture
def write(tmp_path):
    """Write a robot with some texts replaced; return the path of its YAML."""

    def write(*replaced: tuple[str, str], integrator: str = "Euler") -> str:
        (tmp_path / "cart.xml").write_text(SLIDER.replace("INTEGRATOR", integrator))
        (tmp_path / "cart.py").write_text(REWARDS)
        text = SETTINGS
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "cart.yaml"
        path.write_text(text)
        return str(path)

    return write


def begun(name: str, seed: int = 0):
    plant = make_plant(name)
    plant.reset(seed)
    return plant


def test_the_example_keeps_every_promise():
    check_task(str(ARM))


def test_the_example_is_what_its_file_says(monkeypatch):
    monkeypatch.chdir(ARM.parents[3])
    task = task_named("configs/robots/arm/robot.yaml")
    spec = task.spec()
    assert (task.name, spec.task) == ("configs/robots/arm/robot.yaml",) * 2
    assert [(a.name, a.shape, a.unit) for a in spec.observation] == [
        ("angles", (2,), "rad"),
        ("speeds", (2,), "rad/s"),
        ("hand", (3,), "m"),
        ("target", (3,), "m"),
    ]
    assert spec.observation[2].elements == ("hand.x", "hand.y", "hand.z")
    assert (spec.action.low, spec.action.high) == ((-0.1, -0.05), (0.1, 0.05))
    assert (spec.action.elements, spec.action.unit) == (("shoulder", "elbow"), "N m")
    assert (spec.rate_hz, task.episode_steps, task.physics_steps) == (50.0, 200, 10)
    assert task.has_success


def test_the_hand_is_where_the_angles_put_it():
    """Forward kinematics of the arm by hand, at every step and not one behind it."""
    plant = begun(str(ARM))
    random = np.random.default_rng(0)
    distances = []
    for tick in range(50):
        angles, _, hand, target = plant.observe().arrays
        first, both = angles[0], angles[0] + angles[1]
        expected = 0.12 * np.array([np.cos(first), np.sin(first)])
        expected += 0.1 * np.array([np.cos(both), np.sin(both)])
        assert hand[:2] == pytest.approx(expected, abs=1e-12)
        action = random.uniform(-0.05, 0.05, 2)
        plant.command(action, tick)
        _, _, hand, target = plant.observe().arrays
        distances.append(np.linalg.norm(hand - target))
        assert plant.observe().reward == pytest.approx(-distances[-1] - 0.1 * action @ action)
    assert not plant.observe().success
    assert np.std(distances) > 0


def test_the_target_stays_where_its_episode_has_it():
    places = []
    for seed in range(20):
        plant = begun(str(ARM), seed)
        before = plant.observe().arrays[3]
        for tick in range(20):
            plant.command(np.array([0.1, 0.05]), tick)
        assert np.array_equal(plant.observe().arrays[3], before)
        places.append(before)
    offset = np.abs(np.array(places) - [0.1, 0.1, 0.03])
    assert 0.03 < offset[:, :2].max() <= 0.04
    assert offset[:, 2].max() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("integrator", ["Euler", "RK4", "implicitfast"])
def test_a_constant_force_is_newtons_law(write, integrator):
    plant = begun(write(integrator=integrator))
    force, start, speed = 1.5, 1.0, 0.5
    for tick in range(5):
        plant.command(np.array([force]), tick)
    steps = 5 * 4
    time_s = steps * TIMESTEP_S
    acceleration = force / MASS_KG
    moved = speed * time_s + acceleration * time_s**2 / 2
    if integrator != "RK4":  # Semi-implicit: the new speed moves the cart.
        moved += acceleration * time_s * TIMESTEP_S / 2
    place, velocity, tip, felt = plant.observe().arrays
    assert velocity[0] == pytest.approx(speed + acceleration * time_s, rel=1e-12)
    assert place[0] == pytest.approx(start + moved, rel=1e-12)
    # What depends on the state is of this moment, not of a timestep before.
    assert tip == pytest.approx([place[0] + 0.5, 0.0, 0.0], abs=1e-14)
    assert felt == pytest.approx([place[0], velocity[0], 0.0, 0.0], abs=1e-14)
    assert plant.spec.observation[3].elements == ("place", "speed.x", "speed.y", "speed.z")
    assert plant.observe().reward == place[0]


@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
def test_a_command_can_change_between_timesteps(write, integrator):
    plant = begun(write(integrator=integrator))
    assert plant.physics_steps == 4
    given = iter([0.0, 2.0, -1.0])
    plant.between = lambda: np.array([next(given)])
    plant.command(np.array([1.0]), 0)
    impulse = TIMESTEP_S * (1.0 + 0.0 + 2.0 - 1.0)
    assert plant.observe().arrays[1][0] == pytest.approx(0.5 + impulse / MASS_KG, rel=1e-12)
    assert next(given, None) is None


def test_an_action_is_clipped_to_the_given_and_the_models_limits(write):
    plant = begun(write(("far", "succeeds")))
    assert (plant.spec.action.low, plant.spec.action.high) == ((-2.0,), (3.0,))
    for tick, (action, acted) in enumerate([(-9.0, -2.0), (9.0, 3.0)]):
        plant.command(np.array([action]), tick)
        assert plant.env.data.ctrl.tolist() == [acted, 0.0, 0.0]
        assert plant.observe().reward == acted


def test_all_actuators_are_commanded_unless_some_are_named(write):
    spec = task_of_file(write(("action: [{name: push, low: -2}]\n", ""))).spec()
    assert spec.action.elements == ("push", "other", "unlimited")
    assert (spec.action.low, spec.action.high) == ((-3.0, None, None), (3.0, None, None))


def test_noise_is_even_and_within_its_width(write):
    path = write(("{keyframe: moving}", "{position_noise: 0.2, velocity_noise: {rail: 0.3}}"))
    plant = make_plant(path)
    positions, velocities = [], []
    for seed in range(300):
        plant.reset(seed)
        positions.append(plant.env.data.qpos.copy())
        velocities.append(plant.env.data.qvel.copy())
    rail, quaternions = np.array(positions)[:, 0], np.array(positions)[:, 4:8]
    assert 0.19 < np.abs(rail).max() <= 0.2
    assert rail.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.1)
    # A rotation by up to 0.2 rad about each axis, not noise on four numbers.
    assert np.linalg.norm(quaternions, axis=1) == pytest.approx(1.0)
    angles = 2 * np.arccos(quaternions[:, 0])
    assert 0.2 < angles.max() <= 0.2 * np.sqrt(3)
    assert 0.28 < np.abs(velocities)[:, 0].max() <= 0.3
    assert np.abs(velocities)[:, 1:].max() == 0.0


def test_a_free_joint_has_seven_positions_and_six_velocities(write):
    arrays = (
        "place, from: joint_positions, of: [rail], unit: m",
        "place, from: joint_positions",
    )
    speeds = ("speed, from: joint_velocities, of: [rail]", "speed, from: joint_velocities")
    plant = begun(write(arrays, speeds))
    places, velocities = plant.spec.observation[:2]
    assert places.elements == (
        "rail",
        *(f"loose.{e}" for e in ["x", "y", "z", "qw", "qx", "qy", "qz"]),
    )
    assert velocities.elements == (
        "rail",
        *(f"loose.{e}" for e in ["x", "y", "z", "rx", "ry", "rz"]),
    )
    assert plant.observe().arrays[0].tolist() == [1, 0, 3, 0, 1, 0, 0, 0]


def test_a_reward_may_end_the_episode(write):
    plant = begun(write(("far", "ends")))
    assert not task_of_file(write(("far", "ends"))).has_success
    tick = 0
    while not plant.observe().done:
        plant.command(np.array([3.0]), tick)
        tick += 1
    assert plant.observe().terminated
    assert plant.observe().reward > 1.5


def test_a_reward_may_tell_success(write):
    plant = begun(write(("far", "succeeds")))
    seen = []
    for tick in range(4):
        plant.command(np.zeros(1), tick)
        seen.append(plant.observe().success)
    assert seen == [False, False, True, True]  # After 0.04, 0.08, 0.12, 0.16 s.


def test_a_rate_written_with_few_digits_is_made_exact(write):
    task = task_of_file(write(("rate_hz: 25", "rate_hz: 33.3333")))
    assert (task.physics_steps, task.spec().rate_hz) == (3, pytest.approx(100 / 3, rel=1e-15))
    assert task.episode_steps == 67


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "rate_hz: 25",
            "rate_hz: 30",
            r"rate_hz: .* 3.333 timesteps of 0.01 s.*nearest: 25 and 33",
        ),
        ("rate_hz: 25", "rate_hz: 300", r"rate_hz: .*nearest: 100"),
        ("rate_hz: 25", "rate_hz: 0", "rate_hz: expected"),
        ("rate_hz", "rate_h", r"rate_h: unknown key; did you mean rate_hz\?"),
        ("model: cart.xml", "model: car.xml", r"model: .*car.xml: no such file"),
        ("model: cart.xml", "model: cart.py", r"model: .*cart.py: .*XML"),
        ("model: cart.xml\n", "", "model: missing"),
        ("seconds: 2", "seconds: 0.001", "less than one control step"),
        ("of: [rail], unit", "of: [rial], unit", r"\[0\].of: rial is unknown; did you mean rail\?"),
        ("[place, speed]", "[plaze]", r"\[3\].of: plaze is unknown; did you mean place\?"),
        ("of: [rail], unit", "of: [], unit", r"observation\[0\].of: joint_positions of nothing"),
        ("joint_positions", "joint_position", "did you mean joint_positions"),
        ("name: speed", "name: place", r"observation\[1\].name: place is there twice"),
        ("name: push", "name: pull", r"action\[0\].name: pull is unknown; .*push"),
        ("low: -2", "low: -4", r"push from -4 to 3 goes beyond the model's ctrlrange of -3 to 3"),
        ("low: -2", "low: 3", "low must be below high"),
        ("low: -2}]", "low: -2}, {name: push}]", "an actuator is there twice"),
        ("keyframe: moving", "keyframe: resting", "reset.keyframe: resting is unknown; .*moving"),
        ("keyframe: moving", "position_noise: {rial: 1}", "reset.position_noise: rial is unknown"),
        ("keyframe: moving", "position_noise: -1", "reset.position_noise: expected"),
        ("cart.py:far", "cart.py", "expected FILE.py:FUNCTION"),
        ("cart.py:far", "car.py:far", r"reward: .*car.py: no such file"),
        ("cart.py:far", "cart.py:fat", r"no function fat; did you mean far\?"),
        ("cart.py:far", "cart.py:number", "no function number"),
        ("cart.py:far", "cart.py:broken", "broken fails in the initial state: ZeroDivisionError"),
        ("cart.py:far", "cart.py:silent", "silent returned None, expected a number"),
        ("cart.py:far", "cart.py:four", r"four returned \(1, 2, 3, 4\), expected a number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write, old, new, said):
    path = write((old, new))
    with pytest.raises(ConfigError, match=said) as caught:
        task_of_file(path)
    assert "cart.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reward_that_does_not_load(write, tmp_path):
    path = write()
    (tmp_path / "cart.py").write_text("import no_such_module_here")
    with pytest.raises(ConfigError, match=r"cart.yaml: reward: .*cart.py: ModuleNotFoundError"):
        task_of_file(path)


def test_no_such_file():
    assert is_robot_file("no/robot.yml")
    with pytest.raises(ConfigError, match=r"task no/robot.yml: no such file"):
        make_plant("no/robot.yml")


def test_one_file_has_one_name(write, tmp_path, monkeypatch):
    path = write()
    assert task_of_file(path).name == path
    monkeypatch.chdir(tmp_path)
    assert task_of_file(path).name == task_of_file("cart.yaml").name == "cart.yaml"
    plant = make_plant("./cart.yaml")
    monkeypatch.chdir("/")
    plant.reset(0)


def test_rewards_of_equal_names_do_not_mix(write, tmp_path):
    path = write()
    other = tmp_path / "other"
    shutil.copytree(tmp_path, other, ignore=shutil.ignore_patterns("other"))
    (other / "cart.py").write_text("def far(model, data, action):\n    return 7\n")
    first, second = begun(path), begun(str(other / "cart.yaml"))
    for plant in (first, second):
        plant.command(np.zeros(1), 0)
    assert (first.observe().reward == 7, second.observe().reward) == (False, 7.0)


def test_the_physics_can_be_looked_at():
    env = begun(str(ARM)).env
    assert isinstance(env.model, mujoco.MjModel)
    assert isinstance(env.data, mujoco.MjData)


def test_data_can_be_made_with_it(write):
    made = generate(GenerateConfig(task=write(), behaviour="random", steps=120, processes=1))
    assert made.name == "cart-random"
    assert made.data.layout == (("place", 1), ("speed", 1), ("tip", 3), ("felt", 4))
    assert np.flatnonzero(made.data.timeouts).tolist() == [49, 99, 119]
    assert made.data.actions.min() >= -2.0


def test_several_copies_run_at_once(write):
    name = write()
    vector, alone = make_vector(name, 2, processes=1), make_plant(name)
    seen = vector.reset(4)
    alone.reset(4)
    assert seen.shape == (2, 9)
    for tick in range(3):
        step = vector.step(np.ones((2, 1)))
        alone.command(np.ones(1), tick)
    assert step.rewards.tolist() == [alone.observe().reward] * 2
