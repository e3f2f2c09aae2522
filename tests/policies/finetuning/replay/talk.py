"""A replay service in this process, under a virtual clock, and clients that talk to it."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np

from controller.clock import VirtualClock
from controller.greeting import Session
from controller.wire import Control, Draw, Drawn, Insert, Inserted, Pong, Reject, Report
from policies.finetuning.replay.limiter import Limiter
from policies.finetuning.replay.service import ReplayService
from policies.finetuning.replay.store import Places, Store
from tests.policies.finetuning.replay.rows import LAYOUT, SPEC

_numbers = itertools.count()


class Stage:
    """A service and its clients; time goes on only when it is told to."""

    def __init__(self, directory, capacity=1000, limiter=None, save_every_s=2.0):
        self.clock = VirtualClock(1_000_000_000)
        self.store = Store(SPEC, Places(directory, capacity), seed=0)
        self.service = ReplayService(
            self.store, SPEC, limiter or Limiter(1.0, 10, 4), f"inproc://replay-{next(_numbers)}",
            self.clock, save_every_s=save_every_s,
        )  # fmt: skip
        self._clients = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for client in self._clients:
            client.session.close()
        self.service.close()

    def client(self, name="client", role="replay"):
        client = Client(self, name, role)
        self._clients.append(client)
        return client

    def pass_s(self, seconds):
        self.clock.advance(round(seconds * 1e9))
        self.service.turn(0)


class Client:
    """One session, which asks and gets the answer."""

    def __init__(self, stage, name, role):
        self._stage = stage
        self.session = Session(stage.service.endpoint, role, stage.clock, name, SPEC)
        self.session.greet()
        stage.service.turn(10**9)
        assert self.session.receive(10**9)
        assert self.session.ready

    def ask(self, message, arrays=()):
        """Return the answer and its arrays."""
        assert self.session.send(message, arrays)
        self._stage.service.turn(10**9)
        while True:
            answer, frames = self.session.receive(10**9)
            if not isinstance(answer, Pong):
                return answer, frames

    def insert(self, first, rows, actor="arm", versions=("v1",)):
        answer, _ = self.ask(Insert(actor, first, len(rows), versions), (rows,))
        assert isinstance(answer, Inserted | Reject)
        return answer

    def draw(self, batches, size, updates=0, version="v1"):
        """Return the answer and the rows."""
        answer, frames = self.ask(Draw(batches, size, updates, version))
        if not isinstance(answer, Drawn):
            return answer, None
        assert len(frames) == bool(answer.batches)
        frame = frames[0] if frames else b""
        return answer, LAYOUT.unpack(frame, answer.batches * size)

    def control(self, verb, **args):
        """Return whether it was done, and the report."""
        answer, _ = self.ask(Control(verb, args))
        assert isinstance(answer, Report)
        assert answer.verb == verb
        return answer.ok, msgspec.json.decode(answer.detail)


def no_rows():
    return np.zeros((0, LAYOUT.width), np.float32)
