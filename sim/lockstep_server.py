"""A simulated plant over the wire in lockstep: physics waits for the command.

The driver's command steps the plant at once, and everybody who is greeted gets the state. What
cannot be carried out is answered by a :class:`~controller.wire.Reject` to the driver alone. A
reset that names another episode than the next one is answered by the state as it is, so that a
new driver learns where the plant stands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from controller.array_frames import require_arrays, unpack
from controller.errors import ControllerError, PlantFailed, WireError
from controller.interfaces import Clock, Plant
from controller.keys import ServerKeys
from controller.reception import Delivery, Reception
from controller.types import Observation
from controller.wire import Command, Control, Failure, Reject, Reset, State, one_line

logger = logging.getLogger(__name__)

POLL_NS = 50_000_000
BATCH = 16


class LockstepServer:
    """Owns a plant, and gives it to one driver at a time and any number of onlookers.

    The first client that commands or resets is the driver, until it leaves. One that was silent
    for ``driver_timeout_s`` loses the plant to the next who asks: a learner may think for long.

    Args:
        plant: a lockstep plant; closing it is the caller's.
        endpoint: address to bind.
        clock: the machine's.
        driver_timeout_s: see above.
        keys: needed beyond loopback.

    Attributes:
        endpoint: the bound address.
        steps: commands carried out.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`.
        EndpointInUse: another server is bound there.
    """

    def __init__(
        self,
        plant: Plant,
        endpoint: str,
        clock: Clock,
        *,
        driver_timeout_s: float = 30.0,
        keys: ServerKeys | None = None,
    ) -> None:
        self._plant, self._spec, self._clock = plant, plant.spec, clock
        self._driver_timeout_ns = round(driver_timeout_s * 1e9)
        self._driver: bytes | None = None
        self._driven_ns = 0
        self._now: Observation | None = None
        self._episode = -1
        self._failure = ""
        self.steps = 0
        self._reception = Reception(endpoint, "plant", {"": plant.spec}, clock, keys=keys)
        self.endpoint = self._reception.endpoint

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Live until ``should_stop()``, asked at least every 50 ms; then free the address.

        Raises:
            SpecMismatch: the plant's observation is not of its spec.
        """
        try:
            while not should_stop():
                for delivery in self._reception.deliveries(POLL_NS, BATCH):
                    self._handle(delivery)
        finally:
            self._reception.close()

    def facts(self) -> dict[str, Any]:
        """Return what stands in a report."""
        return {
            "task": self._spec.task,
            "spec": self._spec.digest(),
            "mode": "lockstep",
            "steps": self.steps,
            "episodes": self._episode + 1,
            "failure": self._failure,
        }

    def _handle(self, delivery: Delivery) -> None:
        identity, message = delivery.identity, delivery.message
        if isinstance(message, Command):
            if self._seat(delivery, message.tick):
                self._command(delivery, message)
        elif isinstance(message, Reset):
            if self._seat(delivery, -1):
                self._reset(identity, message)
        elif isinstance(message, Control):
            known = message.verb in ("ready", "stats")
            detail = self.facts() if known else {"reason": f"unknown verb {message.verb!r}"}
            self._reception.report(identity, message.verb, known, detail)

    def _seat(self, delivery: Delivery, tick: int) -> bool:
        """Return whether the sender drives; who drives is decided here."""
        driver = self._driver
        silent_ns = delivery.arrived_ns - self._driven_ns
        if (
            driver is None
            or not self._reception.knows(driver)
            or (driver != delivery.identity and silent_ns > self._driver_timeout_ns)
        ):
            self._driver = driver = delivery.identity
        if driver != delivery.identity:
            name = self._reception.name(driver) or "another client"
            self._reject(delivery.identity, tick, "not_driver", f"{name} drives this plant")
            return False
        self._driven_ns = delivery.arrived_ns
        return True

    def _command(self, delivery: Delivery, message: Command) -> None:
        if self._now is None:
            why = self._failure or "no episode has begun; reset first"
            self._reject(delivery.identity, message.tick, "bad_command", why)
            return
        if message.episode not in (-1, self._now.episode):
            why = f"episode {message.episode} is over, this is {self._now.episode}"
            self._reject(delivery.identity, message.tick, "bad_command", why)
            return
        try:
            (action,) = unpack(delivery.arrays, (self._spec.action,))
            self._plant.command(action, message.tick)
            self._now = self._plant.observe()
        except PlantFailed as error:
            self._fail(error)
        except (WireError, ControllerError) as error:
            self._reject(delivery.identity, message.tick, "bad_command", str(error))
        else:
            self.steps += 1
            self._publish()

    def _reset(self, identity: bytes, message: Reset) -> None:
        if message.episode != self._episode + 1 and self._now is not None:
            self._publish()
            return
        try:
            self._plant.reset(message.seed)
            self._now = self._plant.observe()
        except PlantFailed as error:
            self._episode += 1
            self._fail(error)
        except ControllerError as error:
            self._reject(identity, -1, "bad_reset", str(error))
        else:
            self._failure, self._episode = "", self._now.episode
            self._publish()

    def _publish(self) -> None:
        now = self._now
        assert now is not None, "published before the first reset"
        require_arrays(now.arrays, self._spec.observation)
        state = State.of(now, now.stamp_ns)
        for identity in self._reception.guests("plant"):
            self._reception.send(identity, state, now.arrays)

    def _fail(self, error: PlantFailed) -> None:
        """Tell everybody that the plant cannot go on; a reset may revive it."""
        self._now, self._failure = None, one_line(str(error))
        logger.error("%s", self._failure)
        failure = Failure(max(0, self._episode), "unstable", self._failure)
        for identity in self._reception.guests("plant"):
            self._reception.send(identity, failure)

    def _reject(self, identity: bytes, tick: int, code: str, why: str) -> None:
        self._reception.send(identity, Reject(tick, code, one_line(why)))
