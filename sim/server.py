"""A simulated plant in real time: physics follows the wall clock and waits for nobody.

At each deadline t_k, k periods after the start, the state sampled at t_k is published; then the
control step over [t_k, t_{k+1}] is computed, physics step by physics step as time goes by, each
with the newest command received when it begins; see :mod:`sim.held`. Its result is published at
t_{k+1}, not before. The socket is served between the steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from controller.array_frames import require_arrays
from controller.fault_settings import FaultsConfig
from controller.interfaces import Clock, Plant
from controller.keys import ServerKeys
from controller.reception import Delivery, Reception
from controller.types import Array, Observation
from controller.wire import Bye, Command, Control, Failure, Reject, Reset, State, one_line
from sim.faults import Faults
from sim.held import HeldPlant

logger = logging.getLogger(__name__)

POLL_NS = 50_000_000
BATCH = 16
"""Messages looked at between two looks at the clock: about 0.3 ms of a flood."""

VERBS = ("ready", "stats")


class RealTimeServer:
    """Owns a plant, and gives it to one driver at a time and any number of onlookers.

    The first client that commands or resets is the driver, until it leaves, or says nothing
    for ``driver_timeout_s``: then the hold action acts and the seat is free.

    Args:
        plant: a lockstep plant; closing it is the caller's.
        endpoint: address to bind.
        clock: real time.
        hold_action: see :class:`HeldPlant`.
        driver_timeout_s: silence after which the driver counts as gone.
        faults: between the plant and its clients.
        keys: needed beyond loopback.

    Attributes:
        endpoint: the bound address.
        skipped_periods: whole periods that passed without a step, because one took so long.

    Raises:
        ConfigError: see :class:`HeldPlant` and :func:`controller.endpoints.check_endpoint`.
        PlantFailed: the plant has no first state.
        EndpointInUse: another server is bound there.
    """

    def __init__(
        self,
        plant: Plant,
        endpoint: str,
        clock: Clock,
        *,
        hold_action: Array | None = None,
        driver_timeout_s: float = 2.0,
        faults: FaultsConfig | None = None,
        keys: ServerKeys | None = None,
    ) -> None:
        self._spec = plant.spec
        self._faults = Faults(faults, plant.spec) if faults and faults.active else None
        self._held = HeldPlant(
            plant, clock, self._serve_until, hold_action=hold_action, faults=self._faults
        )
        self._clock = clock
        self._driver_timeout_ns = round(driver_timeout_s * 1e9)
        self._driver: bytes | None = None
        self._driven_ns = 0
        self._should_stop: Callable[[], bool] = lambda: False
        self._periods = 0
        self.skipped_periods = 0
        self._reception = Reception(endpoint, "plant", {"": plant.spec}, clock, keys=keys)
        self.endpoint = self._reception.endpoint

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Live until ``should_stop()``, asked at least every 50 ms; then free the address.

        Raises:
            SpecMismatch: the plant's observation is not of its spec.
        """
        period_ns = self._spec.period_ns
        self._should_stop = should_stop
        deadline_ns = self._clock.now_ns() + period_ns
        try:
            while self._serve_until(deadline_ns):
                self._publish(deadline_ns)
                self._check_driver()
                self._advance(deadline_ns)
                deadline_ns = self._next_deadline(deadline_ns, period_ns)
        finally:
            self._reception.close()

    def facts(self) -> dict[str, Any]:
        """Return what a run's log should say of the plant."""
        return {
            "substeps": self._held.substeps,
            "faults": self._faults.config.facts() if self._faults else {},
        }

    def stats(self) -> dict[str, Any]:
        """Return counters since the start; the real-time factor is 1 when physics keeps up."""
        held, faults = self._held, self._faults
        total = self._periods + self.skipped_periods
        return {
            **self.facts(),
            "real_time_factor": self._periods / total if total else 1.0,
            "steps": held.steps,
            "late_steps": held.late_steps,
            "late_substeps": held.late_substeps,
            "late": list(held.late),
            "skipped_periods": self.skipped_periods,
            "episodes": held.observation.episode + 1,
            "commands": held.commands,
            "outdated": held.outdated,
            "lost": faults.actions.lost + faults.observations.lost if faults else 0,
            "malformed": self._reception.malformed,
            "failure": held.failure,
        }

    def _advance(self, begun_ns: int) -> None:
        failed = self._held.failure
        self._held.advance(begun_ns)
        if self._held.failure and not failed:
            logger.error("%s", self._held.failure)

    def _next_deadline(self, deadline_ns: int, period_ns: int) -> int:
        self._periods += 1
        behind_ns = self._clock.now_ns() - deadline_ns - period_ns
        skipped = max(0, behind_ns // period_ns)
        self.skipped_periods += skipped
        return deadline_ns + (1 + skipped) * period_ns

    def _serve_until(self, deadline_ns: int) -> bool:
        """Serve the socket until the deadline; False when it is time to stop.

        The socket is looked at once even if the deadline has passed, so that a plant that is
        always late still hears its driver.
        """
        remaining_ns = deadline_ns - self._clock.now_ns()
        while not self._should_stop():
            wait_ns = min(remaining_ns, POLL_NS, self._send_arrived())
            for delivery in self._reception.deliveries(max(0, wait_ns), BATCH):
                self._handle(delivery)
            remaining_ns = deadline_ns - self._clock.now_ns()
            if remaining_ns <= 0:
                return True
        return False

    def _publish(self, stamp_ns: int) -> None:
        """Send the state sampled at ``stamp_ns``, or put it on its delayed way."""
        held, faults = self._held, self._faults
        if held.failure:
            failure = Failure(held.observation.episode, "unstable", one_line(held.failure))
            for identity in self._reception.guests("plant"):
                self._reception.send(identity, failure)
            return
        sampled = replace(held.observation, stamp_ns=stamp_ns)
        require_arrays(sampled.arrays, self._spec.observation)
        if faults is None:
            self._send(sampled)
            return
        read = replace(sampled, arrays=faults.sensors.read(sampled.arrays))
        faults.observations.send(read, stamp_ns)
        self._send_arrived()

    def _send_arrived(self) -> int:
        """Send the states whose delay has passed; return the time until the next one's."""
        if self._faults is None:
            return POLL_NS
        now_ns = self._clock.now_ns()
        for observation in self._faults.observations.arrived(now_ns):
            self._send(observation)
        due_ns = self._faults.observations.next_ns
        return POLL_NS if due_ns is None else due_ns - now_ns

    def _send(self, observation: Observation) -> None:
        state = State.of(observation, observation.stamp_ns)
        for identity in self._reception.guests("plant"):
            self._reception.send(identity, state, observation.arrays)

    def _handle(self, delivery: Delivery) -> None:
        identity, message = delivery.identity, delivery.message
        if isinstance(message, Control):
            self._control(identity, message)
        elif isinstance(message, (Command, Reset)):
            self._drive(delivery, message)
        elif isinstance(message, Bye):
            self._check_driver()
        else:
            self._reception.refuse(identity, f"a plant has no use for {type(message).__name__}")

    def _drive(self, delivery: Delivery, message: Command | Reset) -> None:
        identity = delivery.identity
        tick, episode = -1, -1
        if isinstance(message, Command):
            tick, episode = message.tick, message.episode
        if self._driver is None:
            self._driver = identity
        if identity != self._driver:
            driver = self._reception.name(self._driver)
            detail = one_line(f"{driver or 'another client'} drives this plant")
            self._reception.send(identity, Reject(tick, "not_driver", detail))
            return
        self._driven_ns = delivery.arrived_ns
        if isinstance(message, Reset):
            self._held.reset(message)
        elif objection := self._held.command(delivery.arrays, tick, episode):
            self._reception.send(identity, Reject(tick, "bad_command", one_line(objection)))

    def _check_driver(self) -> None:
        if self._driver is None:
            return
        silent_ns = self._clock.now_ns() - self._driven_ns
        if silent_ns > self._driver_timeout_ns or not self._reception.knows(self._driver):
            logger.info("the driver is gone; holding")
            self._driver = None
            self._held.hold()

    def _control(self, identity: bytes, message: Control) -> None:
        if message.verb == "stats":
            self._reception.report(identity, message.verb, True, self.stats())
        elif message.verb == "ready":
            detail = {"task": self._spec.task, "spec": self._spec.digest(), **self.facts()}
            self._reception.report(identity, message.verb, True, detail)
        else:
            reason = f"unknown verb {message.verb!r}, expected {' or '.join(VERBS)}"
            self._reception.report(identity, message.verb, False, {"reason": reason})
