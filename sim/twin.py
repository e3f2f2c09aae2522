"""A plant in real time without the time: its physics follows a virtual clock.

The deterministic twin of :mod:`sim.server`: the same latch, the same physics steps, the same
delay from a command to what it does, with no process and no waiting. What a loop and its policy
take, the virtual clock has to be told; then the plant has moved on meanwhile, as a robot would.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from controller.errors import ConfigError, PlantFailed
from controller.fault_settings import FaultsConfig
from controller.interfaces import Clock, Plant
from controller.spec import Spec
from controller.types import Array, Observation
from controller.wire import Reset
from sim.faults import Faults
from sim.held import HeldPlant


class _Boundary:
    """The clock of the physics: it stands at the boundary that is computed."""

    def __init__(self) -> None:
        self.time_ns = 0

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until(self, deadline_ns: int) -> None:
        self.time_ns = max(self.time_ns, deadline_ns)


class TwinPlant:
    """A :class:`controller.interfaces.Plant` whose physics has come as far as the clock says.

    The control step over [t_k, t_{k+1}] is computed when somebody looks after t_{k+1}, from
    the commands of that time, each from the physics step on that begins after it came. So
    everything is as on the real-time server, except that nothing is ever late.

    Args:
        plant: a lockstep plant; closing it closes the other.
        clock: virtual time, which starts the plant.
        hold_action: see :class:`sim.held.HeldPlant`.
        faults: between the plant and its user.

    Raises:
        ConfigError: see :class:`sim.held.HeldPlant`.
        PlantFailed: the plant has no first state.
    """

    def __init__(
        self,
        plant: Plant,
        clock: Clock,
        *,
        hold_action: Array | None = None,
        faults: FaultsConfig | None = None,
    ) -> None:
        self._plant, self._clock = plant, clock
        self._faults = Faults(faults, plant.spec) if faults and faults.active else None
        self._boundary = _Boundary()
        self._boundary.time_ns = self._next_ns = clock.now_ns()
        self._queue: deque[tuple[int, Array, int, int]] = deque()
        self._held = HeldPlant(
            plant, self._boundary, self._wait, hold_action=hold_action, faults=self._faults
        )
        self.substeps = self._held.substeps
        self._visible = replace(self._held.observation, stamp_ns=self._next_ns)

    @property
    def spec(self) -> Spec:
        """What the plant looks like."""
        return self._plant.spec

    def reset(self, seed: int | None = None) -> None:
        """Begin the next episode at the next control step; it takes one period."""
        self._catch_up()
        self._held.reset(Reset(seed, self._held.observation.episode + 1))

    def observe(self) -> Observation:
        """Return the newest observation that has arrived by now.

        Raises:
            PlantFailed: the simulation broke down; a reset revives it.
        """
        self._catch_up()
        if self._held.failure:
            raise PlantFailed(self._held.failure)
        return self._visible

    def command(self, action: Array, tick: int) -> None:
        """Apply ``action`` from the first physics step on that begins after now.

        Raises:
            ConfigError: the action is not one that the plant takes.
        """
        self._catch_up()
        taken = np.ascontiguousarray(action, self.spec.action.dtype)
        self._queue.append((self._clock.now_ns(), taken, tick, self._visible.episode))

    def close(self) -> None:
        """Release the plant."""
        self._plant.close()

    def _catch_up(self) -> None:
        """Compute every control step that has ended by now, and publish its result."""
        period_ns = self.spec.period_ns
        while self._next_ns + period_ns <= self._clock.now_ns():
            begun_ns = self._next_ns
            self._wait(begun_ns)
            self._held.advance(begun_ns)
            self._next_ns = begun_ns + period_ns
            self._publish()
        self._arrive(self._clock.now_ns())

    def _wait(self, time_ns: int) -> None:
        """Hand over the commands that had come by ``time_ns``."""
        while self._queue and self._queue[0][0] <= time_ns:
            came_ns, action, tick, episode = self._queue.popleft()
            self._boundary.sleep_until(came_ns)
            objection = self._held.command((action.tobytes(),), tick, episode)
            if objection:
                raise ConfigError(objection)
        self._boundary.sleep_until(time_ns)

    def _publish(self) -> None:
        sampled = replace(self._held.observation, stamp_ns=self._next_ns)
        if self._faults is None:
            self._visible = sampled
            return
        read = replace(sampled, arrays=self._faults.sensors.read(sampled.arrays))
        self._faults.observations.send(read, self._next_ns)
        self._arrive(self._next_ns)

    def _arrive(self, now_ns: int) -> None:
        if self._faults is not None:
            for observation in self._faults.observations.arrived(now_ns):
                self._visible = observation
