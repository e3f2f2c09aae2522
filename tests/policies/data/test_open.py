"""One entry for every kind of source: path, directory, name on this machine, name to download."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from controller.errors import DataError, SpecMismatch
from controller.log_reader import read_log
from policies.data.d4rl import write_d4rl
from policies.data.minari_export import write_minari
from policies.data.open import is_dataset, locate, open_dataset, spec_of
from policies.data.places import cache_directory
from tests.controller.records import SPEC as LOGGED
from tests.controller.records import tick, written
from tests.policies.robots import SPEC, toy_data


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A machine with nothing on it."""
    for name in ("ONEBEAT_DATA", "ONEBEAT_DATASETS", "D4RL_DATASET_DIR", "MINARI_DATASETS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def never(dataset):
    raise AssertionError(f"{dataset.name} must not be downloaded")


@pytest.fixture
def file(tmp_path):
    write_d4rl(tmp_path / "toy.hdf5", toy_data(100), SPEC, {"seed": 5})
    return tmp_path / "toy.hdf5"


def test_a_file_with_its_spec_and_attributes(file):
    found = open_dataset(file, get=never)
    assert found.transitions.digest() == toy_data(100).single().digest()
    assert (found.spec, found.attributes, found.source) == (SPEC, {"seed": 5}, str(file))
    assert spec_of(file) == SPEC


def test_a_minari_directory_by_path_and_by_name(tmp_path, monkeypatch):
    data = toy_data(100).single()
    write_minari(tmp_path / "root" / "lab" / "toy-v0", data, SPEC)
    place = tmp_path / "root" / "lab" / "toy-v0"
    assert open_dataset(place).transitions.digest() == data.digest()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    assert open_dataset("lab/toy-v0", get=never).source == str(place)
    assert spec_of(place) == SPEC


def test_a_directory_of_files_is_joined_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "many"
    for name, seed in (("b", 1), ("a", 0)):
        write_d4rl(folder / f"{name}.hdf5", toy_data(70, seed), SPEC)
    (folder / "notes.txt").write_text("not data")
    found = open_dataset(folder)
    first, second = toy_data(70, 0).single(), toy_data(70, 1).single()
    assert np.array_equal(found.transitions.observations[:70], first.observations)
    assert np.array_equal(found.transitions.observations[70:], second.observations)
    assert found.transitions.timeouts[69]
    assert (found.attributes, spec_of(folder)) == ({"files": 2}, SPEC)


def test_a_log_and_a_directory_of_runs(tmp_path):
    for run, ticks in (("one", 9), ("two", 5)):
        (tmp_path / "runs" / run).mkdir(parents=True)
        written(tmp_path / "runs" / run / "log.mcap", [tick(number) for number in range(ticks)])
    log = tmp_path / "runs" / "one" / "log.mcap"
    found = open_dataset(log)
    assert found.transitions.digest() == read_log(log).transitions().single().digest()
    assert (found.spec, spec_of(log), found.transitions.task) == (LOGGED, LOGGED, "synthetic")
    assert open_dataset(log, task="other").transitions.task == "other"
    both = open_dataset(tmp_path / "runs")
    assert both.transitions.lengths().tolist() == [8, 4]
    with pytest.raises(SpecMismatch):
        open_dataset(log, SPEC)


def test_a_cut_log_says_so(tmp_path):
    path = tmp_path / "log.mcap"
    written(path, [tick(number) for number in range(9)])
    path.write_bytes(path.read_bytes()[:-600])
    found = open_dataset(path)
    assert "it was not finished" in found.notes[0]


def test_files_of_different_robots_are_not_joined(tmp_path):
    import msgspec

    write_d4rl(tmp_path / "many" / "a.hdf5", toy_data(70), SPEC)
    other = msgspec.structs.replace(SPEC, rate_hz=50.0)
    write_d4rl(tmp_path / "many" / "b.hdf5", toy_data(70), other)
    with pytest.raises(SpecMismatch, match="50 Hz"):
        open_dataset(tmp_path / "many")


@pytest.mark.parametrize(
    ("variable", "place", "name"),
    [
        ("ONEBEAT_DATA", "mine", "hopper-medium-v2.hdf5"),
        ("ONEBEAT_DATA", "mine", "hopper_medium-v2.hdf5"),
        ("ONEBEAT_DATASETS", "cache", "hopper-medium-v2.hdf5"),
        ("D4RL_DATASET_DIR", "d4rl", "hopper_medium-v2.hdf5"),
        ("", "home/.d4rl/datasets", "hopper_medium-v2.hdf5"),
        ("", "home/.local/share/onebeat/datasets", "hopper-medium-v2.hdf5"),
    ],
)
def test_a_name_is_looked_for_on_this_machine(tmp_path, monkeypatch, file, variable, place, name):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    shutil.copy(file, folder / name)
    if variable:
        monkeypatch.setenv(variable, str(folder))
    assert locate("hopper-medium-v2", never) == folder / name
    assert locate("hopper-medium", never) == folder / name


def test_the_users_directories_come_before_downloads(tmp_path, monkeypatch, file):
    for place in ("one", "two", "cache"):
        (tmp_path / place).mkdir()
        shutil.copy(file, tmp_path / place / "hopper-medium-v2.hdf5")
    monkeypatch.setenv("ONEBEAT_DATASETS", str(tmp_path / "cache"))
    assert locate("hopper-medium-v2").parent == tmp_path / "cache"
    monkeypatch.setenv("ONEBEAT_DATA", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    assert locate("hopper-medium-v2").parent == tmp_path / "one"


def test_a_name_that_is_not_here_is_downloaded(file):
    asked = []

    def get(dataset):
        asked.append(dataset.name)
        return file

    assert open_dataset("hopper-medium-v2", get=get).source == str(file)
    assert asked == ["hopper-medium-v2"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hoper-medium-v2", "no such file, directory or dataset; did you mean hopper-medium-v2"),
        ("runs/none.hdf5", "no such file"),
        ("hopper-medium-v2.hdf5", "no such file"),
        ("zzz", r"zzz: no such file, directory or dataset$"),
    ],
)
def test_what_is_nowhere_is_told(source, said):
    with pytest.raises(DataError, match=said):
        open_dataset(source, get=never)


def test_a_directory_without_datasets_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a directory without datasets"):
        open_dataset(tmp_path / "empty")


def test_a_file_that_only_bears_a_published_name_is_told(tmp_path, file):
    import h5py

    path = tmp_path / "kitchen-complete-v0.hdf5"
    with h5py.File(file) as source, h5py.File(path, "w") as target:
        for name in source:
            source.copy(name, target)
    found = open_dataset(path)
    assert found.published is not None
    assert "not D4RL's file: its sha256 does not begin cd797c38" in found.notes[0]


def test_what_looks_like_a_dataset(tmp_path, file):
    write_minari(tmp_path / "toy-v0", toy_data(50), SPEC)
    (tmp_path / "bundles" / "v0001").mkdir(parents=True)
    (tmp_path / "bundles" / "v0001" / "manifest.json").write_text("{}")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "log.mcap").touch()
    assert [is_dataset(tmp_path / n) for n in ("toy.hdf5", "toy-v0", "runs", "runs/one")] == (
        [True] * 4
    )
    assert not is_dataset(tmp_path / "bundles")
    assert not is_dataset(Path("pyproject.toml"))


def test_downloads_lie_in_the_users_data_directory(monkeypatch, home):
    assert cache_directory() == home / ".local" / "share" / "onebeat" / "datasets"
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    assert cache_directory() == Path("/x/onebeat/datasets")
    monkeypatch.setenv("ONEBEAT_DATASETS", "~/here")
    assert cache_directory() == home / "here"
