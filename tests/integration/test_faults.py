"""What must not go wrong when something does: processes killed, files damaged, wrong robots."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

from controller.endpoints import endpoint_for
from controller.launch import LiveRun, RunFailed
from controller.log_reader import read_log
from controller.process import RuntimeDirectory
from controller.settings import PlantSettings, PolicySettings, RunConfig
from controller.types import Rung

LOOP = {"stop_after_s": 0.3, "linger_s": 0.2}


def config(
    store: Path,
    out: Path,
    seconds: float = 20.0,
    replica: bool = False,
    restart: bool = False,
    **loop,
) -> RunConfig:
    base = RunConfig(
        task="pointmaze-umaze",
        seconds=seconds,
        out=str(out),
        policy=PolicySettings(bundle=str(store), local_replica=replica, restart=restart),
    )
    import msgspec

    return msgspec.structs.replace(base, loop=msgspec.structs.replace(base.loop, **loop))


def kill(live: LiveRun, name: str) -> None:
    child = next(c for c in live._supervisor.children if c.name == name)
    os.kill(child.pid, signal.SIGKILL)


def killed_at(live: LiveRun, name: str, tick: int):
    done = []

    def look(status) -> bool:
        if status["ticks"] >= tick and not done:
            done.append(name)
            kill(live, name)
        return False

    return look


def processes_of(directory: Path) -> list[str]:
    """Command lines of living processes that mention a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(directory) in line and "pytest" not in line:
                found.append(line)
    return found


def gone(directory: Path, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while processes_of(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_killed_server_leaves_the_loop_on_its_replica(store, tmp_path):
    with LiveRun(config(store, tmp_path, seconds=2.0, replica=True)) as live:
        notes = live.wait(killed_at(live, "policy server", 50))
    assert any("policy server" in note for note in notes)
    log = read_log(live.log)
    assert not log.truncated
    assert log.rung[-1] == Rung.LOCAL
    assert (log.rung == Rung.LOCAL).sum() > 50


def test_a_killed_server_without_a_replica_ends_in_the_latched_safe_command(store, tmp_path):
    with (
        LiveRun(config(store, tmp_path, seconds=2.0, **LOOP)) as live,
        pytest.raises(RunFailed) as caught,
    ):
        live.wait(killed_at(live, "policy server", 50))
    assert "\n" not in str(caught.value)
    log = read_log(live.log)
    assert not log.truncated
    stopped = log.rung == Rung.STOP
    assert stopped.any()
    assert (log.executed[stopped] == 0.0).all()
    assert log.versions[-1] == ""


def test_a_killed_simulation_ends_the_run_with_one_line_and_a_valid_log(store, tmp_path):
    with LiveRun(config(store, tmp_path)) as live, pytest.raises(RunFailed) as caught:
        live.wait(killed_at(live, "simulation", 50))
    assert "plant" in str(caught.value)
    assert "\n" not in str(caught.value)
    log = read_log(live.log)
    assert not log.truncated
    assert (log.executed[-1] == 0.0).all()


def test_a_killed_loop_leaves_a_finished_log(store, tmp_path):
    with LiveRun(config(store, tmp_path)) as live, pytest.raises(RunFailed):
        live.wait(killed_at(live, "control loop", 50))
    log = read_log(live.log)
    assert len(log) >= 50


def start_run(store: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "controller.cli",
            "run",
            "task=pointmaze-umaze",
            "seconds=30",
            f"out={out}",
            f"policy.bundle={store}",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = out / "log.mcap"
    deadline = time.monotonic() + 30.0
    while not (log.exists() and log.stat().st_size > 20_000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_in_order(store, tmp_path, number):
    process = start_run(store, tmp_path, "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["ticks"] > 0
    assert "stopped before its end" in err
    assert not read_log(tmp_path / "log.mcap").truncated
    assert gone(tmp_path)


def test_a_killed_launcher_leaves_no_orphan_and_a_readable_log(store, tmp_path):
    process = start_run(store, tmp_path)
    process.kill()
    process.communicate(timeout=10)
    assert gone(tmp_path), processes_of(tmp_path)
    assert len(read_log(tmp_path / "log.mcap")) > 0


@pytest.mark.parametrize("answer", ["silent", "garbage"])
def test_a_policy_server_that_never_welcomes_is_a_timeout_in_one_line(
    onebeat, store, tmp_path, answer
):
    with RuntimeDirectory() as directory, zmq.Context() as context:
        endpoint = endpoint_for(directory, "policy")
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind(endpoint)
        over = threading.Event()

        def reply() -> None:
            while not over.is_set():
                if socket.poll(50):
                    identity, *_ = socket.recv_multipart()
                    if answer == "garbage":
                        socket.send_multipart([identity, os.urandom(64), b"\x00" * 7])
            socket.close()

        thread = threading.Thread(target=reply)
        thread.start()
        try:
            done = onebeat(
                "run",
                "task=pointmaze-umaze",
                f"out={tmp_path}",
                f"policy.endpoint={endpoint}",
                f"policy.bundle={store}",
                "policy.connect_timeout_s=0.5",
            )
        finally:
            over.set()
            thread.join()
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert endpoint in done.stderr
    assert "Traceback" not in done.stderr
    assert gone(tmp_path)


def test_an_absent_plant_is_a_timeout_in_one_line(store, tmp_path):
    with RuntimeDirectory() as directory:
        base = config(store, tmp_path)
        import msgspec

        plant = PlantSettings(endpoint=endpoint_for(directory, "none"), connect_timeout_s=0.5)
        absent = msgspec.structs.replace(base, plant=plant)
        with LiveRun(absent) as live, pytest.raises(RunFailed, match="none"):
            live.wait(lambda status: False)


def test_a_taken_port_is_refused(onebeat, store):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        endpoint = f"tcp://127.0.0.1:{port}"
        done = onebeat("serve", f"bundle={store}", f"endpoint={endpoint}")
    assert done.returncode == 1
    assert endpoint in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_flipped_byte_in_a_bundle_is_named(onebeat, store, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(store / "current", bundle)
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))
    done = onebeat("eval", f"bundle={bundle}")
    assert done.returncode == 1
    assert "weights.safetensors" in done.stderr
    assert "sha256" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bundle_of_another_robot_is_refused_with_both_sides(onebeat, store, tmp_path):
    for words in (["mode=lockstep"], ["seconds=5"]):
        done = onebeat(
            "run", "task=kitchen-complete", f"policy.bundle={store}", f"out={tmp_path}", *words
        )
        assert done.returncode == 1
        assert "pointmaze-umaze" in done.stderr
        assert "kitchen-complete" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_truncated_log_shows_and_replays_up_to_the_cut(onebeat, store, tmp_path):
    words = ["task=pointmaze-umaze", "mode=lockstep", "seconds=1", f"policy.bundle={store}"]
    assert onebeat("run", *words, f"out={tmp_path}").returncode == 0
    log = tmp_path / "log.mcap"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    shown = onebeat("show", log, "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["truncated"] is True
    replayed = json.loads(onebeat("replay", log, "--json").stdout)
    assert replayed["matched"] is True
    assert 0 < replayed["ticks"] < 100


def test_a_dataset_of_another_task_or_with_nan_is_refused(onebeat, dataset, tmp_path):
    import h5py

    done = onebeat("train", "task=kitchen-complete", f"data={dataset}", f"out={tmp_path / 'b'}")
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert "pointmaze-umaze" in done.stderr
    bad = tmp_path / "bad.hdf5"
    shutil.copy(dataset, bad)
    with h5py.File(bad, "r+") as file:
        file["observations"][17, 0] = float("nan")
    done = onebeat("train", "task=pointmaze-umaze", f"data={bad}", f"out={tmp_path / 'b'}")
    assert done.returncode == 1
    assert "observations" in done.stderr
    assert "17" in done.stderr
    with h5py.File(bad, "r+") as file:
        del file["actions"]
    done = onebeat("train", "task=pointmaze-umaze", f"data={bad}", f"out={tmp_path / 'b'}")
    assert done.returncode == 1
    assert "actions" in done.stderr
    assert done.stderr.count("\n") == 1
