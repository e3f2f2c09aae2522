"""Minari's layout: exact round trips, and the real package as the judge where it is installed."""

import json
import warnings

import h5py
import msgspec
import numpy as np
import pytest

from controller.errors import ConfigError, DataError, SpecMismatch
from controller.spec import ArraySpec, Spec
from controller.transitions import Transitions, layout_of
from policies.data.minari import load_minari, read_minari_spec
from policies.data.minari_export import write_minari
from tests.policies.robots import SPEC, toy_data

ONE = Spec(
    task="flat",
    observation=(ArraySpec("state", (2, 3)),),
    action=ArraySpec("force", (2,), "float32", low=(-1.0, None), high=(1.0, None)),
    rate_hz=10.0,
)
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


def chained(spec, lengths, ends, seed=0):
    """Episodes in which each successor is the next observation; ends: t, x (timeout) or -."""
    rng = np.random.default_rng(seed)
    width = sum(array.size for array in spec.observation)
    states = [rng.standard_normal((n + 1, width)).astype(np.float32) for n in lengths]
    rows = sum(lengths)
    last = np.cumsum(lengths) - 1
    marks = {kind: np.zeros(rows, bool) for kind in "tx-"}
    for row, kind in zip(last, ends, strict=True):
        marks[kind][row] = True
    return Transitions(
        observations=np.concatenate([each[:-1] for each in states]),
        actions=rng.uniform(-1, 1, (rows, spec.action.size)).astype(np.float32),
        rewards=rng.random(rows, dtype=np.float32),
        next_observations=np.concatenate([each[1:] for each in states]),
        terminals=marks["t"],
        timeouts=marks["x"],
        layout=layout_of(spec),
        task=spec.task,
        info={"tick": np.arange(rows), "qpos": rng.standard_normal((rows, 2))},
    )


def assert_same(again, data):
    for name in COLUMNS:
        assert getattr(again, name).dtype == getattr(data, name).dtype, name
        assert np.array_equal(getattr(again, name), getattr(data, name)), name
    assert (again.layout, again.task, again.digest()) == (data.layout, data.task, data.digest())
    assert {k: v.tolist() for k, v in again.info.items()} == {
        k: v.tolist() for k, v in data.info.items()
    }


@pytest.mark.parametrize("spec", [SPEC, ONE], ids=["several arrays", "one array"])
@pytest.mark.parametrize("ends", ["txt", "xtx", "tx-", "t-x"])
def test_round_trip_is_exact(tmp_path, spec, ends):
    # "t-x": the second stretch goes on in the third, though its successor is not the next row's
    # observation, as where the goal of a maze moves.
    data = chained(spec, [4, 1, 3], ends)
    write_minari(tmp_path / "toy-v0", data, spec, {"seed": 3}, (1.0, 9.0))
    found = load_minari(tmp_path / "toy-v0", spec)
    assert_same(found.transitions, data)
    assert (found.reference, found.attributes["seed"]) == ((1.0, 9.0), 3)
    assert read_minari_spec(tmp_path / "toy-v0" / "data") == spec
    assert [each.name for each in tmp_path.iterdir()] == ["toy-v0"]


def test_rows_that_follow_no_other_survive_too(tmp_path):
    data = toy_data(60).single()
    write_minari(tmp_path / "toy-v0", data, SPEC)
    assert_same(load_minari(tmp_path / "toy-v0").transitions, data)


def test_numbers_that_are_not_finite_are_refused_unless_they_are_asked_for(tmp_path):
    data = chained(ONE, [3], "t")
    data.observations[1, 2] = data.next_observations[0, 2] = np.nan
    write_minari(tmp_path / "toy-v0", data, ONE)
    with pytest.raises(DataError, match="not finite"):
        load_minari(tmp_path / "toy-v0")
    again = load_minari(tmp_path / "toy-v0", finite=False).transitions
    assert np.array_equal(again.observations, data.observations, equal_nan=True)


def test_an_existing_directory_or_a_name_without_version_is_refused(tmp_path):
    data = chained(ONE, [3], "t")
    with pytest.raises(ConfigError, match="needs a version, as in toy-v0"):
        write_minari(tmp_path / "toy", data, ONE)
    (tmp_path / "toy-v0").mkdir()
    with pytest.raises(ConfigError, match="there already"):
        write_minari(tmp_path / "toy-v0", data, ONE)
    assert not list((tmp_path / "toy-v0").iterdir())


def test_data_of_another_robot_is_refused(tmp_path):
    write_minari(tmp_path / "toy-v0", chained(ONE, [3], "t"), ONE)
    with pytest.raises(SpecMismatch, match="50 Hz"):
        load_minari(tmp_path / "toy-v0", msgspec.structs.replace(ONE, rate_hz=50.0))


def break_metadata(place, **changes):
    path = place / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damage_and_other_layouts_are_told(tmp_path):
    place = tmp_path / "toy-v0"
    with pytest.raises(DataError, match="no Minari dataset"):
        load_minari(place)
    write_minari(place, chained(ONE, [3], "t"), ONE)
    break_metadata(place, data_format="arrow")
    with pytest.raises(DataError, match="kept as arrow, expected hdf5"):
        load_minari(place)
    break_metadata(place, data_format="hdf5")
    with h5py.File(place / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
    with pytest.raises(DataError, match="damaged"):
        load_minari(place)
    (place / "data" / "main_data.hdf5").write_text("x")
    with pytest.raises(DataError, match="damaged"):
        load_minari(place)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("observations", np.zeros((3, 2, 3)), "3 observations for 3 steps, expected 4"),
        ("actions", np.zeros((3, 2), np.int64), "actions are int64, expected real numbers"),
        ("actions", np.zeros((3, 5)), "actions are 5 wide, flat has 2"),
        ("observations", np.zeros((4, 7)), "this is the data of another task"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, name, values, said):
    place = tmp_path / "toy-v0"
    write_minari(place, chained(ONE, [3], "t"), ONE)
    with h5py.File(place / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_0/{name}"]
        file[f"episode_0/{name}"] = values
    with pytest.raises(DataError, match=said):
        load_minari(place)


@pytest.fixture
def minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    return pytest.importorskip("minari")


@pytest.mark.parametrize("spec", [SPEC, ONE], ids=["several arrays", "one array"])
def test_the_real_package_reads_the_same_numbers(tmp_path, minari, spec):
    data = chained(spec, [4, 1, 3], "txt")
    write_minari(tmp_path / "root" / "mine" / "toy-v0", data, spec)
    assert list(minari.list_local_datasets()) == ["mine/toy-v0"]
    assert minari.namespace.list_local_namespaces() == ["mine"]
    dataset = minari.load_dataset("mine/toy-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 8)
    low, high = spec.action.bounds()
    assert np.array_equal(dataset.action_space.low, low.astype(np.float32))
    assert np.array_equal(dataset.action_space.high, high.astype(np.float32))
    for episode, rows in zip(dataset.iterate_episodes(), data.episodes(), strict=True):
        assert np.array_equal(episode.actions, data.actions[rows])
        assert np.array_equal(episode.rewards, data.rewards[rows])
        assert np.array_equal(episode.terminations, data.terminals[rows])
        assert np.array_equal(episode.truncations, data.timeouts[rows])
        seen = episode.observations
        for each in seen.values() if isinstance(seen, dict) else [seen]:
            assert len(each) == len(episode.rewards) + 1
        flat = seen if not isinstance(seen, dict) else np.concatenate(list(seen.values()), axis=1)
        flat = flat.reshape(len(flat), -1)
        assert np.array_equal(flat[:-1], data.observations[rows])
        assert np.array_equal(flat[1:], data.next_observations[rows])
        assert np.array_equal(episode.infos["tick"][:-1], data.info["tick"][rows])
    if spec is SPEC:
        assert list(dataset.observation_space.spaces) == ["position", "shadow", "target"]
    else:
        assert dataset.observation_space.shape == (2, 3)


def buffers(minari, nested):
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    made = []
    for steps, terminated in ((5, True), (3, False)):
        state = rng.standard_normal((steps + 1, 3))
        goal = rng.standard_normal((steps + 1, 2))
        ends = np.arange(steps) == steps - 1
        made.append(
            EpisodeBuffer(
                id=len(made),
                observations={"state": state, "goal": goal} if nested else state,
                actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
                rewards=rng.random(steps),
                terminations=ends & terminated,
                truncations=ends & (not terminated),
                infos={"speed": rng.random(steps + 1)},
            )
        )
    return made


@pytest.mark.parametrize("nested", [True, False])
def test_what_the_real_package_writes_is_read(tmp_path, minari, nested):
    from gymnasium.spaces import Box, Dict

    made = buffers(minari, nested)
    state = Box(-np.inf, np.inf, (3,), np.float64)
    space = Dict({"state": state, "goal": Box(-1.0, 1.0, (2,), np.float64)}) if nested else state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "toy/random-v0",
            made,
            observation_space=space,
            action_space=Box(-1.0, 1.0, (2,), np.float32),
            data_format="hdf5",
        )
    found = load_minari(tmp_path / "root" / "toy" / "random-v0")
    data = found.transitions
    assert data.lengths().tolist() == [5, 3]
    assert (data.terminals.nonzero()[0].tolist(), data.timeouts.nonzero()[0].tolist()) == ([4], [7])
    assert dict(data.layout) == ({"state": 3, "goal": 2} if nested else {"observation": 3})
    assert found.attributes["dataset_id"] == "toy/random-v0"
    start = 0
    for buffer in made:
        rows = slice(start, start + len(buffer.rewards))
        start = rows.stop
        whole = buffer.observations
        parts = [whole[name] for name, _ in data.layout] if nested else [whole]
        flat = np.concatenate(parts, axis=1).astype(np.float32)
        assert np.array_equal(data.observations[rows], flat[:-1])
        assert np.array_equal(data.next_observations[rows], flat[1:])
        assert np.array_equal(data.actions[rows], buffer.actions)
        assert np.array_equal(data.rewards[rows], buffer.rewards.astype(np.float32))
        assert np.array_equal(data.info["speed"][rows], buffer.infos["speed"][:-1])
