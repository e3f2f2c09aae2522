import random
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import PeerTimeout, Refused, SpecMismatch
from controller.interfaces import Policy
from controller.remote_policy import RemotePolicy
from controller.types import Observation, Request
from controller.wire import PROTOCOL, Answer, Ask, Bye, Hello, Refusal, Reject
from tests.controller.scripted import (
    ARRAYS,
    CLOCK,
    MS,
    OTHER,
    SPEC,
    ScriptedServer,
    repeat,
    welcome,
)

LONG_MS = 20_000


@pytest.fixture
def policy(endpoint, closing):
    return closing(RemotePolicy(endpoint, SPEC, CLOCK, client_name="tester"))


def request(tick, budget_ms=LONG_MS, arrays=ARRAYS):
    deadline_ns = CLOCK.now_ns() + budget_ms * MS
    return Request(tick, 7, Observation(arrays, 0, episode=2, step=5), 11, deadline_ns)


def answer(tick, value=0.0, version="v1", horizon=1):
    actions = np.full((horizon, 2), value, np.float32)
    return Answer(tick, version, 1, 10, 20, horizon), (actions,)


def answering(message, arrays):
    return [answer(message.tick, message.tick)] if isinstance(message, Ask) else []


def asks(messages):
    return [message for message in messages if isinstance(message, Ask)]


def test_a_request_and_its_answer(endpoint, policy):
    def reply(message, arrays):
        if not isinstance(message, Ask):
            return []
        position = np.frombuffer(arrays[0])
        goal = np.frombuffer(arrays[1], np.float32)
        actions = np.array([position * 2, [goal[0], message.seed]], np.float32)
        return [(Answer(message.tick, "v2", 3, 40, 50, 2), (actions,))]

    with ScriptedServer(endpoint, SPEC, reply) as server:
        assert isinstance(policy, Policy)
        assert (policy.version, policy.ready, policy.spec) == ("", False, SPEC)
        policy.connect()
        assert (policy.version, policy.ready) == ("v1", True)
        chunk = policy.infer(request(9))
        assert chunk.actions.tolist() == [[2.0, 4.0], [3.0, 7.0]]
        assert chunk.actions.dtype == np.float32
        assert (chunk.tick, chunk.version, chunk.evaluations) == (9, "v2", 3)
        assert (chunk.queue_ns, chunk.infer_ns) == (40, 50)
        assert policy.version == "v2"
        assert policy.newest_chunk is chunk
        hello, ask = server.received[0], server.received[-1]
        assert (hello.role, hello.client, hello.spec_digest) == ("policy", "tester", SPEC.digest())
        assert (ask.tick, ask.seed, ask.episode, ask.step, ask.age_ns) == (9, 7, 2, 5, 11)
        assert 0 < ask.budget_ns <= LONG_MS * MS


def test_silence_gives_nothing_at_the_deadline(endpoint, policy):
    with ScriptedServer(endpoint, SPEC) as server:
        policy.connect()
        asked = request(0, budget_ms=20)
        assert policy.infer(asked) is None
        assert CLOCK.now_ns() >= asked.deadline_ns
        assert policy.infer(request(1, budget_ms=-5)) is None
        while len(asks(server.received)) < 2:
            time.sleep(0.001)
        assert server.received[-1].budget_ns == 0
        assert policy.ready


def test_a_late_answer_is_kept_but_never_given_for_a_newer_request(endpoint, policy):
    def reply(message, arrays):
        if isinstance(message, Ask) and message.tick == 5:
            return [answer(4, 4.0, horizon=3), answer(5, 5.0)]
        return []

    with ScriptedServer(endpoint, SPEC, reply):
        policy.connect()
        assert policy.infer(request(4, budget_ms=1)) is None
        assert policy.late == 0
        chunk = policy.infer(request(5))
        assert chunk.tick == 5
        assert chunk.actions.tolist() == [[5.0, 5.0]]
        assert policy.late == 1
        assert policy.newest_chunk is chunk


def test_the_tail_of_a_late_answer_is_there_for_the_ladder(endpoint, policy):
    def reply(message, arrays):
        if isinstance(message, Ask) and message.tick == 6:
            return [answer(4, 4.0, "old", horizon=3), answer(5, 5.0, horizon=3), answer(4, 0.0)]
        return []

    with ScriptedServer(endpoint, SPEC, reply):
        policy.connect()
        assert policy.infer(request(6, budget_ms=100)) is None
        assert policy.late == 3
        assert policy.newest_chunk.tick == 5
        assert policy.newest_chunk.at(6).tolist() == [5.0, 5.0]
        assert policy.version == "v1"


@pytest.mark.parametrize(
    "garbage",
    [
        [b""],
        [b"\xff" * 1000],
        [b"\x91" * 5000, b"x"],
        (Answer(3, "v1", 1, 0, 0, 2), (np.zeros((1, 2), np.float32),)),
        (Answer(3, "v1", 1, 0, 0, 1), (np.zeros((1, 2)),)),
        (Answer(99, "v1", 1, 0, 0, 1), (np.zeros((1, 2), np.float32),)),
        Refusal("malformed", "what?"),
        [b"x"] * 70,
    ],
)
def test_garbage_is_counted_and_the_answer_behind_it_found(endpoint, policy, garbage):
    def reply(message, arrays):
        return [garbage, answer(3, 3.0)] if isinstance(message, Ask) else []

    with ScriptedServer(endpoint, SPEC, reply):
        policy.connect()
        chunk = policy.infer(request(3))
        assert chunk.actions.tolist() == [[3.0, 3.0]]
        assert policy.malformed == 1
        assert policy.newest_chunk is chunk


def test_a_server_of_nothing_but_garbage(endpoint, policy):
    source = random.Random(0)

    def reply(message, arrays):
        return [
            [source.randbytes(source.randrange(40)) for _ in range(source.randrange(1, 4))]
            for _ in range(50)
        ]

    with ScriptedServer(endpoint, SPEC, reply):
        policy.connect()
        for tick in range(10):
            assert policy.infer(request(tick, budget_ms=20)) is None
        assert policy.malformed > 0
        assert policy.newest_chunk is None


@pytest.mark.parametrize("code", ["failed", "nonfinite", "malformed"])
def test_a_rejected_request_tells_why(endpoint, policy, code):
    def reply(message, arrays):
        return [Reject(1, code, "an older one"), Reject(message.tick, code, "because")]

    with ScriptedServer(endpoint, SPEC, reply):
        policy.connect()
        with pytest.raises(Refused, match=f"{code}: because"):
            policy.infer(request(2))
        assert policy.ready


@pytest.mark.parametrize("code", ["late", "superseded"])
def test_a_request_the_server_had_no_time_for_has_no_answer(endpoint, policy, code):
    with ScriptedServer(endpoint, SPEC, lambda message, arrays: [Reject(message.tick, code, "")]):
        policy.connect()
        before_ns = CLOCK.now_ns()
        assert policy.infer(request(2)) is None
        assert CLOCK.now_ns() - before_ns < LONG_MS * MS
        assert policy.ready


@pytest.mark.parametrize(
    "arrays",
    [ARRAYS[:1], (ARRAYS[0], ARRAYS[1].astype(float)), (ARRAYS[0][None], ARRAYS[1])],
)
def test_observations_of_another_robot_are_not_sent(endpoint, policy, arrays):
    with ScriptedServer(endpoint, SPEC, answering) as server:
        policy.connect()
        with pytest.raises(SpecMismatch, match="expected"):
            policy.infer(request(0, arrays=arrays))
        assert not asks(server.received)


def ask_until_answered(policy, first_tick):
    """Ask at successive ticks; return the first answer and the number of requests."""
    for count in range(2000):
        chunk = policy.infer(request(first_tick + count, budget_ms=10))
        if chunk is not None:
            return chunk, count
        time.sleep(0.002)
    raise AssertionError("never answered")


def test_a_server_that_forgot_its_clients_is_greeted_again(endpoint, policy):
    def reply(message, arrays):
        if isinstance(message, Ask) and message.tick == 0:
            return [Reject(message.tick, "no_session", "")]
        return answering(message, arrays)

    with ScriptedServer(endpoint, SPEC, reply) as server:
        policy.connect()
        assert policy.infer(request(0)) is None
        assert not policy.ready
        chunk, _ = ask_until_answered(policy, 1)
        assert chunk.tick >= 1
        assert policy.ready
        assert sum(isinstance(message, Hello) for message in server.received) >= 2


def test_without_a_server_nothing_waits(policy):
    before_ns = CLOCK.now_ns()
    for tick in range(100):
        assert policy.infer(request(tick)) is None
    assert CLOCK.now_ns() - before_ns < LONG_MS * MS
    assert not policy.ready


SERVE = """
import sys
sys.path.insert(0, ".")
from tests.controller.scripted import ScriptedServer
from tests.controller.scripted import SPEC
from tests.controller.test_remote_policy import answering
server = ScriptedServer(sys.argv[1], SPEC, answering, version=sys.argv[2])
sys.stdout.write("serving\\n")
sys.stdout.flush()
sys.stdin.read()
server.close()
"""


def serve_elsewhere(endpoint, version):
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE, endpoint, version],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "serving\n"
    return child


def kill(child):
    child.kill()
    child.communicate(timeout=20)


def test_a_killed_server_costs_answers_until_the_next_one_is_there(endpoint, policy):
    child = serve_elsewhere(endpoint, "first")
    try:
        policy.connect(20.0)
        assert policy.version == "first"
        assert policy.infer(request(0)).tick == 0
    finally:
        kill(child)
    for tick in range(1, 30):
        assert policy.infer(request(tick, budget_ms=2)) is None
    assert not policy.ready
    with ScriptedServer(endpoint, SPEC, answering, version="second") as server:
        ask_until_answered(policy, 30)
        assert asks(server.received)[0].tick >= 30  # nothing old was delivered
        assert policy.ready
        assert any(isinstance(message, Hello) for message in server.received)


def test_a_server_replaced_by_one_for_another_robot_is_refused_until_it_is_right(endpoint, policy):
    with ScriptedServer(endpoint, SPEC, answering):
        policy.connect()
    with ScriptedServer(endpoint, OTHER, answering) as server:
        with pytest.raises(Refused, match="another robot"):
            repeat(lambda: policy.infer(request(0, budget_ms=5)))
        assert not policy.ready
        assert not asks(server.received)
    with ScriptedServer(endpoint, SPEC, answering):
        for tick in range(2000, 4000):
            try:
                if policy.infer(request(tick, budget_ms=10)) is not None:
                    return
            except Refused:
                time.sleep(0.01)
        raise AssertionError("never came back")


def test_connecting_to_nobody(policy):
    with pytest.raises(PeerTimeout, match=r"no server answered within 0\.05 s; is it running"):
        policy.connect(0.05)


def test_connecting_under_a_clock_that_stands_still(endpoint, closing):
    policy = closing(RemotePolicy(endpoint, SPEC, VirtualClock(), connect_timeout_s=0.05))
    with pytest.raises(PeerTimeout):
        policy.connect()


def test_connecting_to_a_server_that_is_still_starting(endpoint, policy):
    hellos = []

    def greet(hello):
        hellos.append(hello)
        return [welcome(hello, SPEC)] if len(hellos) > 1 else []

    with ScriptedServer(endpoint, SPEC, greet=greet):
        policy.connect(20.0)
        assert len(hellos) >= 2


@pytest.mark.parametrize(
    ("greet", "error", "match"),
    [
        (lambda h: [welcome(h, OTHER)], SpecMismatch, "tester has test: .* has another robot: "),
        (lambda h: [Refusal("spec", OTHER.describe())], SpecMismatch, "has another robot: "),
        (lambda h: [Refusal("role", "a plant server")], Refused, r"\(role\): a plant server"),
        (lambda h: [Refusal("protocol", "speaks 9")], Refused, r"\(protocol\): speaks 9"),
        (
            lambda h: [welcome(h, SPEC, protocol=1)],
            Refused,
            rf"\(protocol\): it speaks 1, not {PROTOCOL}",
        ),
    ],
)
def test_connecting_to_the_wrong_server(endpoint, policy, greet, error, match):
    with ScriptedServer(endpoint, SPEC, greet=greet), pytest.raises(error, match=match):
        policy.connect(20.0)
    assert not policy.ready


def test_connecting_to_a_server_that_welcomes_with_garbage(endpoint, policy):
    def greet(hello):
        return [msgspec.structs.replace(welcome(hello, SPEC), spec=b"\x91" * 1000)]

    with ScriptedServer(endpoint, SPEC, greet=greet), pytest.raises(PeerTimeout):
        policy.connect(0.3)
    assert policy.malformed > 0


def test_the_clock_probe_finds_the_servers_clock(endpoint, policy):
    hour_ns = 3_600_000_000_000
    greet = lambda hello: [welcome(hello, SPEC, ahead_ns=hour_ns)]  # noqa: E731
    before_ns = CLOCK.now_ns()
    with ScriptedServer(endpoint, SPEC, greet=greet):
        policy.connect(20.0)
    assert abs(policy.offset_ns - hour_ns) <= CLOCK.now_ns() - before_ns


def test_leaving_is_told_and_may_be_repeated(endpoint, policy):
    with ScriptedServer(endpoint, SPEC, answering) as server:
        policy.connect()
        policy.close()
        policy.close()
        for _ in range(2000):
            if isinstance(server.received[-1], Bye):
                break
            time.sleep(0.01)
        assert isinstance(server.received[-1], Bye)
    assert policy.infer(request(0)) is None
