"""Many robots in one process, under a virtual clock: a server, its clients, and their time."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

import numpy as np

from controller.clock import VirtualClock
from controller.greeting import Session
from controller.testing import FakePolicy
from controller.wire import Answer, Ask, Pong, Reject
from policies.serving.server import PolicyServer

MS = 1_000_000
BEGIN_MS = 1_000
_names = itertools.count()


class FakeBatchPolicy(FakePolicy):
    """A scripted policy that answers batches: ``first`` ms for one, ``more`` for each further.

    Args:
        crash: positions whose first number is above it raise.
    """

    def __init__(self, clock, first=1.0, more=0.05, max_batch=64, crash=1e9, version="v1"):
        super().__init__(clock=clock, version=version)
        self._time, self._first, self._more, self._crash = clock, first, more, crash
        self.max_batch = max_batch

    def infer(self, request):
        return self.infer_batch([request])[0]

    def infer_batch(self, requests):
        self._time.advance(self.expected_ns(len(requests)))
        if any(request.observation.arrays[0][0] > self._crash for request in requests):
            raise FloatingPointError("matrix is singular")
        return [super(FakeBatchPolicy, self).infer(request) for request in requests]

    def expected_ns(self, batch):
        return round((self._first + (batch - 1) * self._more) * MS)


@dataclass
class Robot:
    """A client that asks every ``period_ms``, first at ``start_ms``."""

    period_ms: float = 20.0
    budget_ms: float = 20.0
    start_ms: float = 0.0
    position: float = 0.0
    policy: str = ""
    tick: int = 0
    asked: int = 0
    answers: dict[int, Answer] = field(default_factory=dict)
    rejects: dict[int, Reject] = field(default_factory=dict)

    @property
    def next_ns(self) -> int:
        return round((BEGIN_MS + self.start_ms + self.tick * self.period_ms) * MS)


class Fleet:
    """A server with its robots; the clock goes on when the policy computes, or to the next ask.

    Args:
        policies: as for the server; or one policy.
        robots: the clients.
        clock: that of the policies.
        load: as for the server.
    """

    def __init__(self, policies, robots, clock, load=None):
        policies = policies if isinstance(policies, dict) else {"default": policies}
        self.clock, self.robots = clock, list(robots)
        self.server = PolicyServer(policies, f"inproc://fleet-{next(_names)}", clock, load)
        self.sessions = [
            Session(self.server.endpoint, "policy", clock, policy=robot.policy)
            for robot in self.robots
        ]
        for session in self.sessions:
            session.greet()
        for _ in self.sessions:
            self.server.turn(0)
        assert all(session.receive(0) and session.ready for session in self.sessions)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for session in self.sessions:
            session.close()
        self.server.close()

    def run(self, seconds):
        """Let the robots ask for so long, and the server answer what is left then."""
        until_ns = self.clock.now_ns() + round(seconds * 1e9)
        due = [(robot.next_ns, place) for place, robot in enumerate(self.robots)]
        heapq.heapify(due)
        for count in itertools.count():
            before_ns = self.clock.now_ns()
            if before_ns >= until_ns:
                break
            while due[0][0] <= before_ns:
                place = due[0][1]
                self._ask(self.robots[place], self.sessions[place])
                heapq.heapreplace(due, (self.robots[place].next_ns, place))
            self.server.turn(0)
            if self.clock.now_ns() == before_ns:
                self.clock.sleep_until(due[0][0])
            if count % 4 == 0:
                self._read()
        for _ in self.robots:
            self.server.turn(0)
        self._read()

    def _ask(self, robot, session):
        # Several periods may have passed while the policy computed; what is late has less time.
        lost_ns = self.clock.now_ns() - robot.next_ns
        budget_ns = max(0, round(robot.budget_ms * MS) - lost_ns)
        arrays = np.full(2, robot.position), np.zeros(2)
        robot.asked += session.send(Ask(robot.tick, 7, 0, robot.tick, 0, budget_ns), arrays)
        robot.tick += 1

    def _read(self):
        for robot, session in zip(self.robots, self.sessions, strict=True):
            while item := session.receive(0):
                if isinstance(item[0], Answer):
                    robot.answers[item[0].tick] = item[0]
                elif isinstance(item[0], Reject):
                    robot.rejects[item[0].tick] = item[0]
                else:
                    assert isinstance(item[0], Pong)


def fresh_clock():
    """Return a clock that begins when the robots do."""
    return VirtualClock(BEGIN_MS * MS)
