"""An actor in lockstep as a process of its own: ended, and killed and started again."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from controller.config import load, to_yaml
from controller.endpoints import endpoint_for
from controller.explore_settings import ExploreSettings
from controller.exploring import explores
from controller.feed.rows import RowKind
from controller.launch import command
from controller.log_reader import read_log
from controller.process import Child, RuntimeDirectory
from controller.replay import refilter_of, replay
from controller.settings import RunConfig
from controller.tuning.actor import BLOCK
from policies.bundle import load_bundle
from policies.engine import load_policy
from policies.finetuning.settings import FinetuneConfig, ReplaySettings
from tests.controller.tuning.scripted_replay import ScriptedReplay

EXPLORE = ExploreSettings(start=0.5, end=0.0, decay=2000)


@pytest.fixture
def service():
    bundle = load_bundle("hopper")
    with RuntimeDirectory() as sockets:
        endpoint = endpoint_for(sockets, "replay")
        about = {"version": bundle.version, "bundle": str(bundle.path)}
        with ScriptedReplay(endpoint, bundle.spec, **about) as service:
            yield service


def actor(service, out):
    replay_at = ReplaySettings(endpoint=service.endpoint)
    config = FinetuneConfig(
        task="hopper", live=True, mode="lockstep", out=str(out), replay=replay_at, explore=EXPLORE
    )
    (out / "finetune.yaml").write_text(to_yaml(config))
    words = (f"settings={out}/finetune.yaml", "name=actor-0", "--json")
    return Child(command("finetune actor", *words), "actor").start()


def until(child, true):
    end = time.monotonic() + 60
    while not true():
        assert child.poll() is None, child.last_error()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_actor_that_is_killed_goes_on_in_another_life_and_ends_in_order(service, tmp_path):
    first = actor(service, tmp_path)
    until(first, lambda: service.count() > 300)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    first.kill()
    before = service.count()
    second = actor(service, tmp_path)
    until(second, lambda: service.count() > before + 300)
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait(20) == 0, second.last_error()
    second.kill()

    out = tmp_path / "actors" / "actor-0"
    one, two = (read_log(path) for path in sorted(out.glob("log*.mcap")))
    assert one.truncated
    assert not two.truncated
    assert [name.split("/")[1] for name in service.actors] == [one.header.run, two.header.run]
    rows, _ = service.rows(service.actors[1])
    data = two.transitions()
    assert len(rows) == len(data)
    columns = service.layout.split(rows)
    np.testing.assert_array_equal(columns["observation"], data.observations.astype(np.float32))
    np.testing.assert_array_equal(columns["action"], data.actions)

    # The decay goes on, and the episodes are others.
    run = load(RunConfig, out / "run.yaml")
    assert 0 <= len(one) - run.policy.explore.offset <= BLOCK
    assert two.header.seed == one.header.seed + 2**16
    explored = columns["kind"] == RowKind.EXPLORED
    scheduled = [explores(run.policy.explore, run.seed, t) for t in data.info["tick"].tolist()]
    np.testing.assert_array_equal(explored, scheduled)
    assert explored.sum() > 20

    for log in (one, two):
        found = replay(log, lambda version: load_policy("hopper"), refilter_of(log))
        assert found.matched, str(found.first_mismatch)
        assert (found.skipped, found.ticks_checked) == ({}, len(log))
