"""The gate against a real replay service and a real policy server, each in a thread."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout, Refused
from policies.bundle import publish, resolve
from policies.engine import load_policy
from policies.finetuning import gate_links
from policies.finetuning.gate import Gate
from policies.finetuning.gate_links import ReplayService, servers_at
from policies.finetuning.replay.limiter import Limiter
from policies.finetuning.replay.service import ReplayService as Service
from policies.finetuning.replay.store import Places, Store
from policies.finetuning.settings import FinetuneConfig, GateSettings
from policies.serving.server import PolicyServer
from tests.policies.finetuning.constants import constant
from tests.policies.finetuning.replay.rows import SPEC, rows_of

CLOCK = MonotonicClock()


@contextmanager
def running(server):
    """Run a server in a thread."""
    over = threading.Event()
    thread = threading.Thread(target=server.run, args=(over.is_set,))
    thread.start()
    try:
        yield server
    finally:
        over.set()
        thread.join()


def service_at(endpoint, directory):
    store = Store(SPEC, Places(directory, 1000), seed=0)
    return Service(store, SPEC, Limiter(1.0, 10, 4), endpoint, CLOCK)


def server_of(endpoint, bundle):
    def load(path, steps):
        return load_policy(path, step=steps)

    return PolicyServer({"default": load_policy(bundle)}, endpoint, CLOCK, load)


@pytest.fixture
def link(tmp_path):
    endpoint = f"ipc://{tmp_path}/r"
    link = ReplayService(endpoint, SPEC, None)
    yield link, endpoint
    link.close()


def test_it_judges_and_publishes_over_the_wire(tmp_path, link):
    link, endpoint = link
    store = tmp_path / "out" / "bundles"
    publish(constant(tmp_path / "parent", 0.0, 0.0, spec=SPEC), store)
    config = FinetuneConfig(out=str(tmp_path / "out"), gate=GateSettings(score_every=0, window=2))
    service = service_at(endpoint, tmp_path / "replay")
    parent = resolve(store).name
    totals = rows_of(0, 300, ends=(99, 199, 299), total=50.0)
    service._store.insert("arm", 0, (parent,), totals)
    with running(service), running(server_of(f"ipc://{tmp_path}/p", store)) as server:
        servers = servers_at(server.endpoint)
        gate = Gate(config, link, servers)
        assert gate.turn()
        child = constant(tmp_path / "out" / "candidates", 0.1, 0.1, spec=SPEC, parent=store)
        assert gate.turn()
        assert gate.standing.in_force == resolve(store).name == child.name
        assert link.stats()["version"] == servers[0].version() == child.name
        # Two episodes of the child at a fiftieth of the parent's return.
        worse = rows_of(0, 20, ends=(9, 19), total=1.0)
        service._store.insert("leg", 0, (child.name,), worse)
        assert gate.turn()
        assert gate.standing.in_force == resolve(store).name == parent
        stats = link.stats()
        assert (stats["version"], stats["rollbacks"], stats["inserted"]) == (parent, 1, 320)
        assert servers[0].version() == parent
        link.restart()
        assert link.stats()["rollbacks"] == 2
        # What the gate drew is nobody's learning.
        assert stats["drawn_batches"] == 0
        gate.close()
        servers[0].close()


def test_rows_are_observations_of_the_replay(tmp_path, link):
    link, endpoint = link
    service = service_at(endpoint, tmp_path)
    service._store.insert("arm", 0, ("v1",), rows_of(0, 100, actor=3))
    with running(service):
        assert link.observations(101) is None
        seen = link.observations(50)
    assert seen.shape == (50, 3)
    assert (seen[:, 0] == 3).all()
    assert len(np.unique(seen[:, 1])) > 20


def test_a_service_that_was_replaced_is_asked_on(tmp_path, link):
    link, endpoint = link
    for name in ("one", "two"):
        service = service_at(endpoint, tmp_path / name)
        service._store.insert("arm", 0, ("v1",), rows_of(0, 10))
        with running(service):
            assert link.stats()["inserted"] == 10
            assert link.observations(10).shape == (10, 3)
    with running(service_at(endpoint, tmp_path / "three")):
        with pytest.raises(Refused, match="no such bundle"):
            link.publish(tmp_path / "none")
        assert link.episodes(0) == {"episodes": [], "next": 0}


def test_a_service_that_is_not_there(link, monkeypatch):
    monkeypatch.setattr(gate_links, "ANSWER_S", 0.2)
    with pytest.raises(PeerTimeout):
        link[0]._asking.ask("stats", {}, 0.2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ("ipc:///a", ["ipc:///a"]), ("ipc:///a, tcp://b:1,", ["ipc:///a", "tcp://b:1"])],
)
def test_several_servers_stand_with_commas_between(text, expected):
    assert [server.endpoint for server in servers_at(text)] == expected
