"""The replay service as a process of its own: kill -9 again and again, and its end in order."""

import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.config import to_yaml
from controller.control import control
from controller.endpoints import endpoint_for
from controller.errors import ConfigError
from controller.feed.client import ReplayClient
from controller.process import Child, Supervisor
from controller.tuning.settings import PartConfig
from policies.finetuning.replay.store import Places, Store
from policies.finetuning.replay.verbs import replay, spec_of
from policies.finetuning.settings import FinetuneConfig, LearnSettings, ReplaySettings
from tests.policies.finetuning.replay.rows import SPEC, rows_of, told
from tests.policies.weights import MODELS, bundle_of, robot

CODE = """
import sys
from controller.arguments import Arguments
from controller.tuning.settings import PartConfig
from policies.finetuning.replay.verbs import replay
sys.exit(replay(PartConfig(settings=sys.argv[1]), None))
"""
CAPACITY = 10_000
CLOCK = MonotonicClock()


@pytest.fixture
def settings_file(tmp_path):
    """Settings of a service with an endpoint of its own, its robot beside them."""
    out = tmp_path / "out"
    out.mkdir()
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        settings = ReplaySettings(endpoint_for(path, "r"), CAPACITY, save_every_s=0.05)
        config = FinetuneConfig(out=str(out), replay=settings)
        (out / "spec.json").write_bytes(msgspec.json.encode(SPEC))
        (out / "finetune.yaml").write_text(to_yaml(config))
        yield out / "finetune.yaml", config


def child(file, *words):
    return Child([sys.executable, *words, "-c", CODE, str(file)], "replay service")


def send(client, log, until):
    """Send the rows of a log up to ``until``, block by block, as the service confirms them."""
    first = client.sent
    while first < until:
        count = min(17, until - first, client.room)
        client.offer(log[first : first + count], ("v1",))
        client.pump(20_000_000 if client.behind > 100 else 0)
        first += count
    client.sent = until


def test_nothing_is_lost_or_double_however_often_it_is_killed(settings_file):
    file, config = settings_file
    logs = {name: rows_of(0, 6000, actor=k) for k, name in enumerate(("arm", "leg"))}
    ends = np.arange(49, 6000, 50)
    for k, name in enumerate(logs):
        logs[name] = rows_of(0, 6000, actor=k, ends=ends)
    endpoint = config.replay.endpoint
    with Supervisor() as supervisor:
        service = supervisor.start(child(file))
        clients = {name: ReplayClient(endpoint, SPEC, CLOCK, name, replays=True) for name in logs}
        for client in clients.values():
            client.connect(60.0)
            client.sent = 0
        for until in (700, 1900, 3100):
            for name, client in clients.items():
                send(client, logs[name], until)
            time.sleep(0.06)
            for name, client in clients.items():
                send(client, logs[name], until + 300)
            service._process.send_signal(signal.SIGKILL)
            assert service.wait(20.0) == -signal.SIGKILL
            service = supervisor.replace(service, child(file))
        for name, client in clients.items():
            send(client, logs[name], 6000)
            assert client.flush(60.0)
            client.close()
        stats = control(endpoint, "stats", timeout_s=20.0)
        report = control(endpoint, "episodes", {"since": "0"}, timeout_s=20.0)
        service._process.send_signal(signal.SIGTERM)
        assert service.wait(20.0) == 0, service.last_error()
    assert stats["inserted"] == 12_000
    assert {name: actor["rows"] for name, actor in stats["actors"].items()} == {
        "arm": 6000,
        "leg": 6000,
    }
    assert stats["versions"] == {"v1": 12_000}
    assert (stats["episodes"], report["next"]) == (240, 240)
    assert {episode["length"] for episode in report["episodes"]} == {50}
    store = Store(SPEC, Places(Path(config.out) / "replay", CAPACITY), 0)
    places = np.arange(2000, 12_000) % store.ring._size
    found = told(store.ring._table[places])
    for actor in (0, 1):
        mine = [number for who, number in found if who == actor]
        assert mine == list(range(6000 - len(mine), 6000))
    store.close()


def test_sigterm_writes_what_is_kept_and_needs_no_torch(settings_file):
    file, config = settings_file
    slow = msgspec.structs.replace(config.replay, save_every_s=1000.0)
    file.write_text(to_yaml(msgspec.structs.replace(config, replay=slow)))
    with Supervisor() as supervisor:
        service = supervisor.start(child(file, "-X", "importtime"))
        client = ReplayClient(config.replay.endpoint, SPEC, CLOCK, "arm")
        client.connect(60.0)
        client.offer(rows_of(0, 30), ("v1",))
        assert client.flush(20.0)
        client.close()
        service._process.send_signal(signal.SIGTERM)
        assert service.wait(20.0) == 0
        loaded = service._captured
        loaded.seek(0)
        names = {line.split(b"|")[-1].strip() for line in loaded if b"import time" in line}
        assert b"policies.finetuning.replay.service" in names
        assert not {b"torch", b"mujoco", b"gymnasium"} & names
    store = Store(SPEC, Places(Path(config.out) / "replay", CAPACITY), 0)
    assert store.ledger.rows_of("arm") == len(store.ring) == 30
    store.close()


def test_the_robot_is_that_of_the_directory_else_of_the_parent(tmp_path):
    config = FinetuneConfig(out=str(tmp_path))
    with pytest.raises(ConfigError, match=r"spec\.json: is missing, and there is no parent"):
        spec_of(config)
    parent = bundle_of(tmp_path / "made", MODELS["deterministic"], spec=robot(4, 1))
    from_parent = msgspec.structs.replace(config, parent=str(parent))
    assert spec_of(from_parent) == robot(4, 1)
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(SPEC))
    assert spec_of(config) == spec_of(from_parent) == SPEC
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"spec\.json: not the spec of a robot"):
        spec_of(config)


def test_settings_that_cannot_work_are_told(tmp_path):
    def told_of(**changes):
        config = FinetuneConfig(out=str(tmp_path), learn=LearnSettings(batch=256))
        config = msgspec.structs.replace(config, replay=ReplaySettings(**changes))
        (tmp_path / "finetune.yaml").write_text(to_yaml(config))
        with pytest.raises(ConfigError) as error:
            replay(PartConfig(settings=str(tmp_path / "finetune.yaml")), None)
        return str(error.value)

    assert "replay.endpoint: expected an address" in told_of()
    small = told_of(endpoint="ipc:///tmp/nowhere", capacity=100)
    assert small == "replay.capacity: 100 rows, expected at least learn.batch, 256"
