"""The door through which people's commands reach a loop."""

from __future__ import annotations

from collections.abc import Sequence

from controller.array_frames import unpack
from controller.errors import WireError
from controller.interfaces import Clock
from controller.keys import ServerKeys
from controller.reception import Delivery, Reception
from controller.safety import is_finite
from controller.spec import Spec
from controller.teleop import Standing, TeleopCommand
from controller.types import Array, Mode, Rung
from controller.wire import Bye, Control, Steer, Steered

MAX_MESSAGES = 32
"""Messages looked at per tick: a flood costs the loop well under a millisecond."""


class TeleopServer:
    """A source of commands that programs send: ``onebeat teleop``, a gamepad's, a leader arm's.

    Each command is answered with what the loop did last, so that a person sees who drives.

    Args:
        endpoint: address to bind.
        spec: the robot; clients must agree with it or have no opinion.
        clock: the loop's.
        keys: whom to let in, encrypted; needed beyond loopback.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`.
        EndpointInUse: another loop listens there.
    """

    def __init__(
        self, endpoint: str, spec: Spec, clock: Clock, keys: ServerKeys | None = None
    ) -> None:
        self._reception = Reception(endpoint, "teleop", {"": spec}, clock, keys=keys)
        self._action = spec.action
        self._standing = Standing(-1, Mode.INIT, Rung.HOLD, spec.action.resting())

    @property
    def endpoint(self) -> str:
        """The bound address."""
        return self._reception.endpoint

    def poll(self) -> Sequence[TeleopCommand]:
        """Return what has arrived since the last call, oldest first; never waits."""
        heard = (self._hear(delivery) for delivery in self._reception.deliveries(0, MAX_MESSAGES))
        return [command for command in heard if command is not None]

    def show(self, standing: Standing) -> None:
        """Take note of what to answer."""
        self._standing = standing

    def close(self) -> None:
        """Free the address; safe to call twice."""
        self._reception.close()

    def _hear(self, delivery: Delivery) -> TeleopCommand | None:
        message, identity = delivery.message, delivery.identity
        if isinstance(message, Bye):
            return TeleopCommand(self._action.resting(), delivery.arrived_ns, 0, client=identity)
        if isinstance(message, Control):
            self._reception.report(identity, message.verb, False, {"reason": "no verbs here"})
            return None
        if not isinstance(message, Steer):
            self._reception.refuse(identity, f"a loop takes no {type(message).__name__}")
            return None
        action = self._action_of(delivery)
        if action is None:
            return None
        self._answer(identity)
        who = self._reception.name(identity)
        return TeleopCommand(action, delivery.arrived_ns, message.engagement, who, identity)

    def _action_of(self, delivery: Delivery) -> Array | None:
        try:
            (action,) = unpack(delivery.arrays, (self._action,))
        except WireError as error:
            self._reception.refuse(delivery.identity, str(error))
            return None
        if not is_finite(action):
            self._reception.refuse(delivery.identity, f"{self._action.name} is not finite")
            return None
        return action

    def _answer(self, identity: bytes) -> None:
        now = self._standing
        mine = now.driver is not None and now.driver.client == identity
        answer = Steered(
            tick=now.tick,
            mode=now.mode,
            rung=now.rung,
            engagement=now.driver.engagement if now.driver and mine else 0,
            driver=now.driver.who if now.driver else "",
        )
        self._reception.send(identity, answer, (now.executed,))
