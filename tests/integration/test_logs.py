"""The verbs that work on logs, with real processes: rotation, recovery, viewer, replays."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.errors import LogError
from controller.log_parts import parts_of
from controller.log_reader import read_log

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(onebeat, store, tmp_path_factory):
    """A short run in virtual time whose log has several files."""
    out = tmp_path_factory.mktemp("virtual") / "run"
    words = ("mode=virtual", "seconds=4", "policy.delay_ms=3", "log.max_mb=0.02", f"out={out}")
    done = onebeat("run", "pointmaze-umaze", f"policy.bundle={store}", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out


def test_a_run_in_several_files_is_shown_replayed_and_inspected_as_one(onebeat, run):
    report, out = run
    assert len(parts_of(out / "log.mcap")) > 2
    for place in (out, out / "log.mcap"):
        shown = onebeat("show", place, "--json")
        assert json.loads(shown.stdout)["ticks"] == report["ticks"] > 100
    replayed = onebeat("replay", out, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["ticks_checked"] == report["ticks"]
    for place in (out, out / "log.mcap"):
        inspected = onebeat("data", "inspect", place, "--json")
        assert inspected.returncode == 0, inspected.stderr
        facts = json.loads(inspected.stdout)
        assert facts["steps"] == len(read_log(out).transitions())


def test_a_damaged_log_is_recovered_and_the_input_left_alone(onebeat, run, tmp_path):
    _, out = run
    for path in parts_of(out / "log.mcap").values():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    middle = list(parts_of(tmp_path / "log.mcap").values())[1]
    data = middle.read_bytes()
    middle.write_bytes(data[:-9000])
    done = onebeat("data", "recover", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    log = read_log(facts["out"])
    assert facts["ticks"] == len(log) == len(read_log(out)) - facts["lost_ticks"]
    assert facts["remarks"] == [f"{middle.name} was not finished"]
    assert middle.read_bytes() == data[:-9000]
    again = onebeat("data", "recover", tmp_path / "log.mcap")
    assert again.returncode == 1
    assert "exists and is left alone" in again.stderr
    none = onebeat("data", "recover", tmp_path / "no.mcap")
    assert (none.returncode, none.stderr.count("\n")) == (1, 1)


def test_a_run_under_its_own_latency_is_the_same_and_under_another_is_not(onebeat, run, tmp_path):
    _, out = run
    kept = tmp_path / "kept.mcap"
    words = ("latency.ms=15", f"latency.out={kept}", "--json")
    first, second = (onebeat("replay", out, *words) for _ in range(2))
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout)
    assert facts == json.loads(second.stdout)
    rows = facts["runs"]
    assert rows["log"] == rows["same latency"]
    assert rows["other latency"]["action_hash"] != rows["log"]["action_hash"]
    assert facts["first_difference"] is not None
    assert len(read_log(kept)) == rows["other latency"]["ticks"]
    wrong = onebeat("replay", out, "latency.ms=1", "latency.scale=2")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_finished_log_is_played_to_its_end(onebeat, run):
    pytest.importorskip("foxglove")
    report, out = run
    done = onebeat("view", out, f"port={free_port()}", "wait=false", "speed=1000", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["complete"]
    assert facts["shown"] >= report["ticks"]


def test_a_viewer_that_is_killed_costs_a_run_nothing(store, tmp_path):
    pytest.importorskip("foxglove")
    out = tmp_path / "run"
    words = [
        "run", "pointmaze-umaze", f"policy.bundle={store}", "seconds=3", f"out={out}",
        "--view", f"view_port={free_port()}", "--json",
    ]  # fmt: skip
    command = [sys.executable, "-m", "controller.cli", *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        viewer = wait_for(lambda: child_of(process.pid, "view"))
        wait_for(lambda: ticks_of(out) > 20)
        os.kill(viewer, signal.SIGSTOP)
        wait_for(lambda: ticks_of(out) > 50)
        os.kill(viewer, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    report = json.loads(stdout)
    assert "viewer: killed by SIGKILL" in stderr
    assert "in Foxglove" in stderr
    assert (report["dropped"], report["truncated"]) == (0, False)
    assert report["ticks"] + report["skipped"] == 3 * round(read_log(out).header.rate_hz)


def ticks_of(out):
    """Return the ticks in a log that is being written; 0 before its header is."""
    try:
        return len(read_log(out))
    except (LogError, FileNotFoundError):
        return 0


def wait_for(look, timeout_s=40.0):
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def child_of(parent, verb):
    """Return the process id of a child that runs a verb, None while there is none."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"PPid:\t{parent}\n" in (entry / "status").read_text():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if verb.encode() in words:
                    return int(entry.name)
        except OSError:
            continue
    return None


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]
