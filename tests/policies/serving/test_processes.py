"""A policy server as a process of its own: swaps under load, its end, and the commands for it."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.control import control
from controller.launch import command
from controller.process import Child, Supervisor
from controller.remote_policy import RemotePolicy
from controller.types import Observation, Request
from policies.bundle import load_bundle

CLOCK = MonotonicClock()
PERIOD_NS = 5_000_000
LONG_NS = 2_000_000_000
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def spec():
    return load_bundle("hopper").spec


@pytest.fixture
def server(endpoint):
    """A started server of the hopper's policy, under two names."""
    with Supervisor() as supervisor:
        words = ("bundle=hopper", "policies.second=hopper", f"endpoint={endpoint}")
        child = supervisor.start(Child(command("serve", *words), "policy server"))
        control(endpoint, "ready", timeout_s=60.0)
        yield child


@dataclass
class Drive:
    """What a client at 200 Hz saw."""

    unanswered: list[int] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    longest_ms: float = 0.0
    ticks: int = 0


def drive(endpoint, spec, enough, budget_ns):
    """Ask at 200 Hz until ``enough()``; nobody who answers within ``budget_ns`` is unanswered."""
    seen, client = Drive(), RemotePolicy(endpoint, spec, CLOCK)
    arrays = tuple(np.zeros(array.shape, array.dtype) for array in spec.observation)
    client.connect(60.0)
    due_ns = CLOCK.now_ns() + PERIOD_NS
    while not enough():
        CLOCK.sleep_until(due_ns)
        request = Request(seen.ticks, 7, Observation(arrays, 0), 0, due_ns + budget_ns)
        chunk, took_ns = client.infer(request), CLOCK.now_ns() - due_ns
        if chunk is None:
            seen.unanswered.append(seen.ticks)
        else:
            assert chunk.tick == seen.ticks
            seen.versions.add(chunk.version)
        seen.longest_ms = max(seen.longest_ms, took_ns / 1e6)
        seen.ticks += 1
        due_ns = max(due_ns + PERIOD_NS, CLOCK.now_ns())
    client.close()
    return seen


SWAPS = """
import sys
from controller.control import control
for number in range(int(sys.argv[2])):
    control(sys.argv[1], "swap", {"bundle": "hopper"}, timeout_s=60.0)
"""


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def swap_under_load(endpoint, spec, swaps, budget_ns):
    """Swap again and again beside a client at 200 Hz."""
    operator = subprocess.Popen([sys.executable, "-c", SWAPS, endpoint, str(swaps)])
    try:
        seen = drive(endpoint, spec, lambda: operator.poll() is not None, budget_ns)
    finally:
        operator.kill()
        operator.wait()
    assert operator.returncode == 0
    return seen


def test_no_request_goes_unanswered_across_swaps(server, endpoint, spec):
    seen = swap_under_load(endpoint, spec, 20, LONG_NS)
    assert seen.unanswered == []
    assert seen.ticks > 50
    assert len(seen.versions) == 1
    stats = control(endpoint, "stats", timeout_s=20.0)
    assert stats["changes"] == {"swap": 20}
    assert stats["answered"] == stats["requests"] == seen.ticks


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_swaps_leave_nothing_behind(server, endpoint, spec):
    swap_under_load(endpoint, spec, 50, LONG_NS)
    before_kib = memory_kib(server.pid)
    seen = swap_under_load(endpoint, spec, 950, LONG_NS)
    assert seen.unanswered == []
    assert memory_kib(server.pid) - before_kib < 16 * 1024


@pytest.mark.realtime
@pytest.mark.timeout(600)
def test_a_thousand_swaps_under_200_hz_lose_no_tick():
    # In processes of their own: threads that move messages must be urgent from the start.
    words = [sys.executable, str(ROOT / "tests/benchmarks/serving.py"), "--swaps=1000", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    quiet, beside = json.loads(done.stdout)
    assert (beside["swaps"], beside["missed"]) == (1000, quiet["missed"]) == (1000, 0)


def test_sigterm_ends_it_in_order(server, endpoint, spec):
    client = RemotePolicy(endpoint, spec, CLOCK)
    client.connect(60.0)
    began = time.monotonic()
    server._process.send_signal(signal.SIGTERM)
    assert server.wait(20.0) == 0
    assert time.monotonic() - began < 15.0
    client.close()


def onebeat(*words):
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands(server, endpoint, spec):
    done = onebeat("metrics", endpoint)
    assert done.returncode == 0, done.stderr
    assert 'onebeat_policy_info{policy="second"' in done.stdout
    done = onebeat("metrics", endpoint, "--json")
    assert set(json.loads(done.stdout)["policies"]) == {"default", "second"}
    words = ("args.bundle=hopper", "args.policy=second", "args.share=0.5", "--json")
    done = onebeat("control", "canary", f"endpoint={endpoint}", *words)
    assert done.returncode == 0, done.stderr
    assert [step["name"] for step in json.loads(done.stdout)["steps"]][:3] == [
        *("hash", "engine", "golden"),
    ]
    done = onebeat("control", "promote", f"endpoint={endpoint}")
    assert done.returncode == 1
    assert "no version is on trial beside " in done.stderr
    assert done.stderr.count("\n") == 1
