"""A simulated plant in real time: physics follows the wall clock and waits for nobody.

The rule is that of a causal zero-order hold. At each deadline t_k, k periods after the start:

1. the state sampled at t_k is published;
2. the newest command received so far is latched; a command that answers this very state can
   only arrive later, and acts from t_{k+1} on;
3. the step over [t_k, t_{k+1}] is computed with the latched command. Its result is published
   at t_{k+1}, not before.

Between deadlines the socket is served. A command holds until it is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from controller.errors import ConfigError, WireError
from controller.interfaces import Clock, Plant
from controller.reception import Delivery, Reception
from controller.types import Array, Observation
from controller.wire import (
    Bye,
    Command,
    Control,
    Reject,
    Reset,
    State,
    one_line,
    require_arrays,
    unpack,
)

logger = logging.getLogger(__name__)

POLL_NS = 50_000_000
BATCH = 16
"""Messages looked at between two looks at the clock: about 0.3 ms of a flood."""

VERBS = ("ready", "stats")


class HeldPlant:
    """A lockstep plant with a latch before it: the rule of this module without time or sockets.

    Args:
        plant: what to advance; it is reset here, so that it has a state.
        hold_action: applied before the first command of an episode, and when the driver is
            gone; zeros clipped into the limits by default.

    Attributes:
        hold_action: as given.
        steps: control steps computed.
        commands: commands taken.
        outdated: commands dropped because their episode was over.

    Raises:
        ConfigError: ``hold_action`` has not the shape of the plant's action, or is not finite.
    """

    def __init__(self, plant: Plant, hold_action: Array | None = None) -> None:
        self._plant = plant
        self._action_spec = plant.spec.action
        self.hold_action = self._action_spec.resting() if hold_action is None else hold_action
        if self.hold_action.shape != self._action_spec.shape or not _finite(self.hold_action):
            raise ConfigError(
                f"hold action {self.hold_action.tolist()}: expected finite numbers of shape "
                f"{self._action_spec.shape}"
            )
        self.hold_action = self.hold_action.astype(self._action_spec.dtype)
        self._latched: tuple[Array, int] = (self.hold_action, -1)
        self._due: Reset | None = None
        self.steps = 0
        self.commands = self.outdated = 0
        plant.reset()

    @property
    def observation(self) -> Observation:
        """The state of the plant."""
        return self._plant.observe()

    def command(self, arrays: Sequence[bytes], tick: int, episode: int = -1) -> str:
        """Take a command for the next latch; return why not, or nothing.

        One that was computed in another episode is dropped, and counted as ``outdated``: the
        new episode has only just begun, and its first command is on the way.
        """
        try:
            (action,) = unpack(arrays, (self._action_spec,))
        except WireError as error:
            return str(error)
        if not _finite(action):
            return f"the action is not finite: {action.tolist()}"
        if episode in (-1, self.observation.episode):
            self._latched = (action, tick)
            self.commands += 1
        else:
            self.outdated += 1
        return ""

    def reset(self, request: Reset) -> None:
        """Begin the requested episode at the next latch, if it is the next episode."""
        if self._due is None and request.episode == self.observation.episode + 1:
            self._due = request

    def hold(self) -> None:
        """Forget the last command: the hold action acts from the next latch on."""
        self._latched = (self.hold_action, -1)

    def advance(self) -> None:
        """Compute one control step, or the reset that is due; nothing once the episode is over."""
        if self._due is not None:
            self._plant.reset(self._due.seed)
            self._due = None
            self.hold()
        elif not self.observation.done:
            self._plant.command(*self._latched)
            self.steps += 1


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

    Attributes:
        endpoint: the bound address.
        late_steps: steps that took longer than their period.
        skipped_periods: whole periods that passed without a step, because one took so long.

    Raises:
        ConfigError: see :class:`HeldPlant` and :func:`controller.transport.check_endpoint`.
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
    ) -> None:
        self._spec = plant.spec
        self._held = HeldPlant(plant, hold_action)
        self._clock = clock
        self._driver_timeout_ns = round(driver_timeout_s * 1e9)
        self._driver: bytes | None = None
        self._driven_ns = 0
        self._begun_ns = clock.now_ns()
        self._periods = 0
        self.late_steps = 0
        self.skipped_periods = 0
        self._reception = Reception(endpoint, "plant", plant.spec, clock)
        self.endpoint = self._reception.endpoint

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Live until ``should_stop()``, asked at least every 50 ms; then free the address.

        Raises:
            SpecMismatch: the plant's observation is not of its spec.
        """
        period_ns = self._spec.period_ns
        self._begun_ns = deadline_ns = self._clock.now_ns() + period_ns
        try:
            while self._serve_until(deadline_ns, should_stop):
                self._publish(deadline_ns)
                self._check_driver()
                self._held.advance()
                deadline_ns = self._next_deadline(deadline_ns, period_ns)
        finally:
            self._reception.close()

    def stats(self) -> dict[str, float | int]:
        """Return counters since the start; the real-time factor is 1 when physics keeps up."""
        total = self._periods + self.skipped_periods
        return {
            "real_time_factor": self._periods / total if total else 1.0,
            "steps": self._held.steps,
            "late_steps": self.late_steps,
            "skipped_periods": self.skipped_periods,
            "episodes": self._held.observation.episode + 1,
            "commands": self._held.commands,
            "outdated": self._held.outdated,
            "malformed": self._reception.malformed,
        }

    def _next_deadline(self, deadline_ns: int, period_ns: int) -> int:
        self._periods += 1
        behind_ns = self._clock.now_ns() - deadline_ns - period_ns
        self.late_steps += behind_ns > 0
        skipped = max(0, behind_ns // period_ns)
        self.skipped_periods += skipped
        return deadline_ns + (1 + skipped) * period_ns

    def _serve_until(self, deadline_ns: int, should_stop: Callable[[], bool]) -> bool:
        """Serve the socket until the deadline; False when it is time to stop.

        The socket is looked at once even if the deadline has passed, so that a plant that is
        always late still hears its driver.
        """
        remaining_ns = deadline_ns - self._clock.now_ns()
        while not should_stop():
            for delivery in self._reception.deliveries(max(0, min(remaining_ns, POLL_NS)), BATCH):
                self._handle(delivery)
            remaining_ns = deadline_ns - self._clock.now_ns()
            if remaining_ns <= 0:
                return True
        return False

    def _publish(self, stamp_ns: int) -> None:
        observation = self._held.observation
        require_arrays(observation.arrays, self._spec.observation)
        state = State(
            episode=int(observation.episode),
            step=int(observation.step),
            stamp_ns=stamp_ns,
            reward=float(observation.reward),
            episode_return=float(observation.episode_return),
            terminated=bool(observation.terminated),
            truncated=bool(observation.truncated),
            success=bool(observation.success),
            applied_tick=int(observation.applied_tick),
        )
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
            detail = {"task": self._spec.task, "spec": self._spec.digest()}
            self._reception.report(identity, message.verb, True, detail)
        else:
            reason = f"unknown verb {message.verb!r}, expected {' or '.join(VERBS)}"
            self._reception.report(identity, message.verb, False, {"reason": reason})


def _finite(action: Array) -> bool:
    return bool(np.isfinite(action).all())
