"""Where datasets are found."""

from pathlib import Path

import pytest

from policies.data.places import CACHE_VARIABLE, D4RL_VARIABLE, LOCAL_VARIABLE
from policies.reproduction.sources import NO_FILE, NO_POLICIES, Source, find
from tests.policies.reproduction.made import plan


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A machine without datasets."""
    for name in (LOCAL_VARIABLE, CACHE_VARIABLE, D4RL_VARIABLE):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))


def there(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_file_that_the_plan_names_comes_first(tmp_path):
    mine = there(tmp_path / "mine.hdf5")
    there(tmp_path / "data" / "hopper-medium-regen.hdf5")
    config = plan(data=str(tmp_path / "data"), sources={"hopper-medium-regen": str(mine)})
    assert find("hopper-medium-regen", config) == Source(mine)


def test_one_that_the_plan_names_and_is_not_there_is_missing(tmp_path):
    config = plan(sources={"mine": str(tmp_path / "mine.hdf5")})
    assert find("mine", config).missing == f"{tmp_path}/mine.hdf5: no such file"


def test_the_plans_directory_is_looked_in(tmp_path):
    made = there(tmp_path / "kitchen-complete-v0.hdf5")
    assert find("kitchen-complete-v0", plan(data=str(tmp_path))) == Source(made, "kitchen-complete")


@pytest.mark.parametrize(
    "name", ["kitchen-complete-v0.hdf5", "mini_kitchen_microwave_kettle_light_slider-v0.hdf5"]
)
def test_a_published_file_is_found_under_either_name(monkeypatch, tmp_path, name):
    monkeypatch.setenv(LOCAL_VARIABLE, str(tmp_path / "here"))
    file = there(tmp_path / "here" / name)
    found = find("kitchen-complete-v0", plan(data=str(tmp_path)))
    assert found == Source(file, "kitchen-complete")


def test_a_published_file_that_is_not_here_is_missing(tmp_path):
    assert find("hopper-medium-v2", plan(data=str(tmp_path))).missing == NO_FILE


def test_data_that_can_be_made_need_behaviour_policies(monkeypatch, tmp_path):
    config = plan(data=str(tmp_path / "data"))
    assert find("hopper-medium-regen", config).missing == NO_POLICIES
    (tmp_path / "b" / "policies").mkdir(parents=True)
    monkeypatch.setenv(LOCAL_VARIABLE, f"{tmp_path}/a:{tmp_path}/b")
    found = find("hopper-medium-regen", config)
    assert found.policies == tmp_path / "b" / "policies"
    assert found.path == tmp_path / "data" / "hopper-medium-regen.hdf5"
    assert not found.missing


def test_the_plan_can_name_the_policies(tmp_path):
    config = plan(data=str(tmp_path), policies=str(tmp_path))
    assert find("hopper-medium-regen", config).policies == tmp_path


def test_a_name_of_nothing_is_told_with_the_nearest():
    assert "did you mean hopper-medium-v2?" in find("hoper-medium-v2", plan()).missing
