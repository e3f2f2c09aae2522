"""A policy that doubles, servers of it in threads, and clients of them."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np

from controller.clock import MonotonicClock
from controller.control import control
from controller.greeting import Session
from controller.remote_policy import RemotePolicy
from controller.spec import ArraySpec, Spec
from controller.types import ActionChunk, Observation, Request
from controller.wire import Ask, Pong
from policies.serving.server import PolicyServer

SPEC = Spec(
    task="test",
    observation=(ArraySpec("position", (2,)), ArraySpec("mode", (), "uint8")),
    action=ArraySpec("force", (2,), "float32"),
    rate_hz=100.0,
)
OTHER = Spec("other robot", SPEC.observation, SPEC.action, 100.0)
CLOCK = MonotonicClock()
LONG_NS = 20_000_000_000
ARRAYS = (np.array([1.0, 2.0]), np.array(3, np.uint8))


class Doubler:
    """Answers twice the position; ``act(request)`` may do or give something else.

    Trials, which come with seed 0, are answered as well.
    """

    def __init__(self, version="v1", act=None, spec=SPEC, trials=None):
        self.version, self.spec = version, spec
        self.act, self.trials = act, trials
        self.closed = False

    def infer(self, request):
        assert not self.closed, "a closed policy was asked"
        act = self.trials if request.seed == 0 else self.act
        if act is not None:
            found = act(request)
            if isinstance(found, ActionChunk) or found == "nothing":
                return None if found == "nothing" else found
        position = request.observation.arrays[0]
        actions = np.array([2 * position], np.float32)
        return ActionChunk(request.tick, actions, self.version, evaluations=2)

    def close(self):
        self.closed = True


class Gate:
    """Holds the policy inside ``infer`` until it is opened."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, request):
        self.entered.set()
        assert self.open.wait(20)


def loads(path, steps):
    """A bundle is its version here."""
    return Doubler(path)


class Told(PolicyServer):
    """Tells of what it has done when the turn is over: answers are sent before they are counted."""

    turns = 0

    def turn(self, patience_ns):
        super().turn(min(patience_ns, 2_000_000))
        self.turns += 1

    def stats(self, policy=""):
        turns, until_ns = self.turns, CLOCK.now_ns() + 100_000_000
        while self.turns == turns and CLOCK.now_ns() < until_ns:
            time.sleep(0.0005)
        return super().stats(policy)


@contextlib.contextmanager
def serving(policies, endpoint, load=loads):
    """A server in a thread."""
    policies = policies if isinstance(policies, dict) else {"default": policies}
    stop = threading.Event()
    server = Told(policies, endpoint, CLOCK, load)
    thread = threading.Thread(target=server.run, args=(stop.is_set,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


@contextlib.contextmanager
def connected(endpoint, policy=""):
    client = RemotePolicy(endpoint, SPEC, CLOCK, policy=policy)
    try:
        client.connect(20.0)
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def raw(endpoint, policy=""):
    """A session for messages that no RemotePolicy would send."""
    session = Session(endpoint, "policy", CLOCK, spec=SPEC, policy=policy)
    try:
        session.connect(20.0)
        yield session
    finally:
        session.close()


def request(tick, position=(1.0, 2.0), seed=7):
    arrays = (np.array(position), np.array(3, np.uint8))
    observation = Observation(arrays, 0, episode=4, step=9)
    return Request(tick, seed, observation, 1000, CLOCK.now_ns() + LONG_NS)


def ask(session, tick, budget_ns=LONG_NS, arrays=ARRAYS):
    assert session.send(Ask(tick, 7, 0, 0, 0, budget_ns), arrays)


def reply(session):
    """Return the next message that is no look at the clock, and no arrays."""
    while True:
        message, _ = session.receive(LONG_NS)
        if not isinstance(message, Pong):
            return message


def until(found):
    for _ in range(4000):
        if result := found():
            return result
        time.sleep(0.005)
    raise AssertionError("not within 20 s")


def swap(endpoint, path):
    return control(endpoint, "swap", {"bundle": path}, timeout_s=20.0)
