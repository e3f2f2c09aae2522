"""An actor in lockstep: what it sends is what it logged, whatever the replay service does."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.errors import ConfigError, PeerTimeout, Refused, SpecMismatch
from controller.explore_settings import ExploreSettings
from controller.exploring import explores
from controller.feed.client import ReplayClient
from controller.feed.rows import RowKind
from controller.log_reader import read_log
from controller.loop import Outcome
from controller.replay import refilter_of, replay
from controller.session import LatchedStop
from controller.settings import PolicySettings, RunConfig
from controller.spec import ArraySpec
from controller.status import StatusBoard
from controller.testing import FakePlant, FakePolicy, example_spec
from controller.tuning import actor as acting
from controller.tuning.actor import act
from controller.tuning.courier import BEHIND, Courier
from controller.types import Rung
from tests.controller.tuning.scripted_replay import ScriptedReplay

SPEC = example_spec()
NAME = "actor-0/life"


class Shifted(FakePolicy):
    """Versions that act differently: v1, v2, ... push by as many percent."""

    def __init__(self, version):
        super().__init__(version=version)
        self.closed = False

    def _actions(self, request):
        return super()._actions(request) * np.float32(1 - 0.01 * int(self.version[1:]))

    def close(self):
        self.closed = True


def load(path):
    return Shifted(Path(path).name)


@pytest.fixture
def store(tmp_path):
    """Bundles that look like such."""
    for name in ("v1", "v2", "v3"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "manifest.json").write_text("{}")
    return tmp_path / "store"


class Stage:
    """An actor, in a thread of its own where a test looks on."""

    def __init__(self, endpoint, out):
        self.endpoint, self.out = endpoint, out
        self.ended = threading.Event()
        self.outcome = None
        self.courier = None

    def run(self, ticks=None, load=load, plant=None, seed=3, **policy):
        config = RunConfig(
            mode="lockstep", seed=seed, seconds=None, out=str(self.out),
            policy=PolicySettings(**policy),
        )  # fmt: skip
        plant = plant or FakePlant(episode_steps=20, terminate_at=None)
        client = ReplayClient(self.endpoint, plant.spec, MonotonicClock(), NAME)
        self.courier = Courier(client, self.out / "bundles", self.ended.is_set)
        try:
            self.outcome = act(
                config, plant, self.courier, load, self.ended.is_set, run="life", ticks=ticks
            )
        finally:
            client.close()
        return self.outcome

    def __enter__(self):
        self._thread = threading.Thread(target=self.run)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ticks(self):
        with StatusBoard(self.out / "status.bin") as board:
            return board.read()["ticks"]

    def log(self):
        return read_log(self.out / "log.mcap")


@pytest.fixture
def stage(endpoint, tmp_path):
    return Stage(endpoint, tmp_path / "actor")


def until(true, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def service_of(endpoint, store, **settings):
    settings = {"version": "v1", "bundle": str(store / "v1"), **settings}
    return ScriptedReplay(endpoint, SPEC, **settings)


def assert_all_arrived(service, log):
    """The service has the rows of the log's transitions, each once, in order."""
    rows, versions = service.rows()
    data, columns = log.transitions(), service.layout.split(rows)
    assert len(rows) == len(data)
    for name, wanted in {
        "observation": data.observations,
        "action": data.actions,
        "reward": data.rewards,
        "terminal": data.terminals,
        "timeout": data.timeouts,
        "next_observation": data.next_observations,
    }.items():
        np.testing.assert_array_equal(columns[name], wanted.astype(np.float32), name)
    acted = {int(tick): version for tick, version in zip(log.tick, log.versions, strict=True)}
    assert versions == [acted[tick] for tick in data.info["tick"].tolist()]


def test_rows_arrive_once_and_are_the_transitions_of_the_log(stage, store):
    with service_of(stage.endpoint, store) as service:
        assert stage.run(ticks=330) is Outcome.TICKS
    log = stage.log()
    assert not log.truncated
    assert log.header.run == "life"
    assert log.header.bundles == {"v1": str(store / "v1")}
    assert_all_arrived(service, log)
    assert (service.twice, stage.courier.unsent) == (0, 0)
    columns = service.layout.split(service.rows()[0])
    ends = log.transitions().timeouts & (np.arange(len(log.transitions())) < 300)
    np.testing.assert_array_equal(columns["over"][:300], ends[:300])
    assert set(columns["kind"].tolist()) == {RowKind.POLICY}


def test_the_same_seed_goes_through_the_same_rows(endpoint, store, tmp_path):
    found = []
    for number, seed in enumerate((3, 3, 4)):
        with service_of(endpoint, store) as service:
            Stage(endpoint, tmp_path / str(number)).run(ticks=100, seed=seed)
        found.append(service.rows()[0])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_a_new_version_acts_between_two_ticks_and_every_row_knows_its_own(stage, store):
    def publish(service):
        for count, name in ((100, "v2"), (200, "v3")):
            if service.count() >= count and service.version < name:
                service.version, service.bundle = name, str(store / name)

    with service_of(stage.endpoint, store, script=publish) as service:
        stage.run(ticks=400)
    log = stage.log()
    assert [v for v, _ in _runs(log.versions)] == ["v1", "v2", "v3"]
    assert_all_arrived(service, log)
    assert log.bundles == {name: str(store / name) for name in ("v1", "v2", "v3")}
    assert sum(event.kind == "swap" for event in log.events) == 2
    result = replay(log, Shifted, refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert (result.skipped, result.ticks_checked) == ({}, len(log))


def _runs(versions):
    """(version, ticks) of the stretches of a run, without ticks that nobody decided."""
    found = []
    for version in filter(None, versions):
        if not found or found[-1][0] != version:
            found.append((version, 0))
        found[-1] = version, found[-1][1] + 1
    return found


def test_a_version_that_cannot_be_loaded_is_told_once_and_the_next_one_is_put_in(stage, store):
    def publish(service):
        for count, name in ((60, "v2"), (200, "v3")):
            if service.count() >= count and service.version < name:
                service.version, service.bundle = name, str(store / name)

    def choosy(path):
        if path.endswith("v2"):
            raise ValueError("a bad bundle")
        return load(path)

    with service_of(stage.endpoint, store, script=publish) as service:
        stage.run(ticks=400, load=choosy)
    log = stage.log()
    assert [v for v, _ in _runs(log.versions)] == ["v1", "v3"]
    assert sum("a bad bundle" in event.detail for event in log.events) == 1
    assert_all_arrived(service, log)


def test_it_explores_from_where_its_lives_before_ended(stage, store):
    explore = ExploreSettings(start=1.0, end=0.0, hold=300, decay=100, offset=200)
    with service_of(stage.endpoint, store) as service:
        stage.run(ticks=250, explore=explore)
    log = stage.log()
    kinds = service.layout.split(service.rows()[0])["kind"]
    ticks = log.transitions().info["tick"].tolist()
    explored = [kind == RowKind.EXPLORED for kind in kinds]
    assert explored == [explores(explore, 3, tick) for tick in ticks]
    # Of 250 ticks 100 hold the chance of 1, and 100 more see it fall to 0.
    assert all(explored[:90])
    assert not any(explored[-45:])


def test_it_waits_while_the_learner_is_behind(stage, store):
    def limit(service):
        service.wait_ms = 5 if service.count() >= 200 and not released.is_set() else 0

    released = threading.Event()
    with service_of(stage.endpoint, store, script=limit) as service, stage:
        until(lambda: service.wait_ms)
        time.sleep(0.1)
        ticks, rows = stage.ticks(), service.count()
        time.sleep(0.4)
        assert (stage.ticks(), service.count()) == (ticks, rows)
        # What is on its way when the first word to wait arrives: no more than a few blocks.
        assert rows <= ticks <= 200 + 6 * acting.BLOCK
        released.set()
        until(lambda: service.count() > rows + 500)
    assert stage.courier.paused_s > 0.3
    assert_all_arrived(service, stage.log())


@pytest.mark.parametrize("lost", [0, 30])
def test_a_service_that_dies_and_comes_back_has_every_row_once(stage, store, lost):
    with service_of(stage.endpoint, store) as service, stage:
        until(lambda: service.count() > 300)
        service.close()
        service.forget(NAME, lost)
        time.sleep(0.3)
        ticks = stage.ticks()
        time.sleep(0.3)
        # It does not run away on a policy that nobody improves.
        assert stage.ticks() == ticks < 2 * BEHIND + service.count() * 2
        rows = service.count()
        service.begin()
        until(lambda: service.count() > rows + 1000)
    assert_all_arrived(service, stage.log())
    assert stage.outcome is Outcome.OPERATOR


def test_it_ends_in_order_while_it_waits(stage, store):
    with service_of(stage.endpoint, store) as service, stage:
        until(lambda: service.count() > 100)
        service.wait_ms = 1000
        time.sleep(0.2)
        begun = time.monotonic()
        stage.ended.set()
        until(lambda: stage.outcome is not None, 5.0)
        assert time.monotonic() - begun < 4.0
    assert not stage.log().truncated
    assert_all_arrived(service, stage.log())


def test_rows_that_nobody_takes_at_the_end_are_counted_and_stay_in_the_log(stage, store):
    with service_of(stage.endpoint, store) as service, stage:
        until(lambda: service.count() > 100)
        service.close()
        time.sleep(0.2)
    log = stage.log()
    assert not log.truncated
    missing = len(log.transitions()) - service.count()
    # The service may have taken what it never answered.
    assert 0 < missing <= stage.courier.unsent <= missing + service.count()
    rows, wanted = service.rows()[0], log.transitions().rewards.astype(np.float32)
    np.testing.assert_array_equal(service.layout.split(rows)["reward"], wanted[: len(rows)])
    service.begin()


def test_a_bundle_of_another_machine_is_fetched_once(stage, store):
    elsewhere = "/nowhere/bundles/v2"

    def publish(service):
        if service.count() >= 60:
            service.version, service.bundle = "v2", elsewhere

    with service_of(stage.endpoint, store, script=publish) as service:
        service.files["v2"] = {"manifest.json": b"{}", "weights.safetensors": b"\x00\x01"}
        stage.run(ticks=300)
    kept = stage.out / "bundles" / "v2"
    assert (kept / "weights.safetensors").read_bytes() == b"\x00\x01"
    assert [path.name for path in kept.parent.iterdir()] == ["v2"]
    assert service.fetched == ["v2"]
    log = stage.log()
    assert [v for v, _ in _runs(log.versions)] == ["v1", "v2"]
    assert log.bundles["v2"] == str(kept)


@pytest.mark.parametrize("files", [{}, {"weights": b""}, {"manifest.json": b"", "../up": b"x"}])
def test_files_that_are_no_bundle_change_nothing(stage, store, files):
    def publish(service):
        service.version, service.bundle = "v2", "/nowhere/v2"

    with service_of(stage.endpoint, store) as service:
        service.files["v2"] = files
        service.script = lambda s: publish(s) if s.count() >= 60 else None
        stage.run(ticks=200)
    assert [v for v, _ in _runs(stage.log().versions)] == ["v1"]
    assert len(service.fetched) == 1
    assert not (stage.out / "up").exists()
    assert_all_arrived(service, stage.log())


def test_it_waits_for_the_first_version(stage, store):
    with ScriptedReplay(stage.endpoint, SPEC) as service, stage:
        until(lambda: service.actors)
        time.sleep(0.2)
        assert not (stage.out / "log.mcap").exists()
        service.version, service.bundle = "v1", str(store / "v1")
        until(lambda: service.count() > 100)
    assert_all_arrived(service, stage.log())


def test_it_can_be_ended_before_the_first_version(stage):
    with ScriptedReplay(stage.endpoint, SPEC) as service, stage:
        until(lambda: service.actors)
    assert stage.outcome is None
    assert not (stage.out / "log.mcap").exists()


@pytest.mark.parametrize("there", [False, True])
def test_nothing_to_act_with_is_an_error_in_words(stage, monkeypatch, there):
    monkeypatch.setattr(acting, "FIRST_S", 0.5)
    said = "no version in force yet" if there else "no server answered"
    if there:
        with ScriptedReplay(stage.endpoint, SPEC), pytest.raises(PeerTimeout, match=said):
            stage.run(ticks=10)
    else:
        with pytest.raises(PeerTimeout, match=said):
            stage.run(ticks=10)


def test_a_service_of_another_robot_is_refused(stage, store):
    other = msgspec.structs.replace(SPEC, task="another")
    with ScriptedReplay(stage.endpoint, other), pytest.raises(SpecMismatch, match="another"):
        stage.run(ticks=10)


def test_a_service_that_turns_into_that_of_another_robot_ends_it_with_a_whole_log(stage, store):
    with service_of(stage.endpoint, store) as service:

        def turn():
            until(lambda: service.count() > 100)
            service.close()
            service.spec = msgspec.structs.replace(SPEC, task="another")
            service.begin()

        thread = threading.Thread(target=turn)
        thread.start()
        with pytest.raises(Refused, match="spec"):
            stage.run()
        thread.join()
    assert not stage.log().truncated


def test_a_policy_that_gives_nothing_ends_it_in_words(stage, store):
    broken = lambda path: FakePolicy(outcomes=dict.fromkeys(range(50, 999), "nan"))  # noqa: E731
    service = service_of(stage.endpoint, store)
    with service, pytest.raises(LatchedStop, match="stop latched at tick"):
        stage.run(load=broken)
    log = stage.log()
    assert log.rung[-1] == Rung.STOP
    assert_all_arrived(service, log)


def test_an_older_log_is_kept(stage, store):
    for _ in range(2):
        with service_of(stage.endpoint, store):
            stage.run(ticks=40)
    assert len(list(stage.out.glob("log*.mcap"))) == 2


def test_exploring_without_limits_is_refused_before_the_first_tick(stage, store):
    action = ArraySpec("velocity", (2,), "float32")
    spec = msgspec.structs.replace(SPEC, action=action)
    service = ScriptedReplay(stage.endpoint, spec, version="v1", bundle=str(store / "v1"))
    explore = ExploreSettings(start=0.5, end=0.5)
    with service, pytest.raises(ConfigError, match="no limits to draw within"):
        stage.run(10, lambda path: FakePolicy(spec), FakePlant(spec), explore=explore)
    assert not (stage.out / "log.mcap").exists()
