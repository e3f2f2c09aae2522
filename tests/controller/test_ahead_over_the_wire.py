"""Asking a policy server without waiting for its answers."""

import tempfile
import time

import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.endpoints import endpoint_for
from controller.errors import SpecMismatch
from controller.interfaces import AheadPolicy
from controller.remote_policy import RemotePolicy
from controller.spec import ArraySpec, Spec
from controller.types import ActionChunk, Observation, Reason, Rejected, Request
from controller.wire import Answer, Ask, Hello, Reject
from tests.controller.scripted import ScriptedServer

SPEC = Spec(
    task="test",
    observation=(ArraySpec("position", (2,)),),
    action=ArraySpec("force", (2,), "float32"),
    rate_hz=100.0,
)
ARRAYS = (np.array([1.0, 2.0]),)
MS = 1_000_000
CLOCK = MonotonicClock()


@pytest.fixture
def endpoint():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        yield endpoint_for(path, "s")


@pytest.fixture
def policy(endpoint):
    policy = RemotePolicy(endpoint, SPEC, CLOCK)
    yield policy
    policy.close()


def request(tick, budget_ms=50, prefix=None, arrays=ARRAYS):
    deadline_ns = CLOCK.now_ns() + budget_ms * MS
    return Request(tick, 7, Observation(arrays, 0), 0, deadline_ns, prefix)


def answer(tick, value=0.0, horizon=2, prefix=0):
    actions = np.full((horizon, 2), value, np.float32)
    return Answer(tick, "v1", 1, 10, 20, horizon, prefix=prefix), (actions,)


def replying(replies):
    """Answer to each tick what is given for it, and nothing otherwise."""
    return lambda message, arrays: replies.get(message.tick, []) if isinstance(message, Ask) else []


def await_answers(policy, count):
    """Poll until ``count`` answers have come."""
    found = []
    until_ns = CLOCK.now_ns() + 20_000 * MS
    while len(found) < count:
        assert CLOCK.now_ns() < until_ns, f"only {found}"
        item = policy.poll()
        if item is None:
            time.sleep(0.001)
        else:
            found.append(item)
    return found


def test_a_request_is_sent_and_its_answer_collected(endpoint, policy):
    with ScriptedServer(endpoint, SPEC, replying({3: [answer(3, 5.0, 4, prefix=2)]})) as server:
        policy.connect()
        assert isinstance(policy, AheadPolicy)
        assert policy.poll() is None
        prefix = np.ones((2, 2), np.float32)
        assert policy.submit(request(3, prefix=prefix))
        (chunk,) = await_answers(policy, 1)
        ask = next(message for message in server.received if isinstance(message, Ask))
    assert (chunk.tick, chunk.prefix, chunk.actions.shape) == (3, 2, (4, 2))
    assert chunk.rtt_ns > 0
    assert (ask.prefix, policy.newest_chunk is chunk, policy.late) == (2, True, 0)
    assert 0 < ask.budget_ns <= 50 * MS
    assert policy.poll() is None


def test_neither_asking_nor_looking_waits(endpoint, policy):
    with ScriptedServer(endpoint, SPEC):
        policy.connect()
        before_ns = CLOCK.now_ns()
        for tick in range(20):
            assert policy.submit(request(tick, budget_ms=20_000))
            assert policy.poll() is None
        assert CLOCK.now_ns() - before_ns < 20_000 * MS


def test_every_valid_answer_comes_in_the_order_of_arrival(endpoint, policy):
    replies = {2: [answer(1, 1.0), answer(2, 2.0), answer(1, 1.0), answer(9, 9.0), answer(0)]}
    with ScriptedServer(endpoint, SPEC, replying(replies)):
        policy.connect()
        for tick in range(3):
            policy.submit(request(tick))
        chunks = await_answers(policy, 4)
    assert [chunk.tick for chunk in chunks] == [1, 2, 1, 0]
    assert (policy.malformed, policy.late, policy.newest_chunk.tick) == (1, 3, 2)


@pytest.mark.parametrize(
    ("code", "reason", "detail"),
    [
        ("late", Reason.LATE, ""),
        ("superseded", Reason.LATE, ""),
        ("failed", Reason.REFUSED, "failed: because"),
    ],
)
def test_a_rejection_is_told(endpoint, policy, code, reason, detail):
    with ScriptedServer(endpoint, SPEC, replying({1: [Reject(1, code, "because")]})):
        policy.connect()
        policy.submit(request(1))
        (rejected,) = await_answers(policy, 1)
    assert (rejected.tick, rejected.reason) == (1, reason)
    assert rejected.detail.endswith(detail)
    assert policy.ready


def test_a_forgotten_client_joins_again_by_asking(endpoint, policy):
    replies = {0: [Reject(0, "no_session", "")]} | {k: [answer(k)] for k in range(1, 3000)}
    with ScriptedServer(endpoint, SPEC, replying(replies)) as server:
        policy.connect()
        policy.submit(request(0))
        assert await_answers(policy, 1) == [Rejected(0, Reason.UNREACHABLE)]
        assert not policy.ready
        for tick in range(1, 3000):
            policy.submit(request(tick))
            if isinstance(policy.poll(), ActionChunk):
                break
            time.sleep(0.002)
        assert policy.ready
        assert sum(isinstance(message, Hello) for message in server.received) >= 2


def test_an_old_rejection_does_not_end_the_session(endpoint, policy):
    replies = {1: [Reject(0, "no_session", ""), answer(1)]}
    with ScriptedServer(endpoint, SPEC, replying(replies)):
        policy.connect()
        policy.submit(request(0))
        policy.submit(request(1))
        rejected, chunk = await_answers(policy, 2)
    assert (rejected.reason, chunk.tick, policy.ready) == (Reason.UNREACHABLE, 1, True)


def test_without_a_server_nothing_is_sent(policy):
    assert [policy.submit(request(tick)) for tick in range(20)] == [False] * 20
    assert policy.poll() is None


def test_an_observation_of_another_robot_is_not_sent(endpoint, policy):
    with ScriptedServer(endpoint, SPEC):
        policy.connect()
        with pytest.raises(SpecMismatch, match="expected"):
            policy.submit(request(0, arrays=(np.zeros(3),)))
