"""The learner as a process beside the replay service as one: killed, started again, ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from controller.clock import MonotonicClock
from controller.config import to_yaml
from controller.control import control
from controller.endpoints import endpoint_for
from controller.feed.client import ReplayClient
from policies.bundle import publish, read_manifest
from policies.finetuning.settings import GateSettings, ReplaySettings
from policies.learning import ConsistencySettings
from policies.metrics import read_lines
from policies.train_state import read_state
from tests.policies.finetuning.experience import config, rows_of
from tests.policies.robots import SPEC, toy_bundle, toy_data

ROWS = rows_of(toy_data(2_000, seed=2))


class Part:
    """One process of the fine-tuning in ``out``."""

    def __init__(self, name: str, out: Path) -> None:
        words = [sys.executable, "-m", "controller.cli", "finetune", name]
        self.errors = (out / f"{name}.txt").open("ab")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*words, f"settings={out / 'finetune.yaml'}"], stderr=self.errors, env=environment
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.errors.close()
        return self.process.wait(30)


def until(condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def insert(client: ReplayClient, rows) -> None:
    client.offer(rows, ("v1",))
    assert client.flush(10.0)


@pytest.mark.slow
def test_a_killed_learner_goes_on_and_neither_side_waits_for_it(tmp_path):
    parent = toy_bundle(tmp_path / "parent", loss=ConsistencySettings(levels_end=5))
    out = tmp_path / "out"
    publish(parent, out / "bundles")
    endpoint = endpoint_for(tmp_path, "replay")
    settings = config(
        out,
        {"warmup_steps": 100, "updates_per_step": 0.5, "critic_updates": 50},
        parent=str(parent),
        updates=None,
        live=True,
        replay=ReplaySettings(endpoint=endpoint, slack=8, capacity=10_000),
        gate=GateSettings(every=50),
        save_every=50,
        log_every=10,
    )
    (out / "finetune.yaml").write_text(to_yaml(settings))
    (out / "spec.json").write_bytes(msgspec.json.encode(SPEC))
    figures, parts = out / "learner" / "metrics.jsonl", {}

    def updates() -> int:
        lines = read_lines(figures)
        return lines[-1]["step"] if lines else 0

    client = ReplayClient(endpoint, SPEC, MonotonicClock(), "actor-0")
    try:
        # The learner is there first, and seeks its service without a word.
        parts["learner"] = Part("learner", out)
        parts["replay"] = Part("replay", out)
        client.connect(30.0)
        insert(client, ROWS[:700])
        # 0.5 (700 - 100) updates are allowed, and 8 beyond.
        until(lambda: updates() >= 300)
        until(lambda: read_state(out / "learner").about["updates"] >= 300)
        assert parts["learner"].end(signal.SIGKILL) == -signal.SIGKILL
        insert(client, ROWS[700:1500])
        parts["learner"] = Part("learner", out)
        until(lambda: updates() >= 700)
        assert parts["replay"].end(signal.SIGKILL) == -signal.SIGKILL
        assert parts["learner"].process.poll() is None
        parts["replay"] = Part("replay", out)
        insert(client, ROWS[1500:])
        until(lambda: updates() >= 940)
        control(endpoint, "finish", timeout_s=10.0)
        assert parts["learner"].process.wait(60) == 0
    finally:
        client.close()
        for part in parts.values():
            part.end()
    assert (out / "learner.txt").read_text() == ""
    state = read_state(out / "learner").about
    assert 950 <= state["updates"] <= 958
    made = [read_manifest(path).training for path in (out / "candidates").glob("v*")]
    # Those of the updates that were done again are the same bundles only by chance.
    assert max(training["steps"] for training in made) == state["updates"]
    assert {training["steps"] for training in made} >= set(range(100, 951, 50))
