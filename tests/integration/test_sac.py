"""Learning in simulation from the command line: it stops, goes on, and others read its files."""

import json
import signal
import subprocess
import sys
import time

import pytest

SETTINGS = (
    "task=hopper",
    "copies=2",
    "start_steps=100",
    "batch=16",
    "hidden=[8]",
    "evaluate_episodes=1",
    "snapshots=5",
)


@pytest.fixture(scope="module")
def learned(onebeat, tmp_path_factory):
    policies = tmp_path_factory.mktemp("policies")
    done = onebeat("sac", *SETTINGS, "steps=400", f"out={policies}/hopper", "--json")
    assert done.returncode == 0, done.stderr
    return policies, json.loads(done.stdout)


def test_what_it_learned_can_be_evaluated(onebeat, learned):
    policies, facts = learned
    assert (facts["steps"], facts["updates"], facts["finished"]) == (400, 300, True)
    done = onebeat("eval", f"{policies}/hopper/bundles", "episodes=1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 1


def test_its_snapshots_make_datasets(onebeat, learned, tmp_path):
    policies, _ = learned
    out = tmp_path / "data.hdf5"
    words = ("--policies", str(policies), "--steps", "50", "--out", str(out), "--json")
    done = onebeat("data", "generate", "hopper-medium-replay-regen", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 50


def test_ctrl_c_saves_it_and_the_same_command_goes_on(onebeat, tmp_path):
    words = ("sac", *SETTINGS, "steps=2500", "log_every=100", f"out={tmp_path}", "--json")
    # The interpreter's own handler first, as a shell without job control has it ignored.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{start}; from controller.cli import main; raise SystemExit(main({list(words)!r}))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        metrics = tmp_path / "metrics.jsonl"
        while not (metrics.is_file() and b'"q"' in metrics.read_bytes()):
            assert child.poll() is None
            assert time.monotonic() < until, "it never learned"
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    facts = json.loads(out)
    assert child.returncode == 0
    assert not facts["finished"]
    assert facts["steps"] > 100
    assert facts["steps"] % 2 == 0
    rest = onebeat(*words)
    assert rest.returncode == 0, rest.stderr
    assert json.loads(rest.stdout)["finished"]
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 2500
