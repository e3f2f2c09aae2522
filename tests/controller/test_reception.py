import itertools
import subprocess
import sys
import threading

import msgspec
import numpy as np
import pytest

from controller.clock import MonotonicClock, VirtualClock
from controller.errors import Refused, SpecMismatch
from controller.greeting import Session
from controller.reception import Reception
from controller.remote_policy import RemotePolicy
from controller.transport import Client, Sent
from controller.types import Observation, Request
from controller.wire import (
    PROTOCOL,
    Answer,
    Ask,
    Bye,
    Command,
    Hello,
    Ping,
    Pong,
    Refusal,
    Reject,
    Welcome,
    decode,
    encode,
)
from tests.controller.scripted import ARRAYS, CLOCK, OTHER, SPEC

LONG_NS = 20_000_000_000
ARM = msgspec.structs.replace(SPEC, task="an arm")
numbers = itertools.count()


class Door:
    """A reception over inproc under a virtual clock, with one raw client."""

    def __init__(self, specs=None, **rates):
        self.clock = VirtualClock(1_000_000_000)
        endpoint = f"inproc://reception-{next(numbers)}"
        named = {"arm": "v-arm", "leg": "v-leg", "": "v"}
        self.reception = Reception(
            endpoint, "policy", specs or {"": SPEC}, self.clock, named.__getitem__, **rates
        )
        self.client = Client(endpoint)

    def say(self, message, arrays=()):
        """Send one message, and return what the server has to deal with and what came back."""
        return self.bytes(*encode(message, arrays))

    def bytes(self, *frames):
        assert self.client.send(frames)
        delivered = list(self.reception.deliveries(LONG_NS, 1))
        return delivered, self.heard()

    def heard(self):
        replies = []
        while (frames := self.client.receive(0)) is not None:
            replies.append(decode(frames)[0])
        return replies

    def close(self):
        self.client.close()
        self.reception.close()


@pytest.fixture
def door(closing):
    return lambda *args, **rates: closing(Door(*args, **rates))


def hello(**changes):
    said = Hello(PROTOCOL, "policy", "robot", "", 5)
    return msgspec.structs.replace(said, **changes)


def ask(tick=1):
    return Ask(tick, 7, 0, 0, 0, 10), ARRAYS


def test_a_greeting_is_answered_with_the_spec_and_the_version(door):
    one = door()
    delivered, (welcome,) = one.say(hello())
    assert delivered == []
    assert isinstance(welcome, Welcome)
    assert (welcome.protocol, welcome.version, welcome.sent_ns) == (PROTOCOL, "v", 5)
    assert welcome.server_ns == one.clock.now_ns()
    (delivery,), replies = one.say(*ask())
    assert (delivery.message, delivery.policy, replies) == (ask()[0], "", [])
    assert [bytes(frame) for frame in delivery.arrays] == [array.tobytes() for array in ARRAYS]


@pytest.mark.parametrize(("name", "known"), [("", "arm"), ("arm", "arm"), ("leg", "leg")])
def test_policies_by_name(door, name, known):
    one = door({"arm": ARM, "leg": SPEC})
    _, (welcome,) = one.say(hello(policy=name))
    assert welcome.version == f"v-{known}"
    (delivery,), _ = one.say(*ask())
    assert delivery.policy == known


@pytest.mark.parametrize(
    ("changes", "code", "detail"),
    [
        (
            {"protocol": PROTOCOL + 1},
            "protocol",
            f"server speaks {PROTOCOL}, client {PROTOCOL + 1}",
        ),
        ({"protocol": 0}, "protocol", f"server speaks {PROTOCOL}, client 0"),
        ({"role": "plant"}, "role", "this is a policy server, no plant server"),
        ({"policy": "hand"}, "policy", "no policy 'hand' here, only arm, leg"),
        ({"policy": "arm", "spec_digest": "0" * 16}, "spec", ARM.describe()),
        ({"policy": "arm", "spec_digest": SPEC.digest()}, "spec", ARM.describe()),
    ],
)
def test_refusals_have_a_reason(door, changes, code, detail):
    one = door({"arm": ARM, "leg": SPEC})
    assert one.say(hello(**changes)) == ([], [Refusal(code, detail)])
    assert one.say(*ask()) == ([], [Reject(1, "no_session", "say hello first")])


def test_a_ping_is_answered_with_the_clock(door):
    one = door()
    assert one.say(Ping(3)) == ([], [Reject(-1, "no_session", "say hello first")])
    one.say(hello())
    now_ns = one.clock.now_ns()
    assert one.say(Ping(3)) == ([], [Pong(3, now_ns, now_ns)])


def test_what_is_for_another_server_is_refused(door):
    one = door()
    one.say(hello(role="control"))
    delivered, (refusal,) = one.say(*ask())
    assert delivered == []
    assert refusal == Refusal("malformed", "a policy server got this from a control client")
    one.say(hello())
    delivered, _ = one.say(Command(1), (np.zeros(2, np.float32),))
    assert len(delivered) == 1  # the server says what it has no use for
    assert one.reception.malformed == 1


def test_a_session_ends_with_bye(door):
    one = door()
    one.say(hello())
    identity = one.reception.guests("policy")[0]
    assert one.reception.knows(identity)
    (delivery,), _ = one.say(Bye())
    assert (delivery.identity, delivery.message) == (identity, Bye())
    assert not one.reception.knows(identity)


def test_a_farewell_counts_behind_a_question_whose_answer_found_nobody(door, monkeypatch):
    one = door()
    one.say(hello())
    identity = one.reception.guests("policy")[0]
    monkeypatch.setattr(one.reception._server, "offer", lambda who, frames: Sent.GONE)
    one.say(Ping(5))
    assert not one.reception.knows(identity)
    (delivery,), _ = one.say(Bye())
    assert (delivery.identity, delivery.message) == (identity, Bye())
    assert one.say(Bye()) == ([], [])


# Rates.


def test_what_exceeds_the_rate_is_dropped_and_told_once_a_second(door):
    one = door(max_rate_hz=40.0)  # ten at once, then one every 25 ms
    one.say(hello())
    delivered, replies = [], []
    for _ in range(30):
        got, said = one.say(*ask())
        delivered += got
        replies += said
    assert len(delivered) == 9
    assert replies == [
        Reject(-1, "rate", "1 messages dropped: more than 40 messages or 200 MB per second")
    ]
    identity = delivered[0].identity
    assert one.reception.dropped == one.reception.dropped_of(identity) == 21
    one.clock.advance(30_000_000)
    assert len(one.say(*ask())[0]) == 1
    assert one.say(*ask()) == ([], [])  # not told again
    one.clock.advance(970_000_000)
    for _ in range(10):
        one.say(*ask())
    (told,) = one.say(*ask())[1]
    assert told.detail.startswith("23 messages dropped")


def test_bytes_are_capped_too(door):
    one = door(max_bytes_s=8000.0)
    one.say(hello())
    frame = bytes(3000)
    assert isinstance(one.bytes(frame)[1][0], Refusal)  # on credit
    assert one.bytes(frame)[1][0].code == "rate"
    one.clock.advance(500_000_000)
    assert isinstance(one.bytes(frame)[1][0], Refusal)


def test_garbage_and_strangers_are_metered_as_well(door):
    one = door(max_rate_hz=40.0)
    replies = [reply for _ in range(100) for reply in one.bytes(b"garbage")[1]]
    assert [type(reply) for reply in replies] == [Refusal] * 10 + [Reject]
    assert one.reception.malformed == 10


def test_a_frame_longer_than_the_robot_s_costs_the_connection(endpoint, closing):
    """The largest array here has 16 bytes, and a header at most 64 KiB."""
    with Echo(endpoint) as echo:
        flooder = closing(Session(echo.endpoint, "policy", CLOCK, spec=SPEC))
        client = closing(RemotePolicy(echo.endpoint, SPEC, CLOCK))
        flooder.connect(20.0)
        client.connect(20.0)
        flooder._client.send([bytes(64 * 1024 + 1)])
        flooder._client.send([bytes(64 * 1024)])
        for tick in range(20):
            assert client.infer(request(tick)).tick == tick
        assert echo.reception.malformed <= 1


def request(tick):
    observation = Observation(ARRAYS, 0, episode=2, step=5)
    return Request(tick, 7, observation, 11, CLOCK.now_ns() + LONG_NS)


class Echo:
    """A policy server of the least kind, in a thread: zeros for every request."""

    def __init__(self, endpoint, specs=None, **rates):
        clock = MonotonicClock()
        self.reception = Reception(endpoint, "policy", specs or {"": SPEC}, clock, **rates)
        self.endpoint = self.reception.endpoint
        self.slept = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        zeros = np.zeros((1, 2), np.float32)
        while not self._stop.is_set():
            for delivery in self.reception.deliveries(5_000_000, 64):
                message = delivery.message
                if isinstance(message, Ask):
                    answer = Answer(message.tick, "v", 1, 0, 0, 1)
                    self.reception.send(delivery.identity, answer, (zeros,))
        self.reception.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


FLOOD = """
import sys
from controller.clock import MonotonicClock
from controller.greeting import Session
from controller.signals import die_with_parent
from controller.wire import Ask
from tests.controller.scripted import ARRAYS, SPEC
die_with_parent()
session = Session(sys.argv[1], "policy", MonotonicClock(), "flooder", SPEC)
session.connect(20.0)
sys.stdout.write("flooding\\n")
sys.stdout.flush()
while True:
    for tick in range(1000):
        session.send(Ask(tick, 7, 0, 0, 0, 10), ARRAYS)
    while session.receive(0):
        pass
"""


def test_a_process_that_floods_is_dropped_and_the_others_are_answered(endpoint, closing):
    with Echo(endpoint, max_rate_hz=2000.0) as echo:
        flooder = subprocess.Popen(
            [sys.executable, "-c", FLOOD, echo.endpoint], stdout=subprocess.PIPE, text=True
        )
        try:
            assert flooder.stdout.readline() == "flooding\n"
            client = closing(RemotePolicy(echo.endpoint, SPEC, CLOCK))
            client.connect(20.0)
            for tick in range(400):
                assert client.infer(request(tick)).tick == tick
            while not echo.reception.dropped:
                pass
        finally:
            flooder.kill()
            flooder.communicate(timeout=20)
        assert client.malformed == 0


# Refusals, over a socket.


def test_the_wrong_policy_is_refused_with_the_names(endpoint, closing):
    with Echo(endpoint, {"arm": ARM, "leg": SPEC}):
        right = closing(RemotePolicy(endpoint, SPEC, CLOCK, policy="leg"))
        right.connect(20.0)
        with pytest.raises(Refused, match=r"\(policy\): no policy 'hand' here, only arm, leg"):
            closing(RemotePolicy(endpoint, SPEC, CLOCK, policy="hand")).connect(20.0)
        with pytest.raises(SpecMismatch, match=r"different robots: .* has an arm: "):
            closing(RemotePolicy(endpoint, SPEC, CLOCK, policy="arm")).connect(20.0)
        assert right.infer(request(0)).tick == 0


def test_the_wrong_robot_role_and_version_are_refused(endpoint, closing, monkeypatch):
    with Echo(endpoint):
        with pytest.raises(SpecMismatch, match=r"has another robot: .* has test: "):
            closing(RemotePolicy(endpoint, OTHER, CLOCK)).connect(20.0)
        with pytest.raises(Refused, match=r"\(role\): this is a policy server, no plant server"):
            closing(Session(endpoint, "plant", CLOCK)).connect(20.0)
        monkeypatch.setattr("controller.greeting.PROTOCOL", 2)
        with pytest.raises(Refused, match=rf"\(protocol\): server speaks {PROTOCOL}, client 2"):
            closing(Session(endpoint, "policy", CLOCK)).connect(20.0)
