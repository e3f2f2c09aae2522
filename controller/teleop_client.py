"""The other side of the door: what a program uses to take over from a policy."""

from __future__ import annotations

from dataclasses import dataclass

from controller.array_frames import require_arrays, unpack
from controller.clock import MonotonicClock
from controller.errors import WireError
from controller.greeting import MAX_DRAIN, Session
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.types import Array, Mode, Rung
from controller.wire import Bye, Reject, Steer, Steered


@dataclass(frozen=True, slots=True)
class Seen:
    """What the loop said it did last.

    Attributes:
        tick: number of the tick; -1 before the first.
        mode: state of the loop.
        rung: where the command came from.
        executed: the command.
        driving: whether the person here drives.
        driver: name of who drives; empty while nobody does.
    """

    tick: int
    mode: Mode
    rung: Rung
    executed: Array
    driving: bool
    driver: str


class TeleopClient:
    """Sends a person's commands to a loop.

    Send at a steady rate of at least a few per ``loop.teleop.timeout_s``, engaged or not: silence
    hands back. Once that has happened, or another person had the seat, :meth:`engage` anew.

    Args:
        endpoint: address of the loop's door.
        name: who drives, for the log.
        clock: time.
        keys: this client's secret and the loop's public key; needed beyond loopback.

    Attributes:
        engaged: whether this client wants to drive; :attr:`Seen.driving` says if it does.
    """

    def __init__(
        self,
        endpoint: str,
        name: str,
        clock: Clock | None = None,
        keys: ClientKeys | None = None,
    ) -> None:
        self._session = Session(endpoint, "teleop", clock or MonotonicClock(), name, keys=keys)
        self._engagement = 0
        self.engaged = False

    @property
    def spec(self) -> Spec:
        """The robot; known once connected."""
        assert self._session.spec is not None, "connect first"
        return self._session.spec

    def connect(self, timeout_s: float) -> Spec:
        """Wait for the loop's welcome and return the robot's spec.

        Raises:
            PeerTimeout: no loop answered in time.
            Refused: something else than a loop is there.
        """
        return self._session.connect(timeout_s)

    def engage(self) -> None:
        """Want to drive, from the next command on."""
        self._engagement += 1
        self.engaged = True

    def release(self) -> None:
        """Hand back with the next command."""
        self.engaged = False

    def send(self, action: Array) -> bool:
        """Send what the robot shall do, in shape and dtype of ``Spec.action``; does not wait.

        Returns whether it is on its way; the session is made anew where the loop was replaced.

        Raises:
            SpecMismatch: the action has another shape or dtype.
        """
        require_arrays((action,), (self.spec.action,))
        if not self._session.ready:
            self._session.greet()
            return False
        return self._session.send(Steer(self._engagement if self.engaged else 0), (action,))

    def look(self, timeout_ns: int = 0) -> Seen | None:
        """Return the newest answer, or None when none came within ``timeout_ns``."""
        newest: Seen | None = None
        for _ in range(MAX_DRAIN):
            item = self._session.receive(0 if newest else timeout_ns)
            if item is None:
                break
            message, frames = item
            if isinstance(message, Reject) and message.code == "no_session":
                # The loop that was driven is gone; another one has to be taken over anew.
                self._session.lost()
                self.engaged = False
            elif isinstance(message, Steered):
                newest = self._read(message, frames[0]) or newest
        return newest

    def close(self) -> None:
        """Hand back and leave; safe to call twice."""
        self.engaged = False
        self._session.close(Bye())

    def _read(self, message: Steered, frame: bytes) -> Seen | None:
        try:
            (executed,) = unpack((frame,), (self.spec.action,))
            mode, rung = Mode(message.mode), Rung(message.rung)
        except (WireError, ValueError):
            return None
        driving = self.engaged and message.engagement == self._engagement
        return Seen(message.tick, mode, rung, executed, driving, message.driver)
