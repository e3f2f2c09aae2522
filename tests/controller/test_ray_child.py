"""Processes on a Ray of this machine with two workers."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from controller.errors import ConfigError
from controller.process import Supervisor
from controller.ray_child import LOST, check_address, check_reach


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="pip install 'onebeat[ray]'")
    from controller.ray_child import connect

    before = signal.getsignal(signal.SIGTERM)
    with connect("ray", 2) as connected:
        assert signal.getsignal(signal.SIGTERM) is before
        yield connected


def until(true, limit_s=40.0):
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@pytest.mark.ray
def test_two_commands_run_at_once_and_each_leaves_its_file(cluster, tmp_path):
    children = [
        cluster.child(
            ["data", "generate", "pointmaze-medium", "steps=200", f"seed={n}", "processes=1",
             f"out={tmp_path / f'{n}.hdf5'}", "--json"],
            f"generate-{n}",
            stdout=tmp_path / f"{n}.json",
            log=tmp_path / f"{n}.log",
        )
        for n in range(2)
    ]  # fmt: skip
    with Supervisor() as supervisor:
        for child in children:
            assert child.status() == "not started"
            supervisor.start(child)
        until(lambda: all(child.poll() is not None for child in children))
        for n, child in enumerate(children):
            assert (child.poll(), child.status()) == (0, "exit status 0"), child.last_error()
            assert (tmp_path / f"{n}.hdf5").is_file()
            assert (tmp_path / f"{n}.json").read_text().startswith("{")
            assert (tmp_path / f"{n}.log").is_file()


@pytest.mark.ray
def test_a_killed_worker_is_a_dead_child_and_its_process_goes_with_it(cluster, tmp_path):
    with Supervisor() as supervisor:
        kept, lost = (
            supervisor.start(
                cluster.child(["sim", "serve", "pointmaze-medium", endpoint], endpoint)
            )
            for endpoint in (f"endpoint=ipc://{tmp_path}/{n}" for n in "ab")
        )
        until(lambda: kept.poll() is None and kept.pid and lost.poll() is None and lost.pid)
        assert lost.status() == f"running on {lost.host}"
        os.kill(parent_of(lost.pid), signal.SIGKILL)
        until(lambda: lost.poll() is not None)
        assert lost.poll() == LOST
        assert lost.status() == f"lost with its Ray worker on {lost.host}"
        assert lost.last_error()
        until(lambda: not alive(lost.pid))
        assert kept.poll() is None
        kept.stop()
        assert kept.poll() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert not alive(kept.pid)


@pytest.mark.ray
def test_a_file_is_carried_along(cluster):
    child = cluster.child(
        ["show", "/nowhere/x/settings.txt"], "x", files={"/nowhere/x/settings.txt": "none"}
    ).start()
    until(lambda: child.poll() is not None)
    assert child.poll() == 1
    assert "settings.txt" in child.last_error()
    assert "/nowhere" not in child.last_error()


@pytest.mark.ray
def test_one_that_waits_for_a_cpu_is_not_dead_and_can_be_stopped(cluster, caplog):
    with Supervisor(timeout_s=2.0) as supervisor:
        many = [
            supervisor.start(cluster.child(["sim", "serve", f"endpoint=ipc:///tmp/{n}"], str(n)))
            for n in range(max(2, os.cpu_count()) + 1)
        ]
        until(lambda: sum(child.poll() is None and child.pid > 0 for child in many) > 1)
        waiting = [child for child in many if child.status() == "waiting for a CPU"]
        assert waiting
        waiting[0].stop(0.5)
        assert waiting[0].poll() is not None


@pytest.mark.parametrize("address", ["", "ray://", "tcp://a:1", "yes"])
def test_what_is_no_cluster_is_told(address):
    with pytest.raises(ConfigError, match=r"expected ray for one of this machine, ray://HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize("endpoint", [None, "ipc:///tmp/x", "tcp://127.0.0.1:5555"])
def test_actors_elsewhere_need_an_endpoint_they_can_reach(endpoint):
    with pytest.raises(ConfigError, match=r"replay\.endpoint: .* expected tcp://HOST:PORT"):
        check_reach("ray://head:10001", endpoint)
    check_reach("ray", endpoint)
    check_reach("ray://127.0.0.1:10001", endpoint)
    check_reach("ray://head:10001", "tcp://192.168.0.2:5555")


def test_ray_that_is_not_installed_is_told_like_any_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    from controller.command_line import EXTRAS
    from controller.ray_child import connect

    with pytest.raises(ModuleNotFoundError) as told:
        connect("ray")
    assert EXTRAS[told.value.name] == "ray"


def parent_of(pid):
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
