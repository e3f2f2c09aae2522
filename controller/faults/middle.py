"""A process between a loop and its policy server that meddles with what passes.

SIGUSR1 begins the meddling, SIGUSR2 ends it; before and after it hands everything on.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import count
from types import FrameType

import numpy as np

from controller.clock import MonotonicClock
from controller.errors import WireError
from controller.faults.meddling import MEDDLES, Meddler, Parcel
from controller.interfaces import Clock
from controller.mutations import Mutator
from controller.process import StopFlag
from controller.realtime import urgent
from controller.signals import die_with_parent
from controller.spec_coding import decode_spec
from controller.transport import Client, Server
from controller.wire import Welcome, decode

MUTATED = "mutate"
"""A fault of its own: mutated copies go both ways beside the messages, which arrive unharmed."""
IDLE_NS = 20_000_000
MUTATIONS_PER_MESSAGE = 64


class Middle:
    """Hands messages on between clients and a server.

    Args:
        front: address that clients connect to.
        back: address of the server.
        fault: name of a meddle, or :data:`MUTATED`.
        mutations: mutated messages to send in all, each way by turns.
        seed: of all chance.
        clock: time.

    Attributes:
        meddling: whether the fault is on.
    """

    def __init__(
        self, front: str, back: str, fault: str, mutations: int, seed: int, clock: Clock
    ) -> None:
        self._front, self._back_endpoint = Server(front), back
        self._backs: dict[bytes, Client] = {}
        self._clock = clock
        self._meddle = MEDDLES.get(fault)
        self._left = mutations if fault == MUTATED else 0
        self._mutator = Mutator(seed)
        self._state = Meddler(np.random.default_rng(seed))
        self._late: list[tuple[int, int, bytes, list[bytes]]] = []
        self._numbers = count()
        self.meddling = False

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Hand on until ``should_stop()``."""
        try:
            while not should_stop():
                self._wait()
                self._forward_requests()
                self._forward_answers()
                self._deliver_late()
        finally:
            for client in self._backs.values():
                client.close()
            self._front.close()

    def _wait(self) -> None:
        due_ns = self._late[0][0] - self._clock.now_ns() if self._late else IDLE_NS
        sockets: list[Client | Server] = [self._front, *self._backs.values()]
        select.select(sockets, [], [], min(max(due_ns, 0), IDLE_NS) / 1e9)

    def _forward_requests(self) -> None:
        while (received := self._front.receive(0)) is not None:
            identity, frames = received
            if identity not in self._backs:
                self._backs[identity] = Client(self._back_endpoint)
            back = self._backs[identity]
            back.send(frames)
            for mutated in self._mutations(frames):
                back.send(mutated)

    def _forward_answers(self) -> None:
        for identity, back in self._backs.items():
            while (frames := back.receive(0)) is not None:
                self._note(frames)
                for parcel in self._parcels(frames):
                    self._hand_on(identity, parcel)
                for mutated in self._mutations(frames):
                    self._front.send(identity, mutated)

    def _parcels(self, frames: list[bytes]) -> Sequence[Parcel]:
        if not self.meddling or self._meddle is None:
            return [Parcel(frames)]
        return self._meddle(self._state, frames)

    def _mutations(self, frames: list[bytes]) -> list[list[bytes]]:
        number = min(self._left, MUTATIONS_PER_MESSAGE) if self.meddling else 0
        self._left -= number
        return [self._mutator.mutate(frames) for _ in range(number)]

    def _hand_on(self, identity: bytes, parcel: Parcel) -> None:
        if parcel.after_ns <= 0:
            self._front.send(identity, parcel.frames)
            return
        due_ns = self._clock.now_ns() + parcel.after_ns
        heapq.heappush(self._late, (due_ns, next(self._numbers), identity, parcel.frames))

    def _deliver_late(self) -> None:
        now_ns = self._clock.now_ns()
        while self._late and self._late[0][0] <= now_ns:
            _, _, identity, frames = heapq.heappop(self._late)
            self._front.send(identity, frames)

    def _note(self, frames: list[bytes]) -> None:
        """Learn the robot from the server's welcome."""
        if self._state.spec is None:
            with contextlib.suppress(WireError):
                message, _ = decode(frames)
                if isinstance(message, Welcome):
                    self._state.spec = decode_spec(message.spec)


def main(words: Sequence[str]) -> None:
    """Be the process in the middle.

    Args:
        words: front and back address, fault, number of mutations, seed.
    """
    die_with_parent()
    front, back, fault, mutations, seed = words
    with StopFlag() as stop, urgent():
        middle = Middle(front, back, fault, int(mutations), int(seed), MonotonicClock())

        def switch(number: int, frame: FrameType | None) -> None:
            middle.meddling = number == signal.SIGUSR1

        signal.signal(signal.SIGUSR1, switch)
        signal.signal(signal.SIGUSR2, switch)
        middle.run(stop)


if __name__ == "__main__":
    main(sys.argv[1:])
