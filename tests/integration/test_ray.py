"""Actors of a live fine-tuning on a Ray of this machine: one replay service, two workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray
SMALL = [
    "learn.critic.hidden=[16,16]", "learn.critic.count=2", "learn.batch=16",
    "learn.critic_updates=4", "learn.warmup_steps=200", "learn.updates_per_step=0.02",
    "gate.on=false", "gate.score_every=0", "evaluate_episodes=0",
]  # fmt: skip


def until(true, limit_s=60.0):
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def processes(out):
    """Return process ids by name, none before they are written."""
    try:
        return json.loads((out / "processes.json").read_text())
    except (OSError, ValueError):
        return {}


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_two_actors_feed_one_service_and_a_killed_worker_is_made_good(tmp_path):
    pytest.importorskip("ray", reason="pip install 'onebeat[ray]'")
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "controller.cli", "finetune", "hopper", "--live", "--task", "hopper",
        "mode=lockstep", "--actors", "ray", "--num-actors", "2", "steps=6000", f"out={out}",
        *SMALL, "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            until(lambda: processes(out).get("actor-0") and processes(out).get("actor-1"))
            before = processes(out)
            os.kill(parent_of(before["actor-1"]), signal.SIGKILL)
            until(lambda: processes(out).get("actor-1") not in (0, None, before["actor-1"]))
            written, said = run.communicate(timeout=80)
        finally:
            run.kill()
    assert run.returncode == 0, said.decode()
    result = json.loads(written)
    assert result["env_steps"] >= 6000
    assert (result["deaths"]["actor-0"], result["deaths"]["actor-1"]) == (0, 1)
    assert "actor-1 died (lost with its Ray worker" in said.decode()
    assert all((out / "actors" / name / "log.mcap").is_file() for name in ("actor-0", "actor-1"))
