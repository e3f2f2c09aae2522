"""The verbs of ``onebeat data``, and ``show``, as a person types them."""

import json
import os

import h5py
import numpy as np
import pytest

from controller.transitions import Transitions, layout_of
from policies.data.d4rl import load_d4rl, write_d4rl
from policies.data.minari import load_minari
from policies.data.names import published
from sim.registry import task_spec
from tests.policies.data.servers import Behaviour, serving

FIRST = ("task", "episodes", "steps", "return_mean", "return_std", "length_mean", "score_mean")
TASK = "pointmaze-umaze"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without datasets; programs started by a test see it too."""
    for name in ("ONEBEAT_DATA", "ONEBEAT_DATA_URL", "D4RL_DATASET_DIR", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ONEBEAT_DATASETS", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "PYTHONHOME" not in os.environ


@pytest.fixture
def maze(tmp_path):
    spec, rng = task_spec(TASK), np.random.default_rng(0)
    width = sum(array.size for array in spec.observation)
    ends = np.arange(1, 61) % 20 == 0
    data = Transitions(
        observations=rng.standard_normal((60, width)).astype(np.float32),
        actions=rng.uniform(-1, 1, (60, 2)).astype(np.float32),
        rewards=(rng.random(60) < 0.5).astype(np.float32),
        next_observations=rng.standard_normal((60, width)).astype(np.float32),
        terminals=np.zeros(60, bool),
        timeouts=ends,
        layout=layout_of(spec),
        task=TASK,
    )
    write_d4rl(tmp_path / "maze.hdf5", data, spec, {"seed": 4})
    return tmp_path / "maze.hdf5"


def facts_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_inspect_for_programs(onebeat, maze, tmp_path):
    picture = tmp_path / "deep" / "maze.png"
    facts = facts_of(onebeat("data", "inspect", maze, f"out={picture}", "--json"))
    assert tuple(facts)[:8] == (*FIRST, "warnings")
    assert (facts["task"], facts["episodes"], facts["steps"]) == (TASK, 3, 60)
    assert facts["warnings"] == []
    assert facts["attributes"] == {"seed": 4}
    assert facts["digest"] == load_d4rl(maze).transitions.digest()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_survives_and_names_what_is_wrong(onebeat, maze):
    with h5py.File(maze, "a") as file:
        file["actions"][7, 1] = 3.0
        file["rewards"][9] = np.nan
        file["observations"][40:60] = file["observations"][0:20]
        file["actions"][40:60] = file["actions"][0:20]
    done = onebeat("data", "inspect", maze, "--json")
    facts = facts_of(done)
    text = "\n".join(facts["warnings"])
    assert facts["return_mean"] is None
    assert "rewards: not finite in 1 rows, first 9" in text
    assert "element 1 is 3, allowed -1 to 1" in text
    assert "1 episodes are copies of another one: episode 2 of episode 0" in text
    shown = onebeat("data", "inspect", maze)
    assert "█" in shown.stdout
    assert "! rewards: not finite" in shown.stdout
    trained = onebeat("train", f"data={maze}", f"task={TASK}")
    assert trained.returncode == 1
    assert "rewards is not finite in 1 of 60 rows, first in row 9" in trained.stderr


def test_data_of_another_task_is_refused(onebeat, maze):
    done = onebeat("data", "inspect", maze, "task=kitchen-complete")
    assert done.returncode == 1
    assert "describe different robots" in done.stderr
    assert done.stderr.count("\n") == 1


def test_export_there_and_back(onebeat, maze, tmp_path):
    first, second = tmp_path / "maze-v0", tmp_path / "again.hdf5"
    out = facts_of(onebeat("data", "export", maze, f"out={first}", "--json"))
    assert (out["format"], out["episodes"], out["steps"]) == ("minari", 3, 60)
    back = facts_of(onebeat("data", "export", first, f"out={second}", "--json"))
    assert back["format"] == "d4rl"
    original, again = load_d4rl(maze), load_d4rl(second)
    assert out["digest"] == back["digest"] == original.transitions.digest()
    assert again.transitions.digest() == original.transitions.digest()
    assert (again.spec, again.attributes["seed"]) == (original.spec, 4)
    assert load_minari(first).transitions.digest() == original.transitions.digest()
    twice = onebeat("data", "export", maze, f"out={first}")
    assert twice.returncode == 2
    assert "is there already" in twice.stderr


def test_export_of_a_file_that_does_not_say_its_task(onebeat, maze, tmp_path):
    bare = tmp_path / "bare.hdf5"
    with h5py.File(maze) as source, h5py.File(bare, "w") as target:
        for name in source:
            source.copy(name, target)
    out = tmp_path / "out.hdf5"
    done = onebeat("data", "export", bare, f"out={out}")
    assert done.returncode == 2
    assert "does not say which task it is of; name it" in done.stderr
    assert onebeat("data", "export", bare, f"out={out}", f"task={TASK}").returncode == 0
    assert load_d4rl(out).spec == task_spec(TASK)


def test_show_draws_a_dataset_beside_it(onebeat, maze):
    facts = facts_of(onebeat("show", maze, "--json"))
    assert facts["picture"] == str(maze.with_suffix(".png"))
    assert maze.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_fetch_and_open_by_name(onebeat, tmp_path, monkeypatch):
    path = tmp_path / "hopper.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal((50, 11))
        file["actions"] = rng.uniform(-1, 1, (50, 3))
        file["rewards"] = np.ones(50)
        file["terminals"] = np.arange(50) == 24
        file["timeouts"] = np.arange(50) == 49
    name = "hopper-medium-v2"
    with serving(Behaviour({f"/{published()[name].path}": path.read_bytes()})) as base:
        monkeypatch.setenv("ONEBEAT_DATA_URL", base)
        facts = facts_of(onebeat("data", "inspect", name, "--json"))
    assert (facts["task"], facts["dataset"], facts["episodes"]) == ("hopper", name, 2)
    # Returns of 25 and 24 on D4RL's scale, from -20.272305 to 3234.3.
    assert facts["score_mean"] == pytest.approx(100 * (24.5 + 20.272305) / (3234.3 + 20.272305))
    assert (tmp_path / "cache" / f"{name}.hdf5").read_bytes() == path.read_bytes()
    again = facts_of(onebeat("data", "fetch", name, "--json"))
    assert (again["checked"], again["downloaded"]) == ("first download", False)
    unknown = onebeat("data", "fetch", "hoper-medium-v2")
    assert unknown.returncode == 2
    assert "did you mean hopper-medium-v2" in unknown.stderr


def test_offline_is_one_line_that_says_what_to_do(onebeat):
    done = onebeat("data", "fetch", "hopper-medium-v2", "url=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "pass the file's path instead of hopper-medium-v2" in done.stderr
