"""Chunks from a server of its own: what happens when it is stopped, and when it goes on."""

import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.clock import MonotonicClock
from controller.endpoints import endpoint_for
from controller.loop import ControlLoop, LoopConfig, Outcome
from controller.remote_policy import RemotePolicy
from controller.testing import FakePolicy, FakeRealTimePlant, ListSink, example_spec
from controller.types import Rung

SERVE = """
import sys
from controller.clock import MonotonicClock
from controller.testing import FakePolicy, example_spec
from policies.serving.server import PolicyServer
policy = FakePolicy(example_spec(50.0), horizon=16)
server = PolicyServer({"": policy}, sys.argv[1], MonotonicClock(), None)
sys.stdout.write("serving\\n")
sys.stdout.flush()
server.run(lambda: False)
"""
STOP_AT, GO_ON_AT, TICKS = 30, 60, 90
SPEC = example_spec(50.0)


class Puppeteer(ListSink):
    """Stops a process at one tick and lets it go on at another."""

    def __init__(self, pid):
        super().__init__()
        self._pid = pid

    def tick(self, record):
        ticks = [r.tick for r in self.records]
        for limit, number in ((STOP_AT, signal.SIGSTOP), (GO_ON_AT, signal.SIGCONT)):
            if record.tick >= limit and not any(tick >= limit for tick in ticks):
                os.kill(self._pid, number)
        return super().tick(record)


@pytest.fixture
def server():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        endpoint = endpoint_for(path, "s")
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE, endpoint], stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout.readline() == "serving\n"
            yield child, endpoint
        finally:
            child.kill()
            child.communicate(timeout=20)


@pytest.mark.parametrize("ask", ["each_tick", "ahead"])
def test_a_stopped_server_costs_tail_then_local_then_hold_and_recovers(server, ask):
    child, endpoint = server
    clock, sink = MonotonicClock(), Puppeteer(child.pid)
    policy = RemotePolicy(endpoint, SPEC, clock)
    policy.connect(20.0)
    config = LoopConfig(
        stop_after_s=60.0,
        chunks=ChunkSettings(ask=ask),
        fallback=FallbackSettings(tail_ticks=4, local_ticks=8),
    )
    plant = FakeRealTimePlant(clock, SPEC, episode_steps=10**6)
    loop = ControlLoop(
        plant, policy, sink, clock, config, seed=1, local=FakePolicy(SPEC, version="replica")
    )
    try:
        assert loop.run(ticks=TICKS) is Outcome.TICKS
    finally:
        policy.close()
    records = sink.records
    before = [r.rung for r in records if 10 <= r.tick <= STOP_AT]
    assert before.count(Rung.FRESH) > len(before) // 2
    stopped = [r.rung for r in records if STOP_AT + 12 < r.tick <= GO_ON_AT]
    path = [r.rung for r in records if STOP_AT < r.tick <= GO_ON_AT]
    path = path[path.index(Rung.TAIL) :]
    assert path == sorted(path)
    assert 1 <= path.count(Rung.TAIL) <= 4
    assert 1 <= path.count(Rung.LOCAL) <= 8
    assert stopped[-1] is Rung.HOLD
    assert Rung.FRESH in [r.rung for r in records if r.tick > GO_ON_AT]
    assert all(np.isfinite(r.executed).all() for r in records)
    sent = dict(plant.commands)
    assert all(sent[r.tick].tolist() == r.executed.tolist() for r in records)
    for record in records:
        if record.rung <= Rung.TAIL:
            assert record.tick - 16 < record.answer_tick <= record.tick
            assert record.version == "fake-1"
