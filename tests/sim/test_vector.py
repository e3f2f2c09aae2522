"""Copies in lockstep: the same as the plants they are made of, however they are divided."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from controller.errors import ConfigError, PlantLost
from controller.interfaces import VectorPlant
from controller.spec import ArraySpec, Spec
from sim import errors
from sim.registry import make_plant
from sim.vector import make_vector
from sim.vector_copies import Copies, Fault, block_in, block_size, episode_seed

TASK = "pointmaze-umaze"
FIELDS = (
    "observations",
    "next_observations",
    "rewards",
    "terminated",
    "truncated",
    "success",
    "episode_returns",
    "episode_steps",
)


def actions_of(vector, steps: int, seed: int = 5):
    random = np.random.default_rng(seed)
    shape = (steps, vector.num, *vector.spec.action.shape)
    return random.uniform(-1, 1, shape).astype(vector.spec.action.dtype)


def drive(vector, steps: int = 12, seed: int | None = 4) -> dict[str, np.ndarray]:
    """Return what a drive gave, stacked by step; the starts are observations[0]."""
    start = vector.reset(seed)
    seen = [vector.step(actions) for actions in actions_of(vector, steps)]
    columns = {name: np.stack([getattr(each, name) for each in seen]) for name in FIELDS}
    return columns | {"start": start}


def flat(observation) -> np.ndarray:
    return np.concatenate([array.ravel() for array in observation.arrays])


@pytest.fixture
def vector():
    with make_vector(TASK, 3, processes=1, episode_steps=5) as made:
        yield made


def test_each_copy_is_the_plant_with_seeds_of_its_own(vector):
    got = drive(vector)
    actions = actions_of(vector, 12)
    for copy in range(3):
        plant, episode = make_plant(TASK, episode_steps=5), 0
        plant.reset(episode_seed(4, copy, 0))
        assert np.array_equal(got["start"][copy], flat(plant.observe()))
        for step in range(12):
            plant.command(actions[step, copy], step)
            seen = plant.observe()
            row = {name: got[name][step, copy] for name in FIELDS}
            assert np.array_equal(row["next_observations"], flat(seen))
            assert row["rewards"] == seen.reward
            assert (row["terminated"], row["truncated"]) == (seen.terminated, seen.truncated)
            assert (row["episode_returns"], row["episode_steps"]) == (
                seen.episode_return,
                seen.step,
            )
            assert row["success"] == seen.success
            if seen.done:
                episode += 1
                plant.reset(episode_seed(4, copy, episode))
            assert np.array_equal(row["observations"], flat(plant.observe()))
    assert got["truncated"].sum(axis=0).tolist() == [2, 2, 2]


@pytest.mark.parametrize("processes", [0, 2, 3, 9])
def test_results_do_not_depend_on_the_number_of_processes(vector, processes):
    expected = [drive(vector), drive(vector, seed=None)]
    with make_vector(TASK, 3, processes=processes, episode_steps=5) as other:
        assert isinstance(other, VectorPlant)
        assert len(other._workers) == max(0, min(processes, 3) - 1)
        for wanted in expected:
            got = drive(other, seed=4 if wanted is expected[0] else None)
            assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    assert not np.array_equal(expected[0]["start"], expected[1]["start"])


def test_a_seed_determines_what_follows_and_the_first_seed_is_the_makers(vector):
    first, second = drive(vector, seed=4), drive(vector, seed=8)
    again = drive(vector, seed=4)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["start"], second["start"])
    with make_vector(TASK, 3, processes=1, seed=8, episode_steps=5) as other:
        assert np.array_equal(other.reset(), second["start"])


def test_arrays_belong_to_the_caller(vector):
    start = vector.reset(0)
    kept = start.copy()
    first = vector.step(actions_of(vector, 1)[0])
    before = {name: getattr(first, name).copy() for name in FIELDS}
    vector.step(-actions_of(vector, 1)[0])
    assert np.array_equal(start, kept)
    assert all(np.array_equal(getattr(first, name), before[name]) for name in FIELDS)
    assert first.rewards.flags.owndata


def test_seeds_of_episodes_are_their_own():
    seeds = {episode_seed(s, c, e) for s in range(10) for c in range(10) for e in range(10)}
    # 1000 draws of 32 bits: a collision has a chance of about 1e-4.
    assert len(seeds) == 1000
    assert episode_seed(3, 1, 4) == int(np.random.SeedSequence([3, 1, 4]).generate_state(1)[0])


def test_bad_actions_are_named_and_harm_nothing(vector):
    vector.reset(0)
    with pytest.raises(errors.ActionMismatch, match=r"shape \(2, 2\), expected \(3, 2\)"):
        vector.step(np.zeros((2, 2)))
    bad = np.zeros((3, 2))
    bad[1, 0] = np.nan
    with pytest.raises(errors.ActionMismatch, match=r"copy 1 is not finite: \[nan, 0.0\]"):
        vector.step(bad)
    assert vector.step(np.zeros((3, 2))).episode_steps.tolist() == [1, 1, 1]


def test_a_step_needs_a_reset_and_an_open_vector(vector):
    with pytest.raises(errors.EpisodeOver, match="reset first"):
        vector.step(np.zeros((3, 2)))
    vector.reset(0)
    vector.close()
    vector.close()
    for act in (vector.reset, lambda: vector.step(np.zeros((3, 2)))):
        with pytest.raises(PlantLost, match="closed"):
            act()


ROCKET = """
<mujoco>
  <option gravity="0 0 0"/>
  <worldbody><body><joint name="lift" type="slide"/><geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor name="thrust" joint="lift" ctrlrange="-1 1" gear="1e12"/></actuator>
</mujoco>
"""
ROBOT = """
model: rocket.xml
rate_hz: 100
episode_seconds: 1
observation: [{name: height, from: joint_positions}]
reward: rocket.py:none
"""


@pytest.fixture
def rocket(tmp_path):
    """A robot of one's own that no integrator can follow once it is pushed."""
    (tmp_path / "rocket.xml").write_text(ROCKET)
    (tmp_path / "rocket.py").write_text("def none(model, data, action):\n    return 0.0\n")
    (tmp_path / "rocket.yaml").write_text(ROBOT)
    return str(tmp_path / "rocket.yaml")


@pytest.mark.parametrize("processes", [1, 3])
def test_a_fault_of_a_copy_is_the_same_error_from_any_process(processes, rocket, tmp_path):
    with make_vector(rocket, 3, processes=processes, dumps=str(tmp_path / "dumps")) as vector:
        vector.reset(0)
        rest, push = np.zeros((3, 1)), np.array([[0.0], [0.0], [1.0]])
        vector.step(rest)
        message = rf"copy 2: {rocket}: the simulation became unstable in step 2 of episode 0"
        with pytest.raises(errors.SimulationUnstable, match=message):
            vector.step(push)
        assert len(list((tmp_path / "dumps").iterdir())) == 1
        with pytest.raises(errors.EpisodeOver, match="reset first"):
            vector.step(rest)
        vector.reset()
        assert vector.step(rest).episode_steps.tolist() == [1, 1, 1]


def test_an_error_of_another_kind_is_told_with_its_kind():
    class Broken:
        def begin(self, seed, take):
            raise ZeroDivisionError("one by\nnothing")

    spec = Spec("b", (ArraySpec("o", (1,)),), ArraySpec("a", (1,)), 10.0)
    block = block_in(bytearray(block_size(spec, 2)), spec, 2)
    fault = Copies([Broken()], spec, block, 1, 0).reset()
    assert fault == Fault(1, "ZeroDivisionError", "one by")


def test_the_columns_of_a_block_do_not_overlap():
    spec = Spec(
        "b",
        (ArraySpec("x", (3,)), ArraySpec("y", (2, 2), "float32")),
        ArraySpec("a", (5,), "float32"),
        10.0,
    )
    block = block_in(bytearray(block_size(spec, 3)), spec, 3)
    for number, column in enumerate(block):
        column[...] = number % 2 if column.dtype == bool else number
    for number, column in enumerate(block):
        assert (column == (number % 2 if column.dtype == bool else number)).all()
    assert block.observations.shape == (3, 7)
    assert block.actions.dtype == np.float32


def test_a_process_that_dies_is_an_error_and_ends_the_others():
    vector = make_vector(TASK, 3, processes=3)
    vector.reset(0)
    first, second = (worker.child for worker in vector._workers)
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(PlantLost, match=r"process of copies 1 to 1 died \(killed by SIGKILL\)"):
        vector.step(np.zeros((3, 2)))
    assert second.poll() is not None
    with pytest.raises(PlantLost, match="closed"):
        vector.reset()
    vector.close()


def test_an_interrupt_in_the_middle_ends_the_processes(monkeypatch):
    vector = make_vector(TASK, 2, processes=2)
    vector.reset(0)
    (child,) = (worker.child for worker in vector._workers)

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(vector._own, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vector.step(np.zeros((2, 2)))
    assert child.poll() is not None
    with pytest.raises(PlantLost, match="closed"):
        vector.step(np.zeros((2, 2)))


def test_nobody_is_left_behind_when_the_caller_is_killed():
    code = (
        "import sys, time\nfrom sim.vector import make_vector\n"
        f"vector = make_vector('{TASK}', 2, processes=2)\n"
        "sys.stdout.write(f'{vector._workers[0].child.pid}\\n'); sys.stdout.flush()\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as caller:
        worker = int(caller.stdout.readline())
        assert _runs(worker)
        caller.kill()
    deadline = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_bad_requests_start_no_process():
    with pytest.raises(ConfigError, match="num=0"):
        make_vector(TASK, 0)
    with pytest.raises(ConfigError, match="pointmaze-umaze"):
        make_vector("pointmaze-umase", 2)
    with pytest.raises(ConfigError, match="no option colour"):
        make_vector(TASK, 2, processes=2, colour="red")
    with pytest.raises(ConfigError, match="expected numbers, texts and lists"):
        make_vector(TASK, 2, goal_cell=object())


def test_options_reach_every_process():
    with make_vector(TASK, 2, processes=2, goal_cell=(1, 1)) as vector:
        goals = vector.reset(0)[:, -2:]
    assert np.abs(goals - goals[0]).max() <= 0.5  # Within ±0.25 m of one cell's centre.
