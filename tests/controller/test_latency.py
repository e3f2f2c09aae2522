"""Timing of requests: closed forms on virtual time, and a real server beside a real echo."""

import contextlib
import io
import itertools
import threading

import msgspec
import numpy as np
import pytest
from rich.console import Console

from controller.clock import MonotonicClock, VirtualClock
from controller.floor import Quantiles
from controller.latency import (
    WARM_UP,
    LatencyReport,
    free_tcp_endpoint,
    measure,
    print_report,
    resting,
    time_policy,
)
from controller.process import RuntimeDirectory
from controller.spec import ArraySpec, Spec
from controller.testing import FakePolicy, example_spec
from controller.transport import endpoint_for
from controller.types import ActionChunk
from policies.server import PolicyServer

US = 1_000
SPEC = Spec(
    task="test",
    observation=(
        ArraySpec("position", (3,), low=(1.0, None, -2.0), high=(2.0, None, -1.0)),
        ArraySpec("picture", (2, 2), "uint8"),
    ),
    action=ArraySpec("action", (2,), "float32"),
    rate_hz=100.0,
)


class Scripted:
    """A policy that takes the time it is told to, on a virtual clock."""

    spec = SPEC
    version = "v1"

    def __init__(self, clock, trip_us, lost=()):
        self.clock = clock
        self.trips = itertools.cycle(trip_us)
        self.lost = set(lost)
        self.asked = []

    def infer(self, request):
        self.asked.append(request.tick)
        assert request.deadline_ns > self.clock.now_ns()
        self.clock.advance(next(self.trips) * US)
        if request.tick in self.lost:
            return None
        return ActionChunk(request.tick, np.zeros((1, 2)), "v1", queue_ns=50 * US, infer_ns=90 * US)

    def close(self):
        pass


def figures(value, samples):
    return Quantiles(value, value, value, value, samples)


def test_round_trip_is_split_by_what_the_server_says():
    clock = VirtualClock()
    policy = Scripted(clock, [400])
    row = time_policy(policy, clock, "ipc", 100.0, 0.1, itertools.count())
    assert row.round_trip == figures(400.0, 10)
    assert row.transport_us == figures(260.0, 10)
    assert row.queue == figures(50.0, 10)
    assert row.infer == figures(90.0, 10)
    assert (row.requests, row.unanswered, row.skipped) == (10, 0, 0)


def test_warm_up_is_left_out_and_no_number_is_used_twice():
    clock = VirtualClock()
    policy = Scripted(clock, [9000] * WARM_UP + [300] * 10)
    ticks = itertools.count()
    assert time_policy(policy, clock, "ipc", 100.0, 0.1, ticks).round_trip == figures(300.0, 10)
    time_policy(policy, clock, "ipc", 100.0, 0.1, ticks)
    assert policy.asked == list(range(2 * (WARM_UP + 10)))


def test_lost_answers_and_skipped_periods_are_counted():
    clock = VirtualClock()
    policy = Scripted(clock, [200] * WARM_UP + [200, 25_000, 200], lost={3, WARM_UP + 1})
    row = time_policy(policy, clock, "tcp", 100.0, 0.05, itertools.count())
    # Periods 0, 1, 3, 4: the second took 25 ms, and period 2 passed meanwhile.
    assert (row.requests, row.unanswered, row.skipped) == (4, 1, 1)
    assert row.round_trip.samples == 3


def test_back_to_back_waits_for_no_period():
    clock = VirtualClock()
    row = time_policy(Scripted(clock, [500]), clock, "ipc", None, 0.01, itertools.count())
    assert (row.requests, row.rate_hz, row.skipped) == (20, None, 0)


def test_silence_gives_no_figures():
    clock = VirtualClock()
    policy = Scripted(clock, [500], lost=range(1000))
    row = time_policy(policy, clock, "ipc", 100.0, 0.03, itertools.count())
    assert (row.requests, row.unanswered, row.round_trip) == (3, 3, None)


def test_resting_observation_is_within_the_limits():
    position, picture = resting(SPEC).arrays
    assert position.tolist() == [1.0, 0.0, -1.0]
    assert (picture.dtype, picture.shape, picture.any()) == (np.uint8, (2, 2), np.False_)


def _no_swap(path):
    raise AssertionError(f"nobody asked for {path}")


@pytest.fixture
def serve():
    """Start a real policy server in a thread and give its address."""
    stop = threading.Event()
    with RuntimeDirectory() as directory, contextlib.ExitStack() as stack:

        def start(transport):
            endpoint = endpoint_for(directory, "policy")
            endpoint = endpoint if transport == "ipc" else free_tcp_endpoint()
            server = PolicyServer(FakePolicy(), endpoint, MonotonicClock(), _no_swap)
            thread = threading.Thread(target=server.run, args=(stop.is_set,))
            thread.start()
            stack.callback(thread.join, 20.0)
            stack.callback(stop.set)
            return endpoint

        yield start
        stop.set()


def test_real_server_beside_an_echo(serve):
    report = measure(
        example_spec(), serve, rates_hz=(100.0,), transports=("ipc", "tcp"), seconds=0.2
    )
    assert [(row.server, row.transport, row.rate_hz) for row in report.rows] == [
        (server, transport, rate)
        for transport in ("ipc", "tcp")
        for rate in (100.0, None)
        for server in ("echo", "policy")
    ]
    assert (report.task, report.request_bytes) == ("example", 32)
    for row in report.rows:
        assert row.requests > 0
        assert row.unanswered < row.requests
        assert row.round_trip.p50 > 0
        if row.server == "policy":
            assert max(row.queue.p50, row.infer.p50) <= row.round_trip.max
        else:
            assert (row.queue, row.infer, row.transport_us) == (None, None, row.round_trip)
    assert msgspec.json.decode(msgspec.json.encode(report), type=LatencyReport) == report
    text = io.StringIO()
    print_report(report, Console(file=text, width=200))
    assert text.getvalue().count("unpaced") == 4
