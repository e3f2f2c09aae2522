"""A plant that runs in real time behind a plant server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from controller.array_frames import unpack
from controller.clock import MonotonicClock
from controller.errors import PlantFailed, PlantLost, SpecMismatch, WireError
from controller.greeting import MAX_DRAIN, Session
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.types import Array, Observation
from controller.wire import Bye, Command, Failure, Reject, Reset, State

logger = logging.getLogger(__name__)


class RemotePlant:
    """A plant that runs in real time behind a plant server.

    Stamps are on the server's clock: on one machine, CLOCK_MONOTONIC.

    Args:
        endpoint: address of the server.
        clock: clock of ``lost_after_s``.
        client_name: name for the server's log.
        connect_timeout_s: default of :meth:`connect`, and the wait for the first observation.
        lost_after_s: silence after which the plant counts as lost.
        keys: for a server that has keys.

    Attributes:
        unsent: commands and resets that could not be handed over.
        rejected: commands and resets that the server did not take.
    """

    def __init__(
        self,
        endpoint: str,
        clock: Clock,
        *,
        client_name: str = "",
        connect_timeout_s: float = 5.0,
        lost_after_s: float = 1.0,
        keys: ClientKeys | None = None,
    ) -> None:
        self._session = Session(endpoint, "plant", clock, client_name, keys=keys)
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._lost_after_ns = round(lost_after_s * 1e9)
        self._newest: Observation | None = None
        self._heard_ns = 0
        self._loss = ""
        self._failure: Failure | None = None
        self._late_ns = 0
        self._malformed = 0
        self.unsent = 0
        self.rejected = 0

    @property
    def spec(self) -> Spec:
        """What the plant looks like; known after :meth:`connect`, which this calls if need be."""
        return self._session.spec or self.connect()

    @property
    def malformed(self) -> int:
        """Messages that were not of this protocol, or not of this spec."""
        return self._malformed + self._session.malformed

    def connect(self, timeout_s: float | None = None) -> Spec:
        """Wait for the server's welcome and return the plant's spec.

        Raises:
            PeerTimeout: nobody answered in time.
            SpecMismatch: the server was replaced by one of another robot.
            Refused: the server speaks another protocol or is no plant server.
        """
        spec = self._session.connect(self._connect_timeout_s if timeout_s is None else timeout_s)
        self._newest, self._loss, self._failure = None, "", None
        return spec

    def reset(self, seed: int | None = None) -> None:
        """Ask for the episode after the newest one observed; safe to repeat until it began.

        This also revives a plant that has failed.
        """
        self._drain(0)
        last = self._failure or self.observe()
        self._send(Reset(seed, last.episode + 1))

    def observe(self) -> Observation:
        """Return the newest observation; waits only for the very first.

        Raises:
            PlantLost: silence for longer than ``lost_after_s``, the server was replaced, or
                the plant is driven by another client.
            PlantFailed: the plant said so; a reset may revive it.
        """
        self._drain(0)
        if self._newest is None and not self._failure:
            self._await_first()
        newest, where = self._newest, self._session.endpoint
        if self._loss:
            raise PlantLost(f"{where}: {self._loss}")
        if self._failure:
            raise PlantFailed(self._failure.detail)
        if newest is None:
            raise PlantLost(f"{where}: no observation within {self._connect_timeout_s:g} s")
        silent_ns = self._clock.now_ns() - self._heard_ns
        if silent_ns > self._lost_after_ns:
            raise PlantLost(f"{where}: no observation for {silent_ns / 1e9:.1f} s")
        self._late_ns = 0
        return newest

    def command(self, action: Array, tick: int) -> None:
        """Hand ``action`` over; it acts from the plant's next physics step on, and holds.

        A plant that has begun another episode than the newest one observed drops it.

        Raises:
            SpecMismatch: the action has not the shape of the spec.
        """
        expected = self.spec.action
        if action.shape != expected.shape:
            raise SpecMismatch(f"action of shape {action.shape}, expected {expected.shape}")
        episode = -1 if self._newest is None else self._newest.episode
        self._send(Command(tick, episode), (action.astype(expected.dtype, copy=False),))

    def close(self) -> None:
        """Leave the plant to others; safe to call twice."""
        self._session.close(Bye())

    def _send(self, message: Command | Reset, arrays: Sequence[Array] = ()) -> None:
        if not self._session.send(message, arrays):
            self.unsent += 1

    def _await_first(self) -> None:
        if not self._session.ready:
            self.connect()
        until_ns = _WALL.now_ns() + round(self._connect_timeout_s * 1e9)
        while self._newest is None and not self._loss and not self._failure:
            remaining_ns = until_ns - _WALL.now_ns()
            if remaining_ns <= 0:
                return
            self._drain(remaining_ns)

    def _drain(self, timeout_ns: int) -> None:
        """Take in everything that arrived, waiting up to ``timeout_ns`` for the first of it."""
        for count in range(MAX_DRAIN):
            item = self._session.receive(0 if count else timeout_ns)
            if item is None:
                return
            message, frames = item
            if isinstance(message, State):
                self._take(message, frames)
            elif isinstance(message, Failure):
                self._failure, self._heard_ns = message, self._clock.now_ns()
            elif isinstance(message, Reject):
                self._rejected(message)

    def _take(self, state: State, frames: Sequence[bytes]) -> None:
        try:
            arrays = unpack(frames, self.spec.observation)
        except WireError:
            self._malformed += 1
            return
        self._heard_ns = self._clock.now_ns()
        self._late_ns = max(self._late_ns, state.late_ns)
        seen = state.observation(arrays)
        late = seen.late_ns != self._late_ns
        self._newest = replace(seen, late_ns=self._late_ns) if late else seen
        self._failure = None

    def _rejected(self, reject: Reject) -> None:
        self.rejected += 1
        if reject.code == "no_session":
            self._loss = "the plant server was replaced"
        elif reject.code == "not_driver":
            self._loss = "the plant is driven by another client"
        if self.rejected.bit_count() == 1:
            where = self._session.endpoint
            logger.warning(
                "%s: %s (%d so far): %s", where, reject.code, self.rejected, reject.detail
            )


_WALL = MonotonicClock()  # requests wait in real time
