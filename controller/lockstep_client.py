"""A lockstep plant in another process: each command waits for the state that it leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from controller.array_frames import unpack
from controller.clock import MonotonicClock
from controller.errors import PlantFailed, PlantLost, Refused, SpecMismatch, WireError
from controller.greeting import MAX_DRAIN, Session
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.types import Array, Observation
from controller.wire import Bye, Command, Control, Failure, Message, Reject, Report, Reset, State

T = TypeVar("T")
STATE_CHANGED = "another client drove the plant meanwhile"


class LockstepPlant:
    """A plant behind ``onebeat sim serve mode=lockstep``.

    Args:
        endpoint: address of the server.
        client_name: name for the server's log.
        connect_timeout_s: default of :meth:`connect`.
        timeout_s: the longest a step or a reset may take.
        keys: for a server that has keys.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        client_name: str = "",
        connect_timeout_s: float = 5.0,
        timeout_s: float = 30.0,
        keys: ClientKeys | None = None,
    ) -> None:
        self._session = Session(endpoint, "plant", _WALL, client_name, keys=keys)
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._timeout_ns = round(timeout_s * 1e9)
        self._now: Observation | None = None
        self._next_episode = 0
        self._failure = ""
        self._closed = False

    @property
    def spec(self) -> Spec:
        """What the plant looks like; connects if need be."""
        return self._session.spec or self.connect()

    def connect(self, timeout_s: float | None = None) -> Spec:
        """Wait for the server's welcome and return the plant's spec.

        Raises:
            PeerTimeout: nobody answered in time.
            Refused: the server is no plant server, or its plant runs in real time.
        """
        spec = self._session.connect(self._connect_timeout_s if timeout_s is None else timeout_s)
        self._session.send(Control("ready", {}))
        facts = self._await(self._ready)
        if facts.get("mode") != "lockstep":
            raise Refused(
                f"{self._endpoint}: this plant runs in real time, expected one in lockstep"
            )
        self._next_episode = int(facts["episodes"])
        return spec

    def reset(self, seed: int | None = None) -> None:
        """Begin the next episode; it has begun on return.

        Raises:
            PlantLost: no answer in time, the server was replaced, or another client drives.
            PlantFailed: the plant could not begin it.
        """
        self._connected()
        self._failure, self._now = "", None
        self._forget()
        for _ in range(2):
            wanted = self._next_episode
            now = self._ask(Reset(seed, wanted), -1)
            self._next_episode = now.episode + 1
            if (now.episode, now.step) == (wanted, 0):
                self._now = now
                return
        raise PlantLost(f"{self._endpoint}: {STATE_CHANGED}")

    def observe(self) -> Observation:
        """Return the observation of the last reset or step.

        Raises:
            Refused: no episode has begun.
            PlantFailed: the plant broke down in the last step; reset it.
            PlantLost: the plant is closed.
        """
        if self._now is not None and not self._closed:
            return self._now
        raise self._absent()

    def command(self, action: Array, tick: int) -> None:
        """Apply ``action`` for one control step, which is over on return.

        Raises:
            SpecMismatch: the action has not the shape of the spec.
            Refused: the plant does not take it; the message says why.
            PlantFailed: the plant broke down; reset it.
            PlantLost: no answer in time, the server was replaced, or another client drives.
        """
        last = self._now
        if last is None or self._closed:
            raise self._absent()
        wanted = self.spec.action
        if action.shape != wanted.shape:
            raise SpecMismatch(f"action of shape {action.shape}, expected {wanted.shape}")
        sent = action.astype(wanted.dtype, copy=False)
        now = self._ask(Command(tick, last.episode), tick, (sent,))
        expected = (last.episode, last.step + 1, tick)
        self._now = now if (now.episode, now.step, now.applied_tick) == expected else None
        if self._now is None:
            raise PlantLost(f"{self._endpoint}: {STATE_CHANGED}")

    def close(self) -> None:
        """Leave the plant to others; safe to call twice."""
        self._closed = True
        self._session.close(Bye())

    def _connected(self) -> None:
        if self._closed:
            raise self._absent()
        if not self._session.ready:
            self.connect()

    def _forget(self) -> None:
        """Drop what came of another client's commands while this one looked on."""
        for _ in range(MAX_DRAIN):
            if self._session.receive(0) is None:
                return

    def _absent(self) -> PlantLost | PlantFailed | Refused:
        if self._closed:
            return PlantLost(f"{self._endpoint}: the plant is closed")
        if self._failure:
            return PlantFailed(self._failure)
        return Refused(f"{self._endpoint}: no episode has begun; reset first")

    def _ask(self, message: Message, tick: int, arrays: Sequence[Array] = ()) -> Observation:
        if not self._session.send(message, arrays):
            raise PlantLost(f"{self._endpoint}: the server cannot be reached any more")
        return self._await(lambda got, frames: self._answer(got, frames, tick))

    def _await(self, take: Callable[[Message, Sequence[bytes]], T | None]) -> T:
        """Return what ``take`` makes of the first message that it does not pass over."""
        until_ns = _WALL.now_ns() + self._timeout_ns
        while (remaining_ns := until_ns - _WALL.now_ns()) > 0:
            item = self._session.receive(remaining_ns)
            if item is not None and (taken := take(*item)) is not None:
                return taken
        self._now = None
        raise PlantLost(f"{self._endpoint}: no answer within {self._timeout_ns / 1e9:g} s")

    def _answer(self, message: Message, frames: Sequence[bytes], tick: int) -> Observation | None:
        if isinstance(message, State):
            try:
                return message.observation(unpack(frames, self.spec.observation))
            except WireError as error:
                raise PlantLost(f"{self._endpoint}: {error}") from None
        if isinstance(message, Failure):
            self._now, self._failure = None, message.detail
            self._next_episode = message.episode + 1
            raise PlantFailed(message.detail)
        if isinstance(message, Reject) and message.tick == tick:
            raise self._rejected(message)
        return None

    def _rejected(self, reject: Reject) -> PlantLost | Refused:
        where = self._endpoint
        if reject.code == "no_session":
            self._session.lost()
            self._now = None
            return PlantLost(f"{where}: the plant server was replaced")
        if reject.code == "not_driver":
            self._now = None
            return PlantLost(f"{where}: {reject.detail}")
        return Refused(f"{where}: {reject.detail}")

    @staticmethod
    def _ready(message: Message, frames: Sequence[bytes]) -> dict[str, Any] | None:
        if not isinstance(message, Report) or message.verb != "ready":
            return None
        facts: dict[str, Any] = msgspec.json.decode(message.detail, type=dict[str, Any])
        return facts


_WALL = MonotonicClock()  # physics waits for the command; the command waits in real time
