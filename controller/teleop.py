"""A person in the loop: who drives, from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from controller.holding import Holding
from controller.interfaces import Clock
from controller.ladder import Decision
from controller.notices import Notify
from controller.types import Array, Mode, Reason, Rung

NO_ANSWER: Final = Reason.LATE | Reason.UNREACHABLE | Reason.REFUSED | Reason.AWAITED
"""Why a policy may have nothing to say when it is handed to; none of these is an emergency."""


@dataclass(frozen=True, slots=True)
class TeleopCommand:
    """What a person wants at one moment.

    Attributes:
        action: the command, in shape, dtype and units of ``Spec.action``.
        stamp_ns: when it arrived, on the loop's clock.
        engagement: 0 to leave the policy alone; otherwise the number of the taking over, which
            a person raises by 1 each time. One that has ended does not begin again.
        who: name, for the log.
        client: tells persons of one name apart.
    """

    action: Array
    stamp_ns: int
    engagement: int = 0
    who: str = "somebody"
    client: bytes = b""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the loop did last, for people to see.

    Attributes:
        tick: number of the tick.
        mode: state of the loop.
        rung: where the command came from.
        executed: the command.
        driver: the last command of the person who drives; None while nobody does.
    """

    tick: int
    mode: Mode
    rung: Rung
    executed: Array
    driver: TeleopCommand | None = None


class TeleopSource(Protocol):
    """Where people's commands come from: a device, or a door for programs."""

    def poll(self) -> Sequence[TeleopCommand]:
        """Return what has arrived since the last call, oldest first, a few at most; never waits.

        What does not fit the robot, or is not finite, is left out.
        """
        ...

    def show(self, standing: Standing) -> None:
        """Take note of what the loop did; called once per tick, never waits."""
        ...

    def close(self) -> None:
        """Release the source; safe to call twice."""
        ...


class Seat:
    """The driver's seat of one run: holds one person at a time, who came first.

    A person leaves it by a command with engagement 0, or by silence. After that the same
    engagement does not count any more: commands that were only delayed move nothing.

    Args:
        source: commands.
        clock: time.
        timeout_s: silence after which the seat is empty.
        notify: takes ("teleop", detail) when somebody takes over or hands back.
        easing: the way from a person's last command to the safe one; None to jump.
    """

    def __init__(
        self,
        source: TeleopSource,
        clock: Clock,
        timeout_s: float,
        notify: Notify,
        easing: Holding | None,
    ) -> None:
        self._source, self._clock, self._notify = source, clock, notify
        self._easing, self._human = easing, False
        self._timeout_ns = round(timeout_s * 1e9)
        self._driver: TeleopCommand | None = None
        self._spent: tuple[bytes, int] | None = None
        self._silent = False

    def poll(self) -> Array | None:
        """Return what the driver wants now, None while nobody drives."""
        now_ns, before = self._clock.now_ns(), self._driver
        for command in self._source.poll():
            self._hear(command, now_ns)
        self._expire(now_ns)
        if self._driver is not before:
            self._tell(before, self._driver)
        return self._driver.action if self._driver else None

    def bridge(self, tick: int, decision: Decision) -> Decision:
        """Return the decision, on the way to the safe command where that follows a hand-back.

        A policy that is handed to may need a moment for its first answer. Until then the
        command moves from the person's last one to the safe one instead of jumping there.
        """
        if self._easing is None:
            return decision
        if decision.rung.acts:
            self._human = decision.rung is Rung.HUMAN
            self._easing.release()
        elif decision.rung is not Rung.HOLD or decision.eased or decision.reasons & ~NO_ANSWER:
            self._human = False
        elif self._human:
            command, eased = self._easing.command(tick)
            if eased:
                reasons = decision.reasons | Reason.BLENDED
                return replace(decision, requested=command, reasons=reasons)
            self._human = False
        return decision

    def show(self, tick: int, mode: Mode, rung: Rung, executed: Array) -> None:
        """Tell people what the loop did."""
        self._source.show(Standing(tick, mode, rung, executed, self._driver))

    def close(self) -> None:
        """Release the source."""
        self._source.close()

    def _hear(self, command: TeleopCommand, now_ns: int) -> None:
        self._expire(now_ns)
        if self._driver is not None and self._driver.client != command.client:
            return
        if not command.engagement:
            self._unseat(silent=False)
        elif _session(command) != self._spent:
            self._driver = command

    def _expire(self, now_ns: int) -> None:
        driver = self._driver
        if driver is not None and now_ns - driver.stamp_ns > self._timeout_ns:
            self._unseat(silent=True)

    def _unseat(self, *, silent: bool) -> None:
        if self._driver is not None:
            self._spent, self._silent = _session(self._driver), silent
        self._driver = None

    def _tell(self, before: TeleopCommand | None, now: TeleopCommand | None) -> None:
        """Note what changed since the last tick; a flood of commands gives two events at most."""
        if before and now and _session(before) == _session(now):
            return
        if before:
            why = f": silent for {self._timeout_ns / 1e9:g} s" if self._silent else ""
            self._notify("teleop", f"{before.who} handed back{why}")
        if now:
            self._notify("teleop", f"{now.who} took over")


def _session(command: TeleopCommand) -> tuple[bytes, int]:
    return command.client, command.engagement
