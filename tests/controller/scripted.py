"""A server that does what a test says, for tests of clients."""

import threading
import time

import msgspec
import numpy as np

from controller.clock import MonotonicClock
from controller.spec import ArraySpec, Spec
from controller.spec_coding import encode_spec
from controller.transport import Server
from controller.wire import PROTOCOL, Hello, Ping, Pong, Welcome, decode, encode

SPEC = Spec(
    task="test",
    observation=(ArraySpec("position", (2,)), ArraySpec("goal", (1,), "float32")),
    action=ArraySpec("force", (2,), "float32"),
    rate_hz=100.0,
)
OTHER = msgspec.structs.replace(SPEC, task="another robot")
ARRAYS = (np.array([1.0, 2.0]), np.array([3.0], np.float32))
MS = 1_000_000
CLOCK = MonotonicClock()


class ScriptedServer:
    """Answers each message with whatever ``reply(message, arrays)`` returns.

    A reply is a message, a (message, arrays) pair, or a list of raw frames. Hellos are welcomed
    unless ``greet(hello)`` is given; pings are answered.
    """

    def __init__(self, endpoint, spec, reply=None, greet=None, version="v1"):
        self._server = Server(endpoint)
        self._reply = reply or (lambda message, arrays: [])
        self._greet = greet or (lambda hello: [welcome(hello, spec, version)])
        self._stop = threading.Event()
        self.identity = None
        self.received = []
        self.outbox = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def push(self, *replies):
        """Send without having been asked."""
        self.outbox.append(replies)

    def close(self):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._server.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _run(self):
        while not self._stop.is_set():
            received = self._server.receive(2_000_000)
            if received is not None:
                self.identity, frames = received
                message, arrays = decode(frames)
                if isinstance(message, Ping):
                    now_ns = CLOCK.now_ns()
                    self._send([Pong(message.sent_ns, now_ns, now_ns)])
                    continue
                self.received.append(message)
                hello = isinstance(message, Hello)
                self._send(self._greet(message) if hello else self._reply(message, arrays))
            while self.outbox and self.identity:
                self._send(self.outbox.pop(0))

    def _send(self, replies):
        for reply in replies:
            if isinstance(reply, list):
                frames = reply
            else:
                message, arrays = reply if isinstance(reply, tuple) else (reply, ())
                frames = encode(message, arrays)
            self._server.send(self.identity, frames)


def repeat(act):
    """Do something for up to 10 s; the test expects it to raise before that."""
    for _ in range(2000):
        act()
        time.sleep(0.005)


def welcome(hello, spec, version="v1", protocol=PROTOCOL, ahead_ns=0):
    server_ns = CLOCK.now_ns() + ahead_ns
    return Welcome(protocol, encode_spec(spec), version, hello.sent_ns, server_ns)
