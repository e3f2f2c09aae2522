"""The latch before a plant in real time: which command acts when. No sockets here.

Physics advances in steps of its own, with the wall clock. The control step over [t_k, t_{k+1}]
is n physics steps of h = period / n; the one over [t_k + i·h, t_k + (i+1)·h] is computed once
t_k + i·h has come, with the newest command received by then. So a command that arrives x after
t_k acts from physics step ⌈x / h⌉ on, as on a robot, and holds until it is replaced.

Where the environment is not ``Substepped``, n is 1: such a command acts from t_{k+1} on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from controller.array_frames import unpack
from controller.errors import ConfigError, PlantFailed, WireError
from controller.interfaces import Clock, Plant
from controller.safety import is_finite
from controller.spec import ArraySpec
from controller.types import Array, Observation
from controller.wire import Reset
from sim.faults import Faults

SHORTEST_SUBSTEP_NS = 1_000_000
"""Physics steps are grouped until a group is this long: waking up takes about 0.1 ms."""

KEPT_LATE = 100
ROUNDING = 1e-6
"""A command may leave its limits by this share of their distance."""


@runtime_checkable
class SubsteppedPlant(Protocol):
    """A lockstep plant whose command can change between the physics steps of a control step.

    Attributes:
        physics_steps: physics steps of a control step.
        between: see :class:`sim.env.Substepped`.
    """

    physics_steps: int
    between: Callable[[], Array] | None


class HeldPlant:
    """A lockstep plant that a clock drives, with a latch before it.

    Args:
        plant: what to advance; it is reset here, so that it has a state.
        clock: real time.
        wait_until: called with a time; returns once it has come, having handed over the
            commands that came meanwhile. None never waits.
        hold_action: applied before the first command of an episode, and when the driver is
            gone; zeros clipped into the limits by default.
        faults: between commands and latch; None for none.

    Attributes:
        hold_action: as given.
        observation: the newest state, with the tick of the newest command that acted.
        failure: why the plant cannot go on; empty while it can. A reset may revive it.
        substeps: times per control step at which a new command can begin to act.
        steps: control steps computed.
        commands: commands taken.
        outdated: commands dropped because their episode was over.
        late_steps: control steps whose result was not ready at their end.
        late_substeps: the same of the intervals between two latches.
        late: the last late steps, oldest first.

    Raises:
        ConfigError: ``hold_action`` has not the shape of the plant's action, or is not finite.
        PlantFailed: the plant has no first state.
    """

    def __init__(
        self,
        plant: Plant,
        clock: Clock,
        wait_until: Callable[[int], object] = lambda time_ns: None,
        *,
        hold_action: Array | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._plant, self._clock, self._wait_until = plant, clock, wait_until
        self._faults = faults
        self._action_spec, self._period_ns = plant.spec.action, plant.spec.period_ns
        self.hold_action = _checked_hold(hold_action, self._action_spec)
        self._limits = _tolerant_limits(self._action_spec)
        self._latched = self._acting = (self.hold_action, -1)
        self._due: Reset | None = None
        self._physics_steps = plant.physics_steps if isinstance(plant, SubsteppedPlant) else 1
        self._group = -(-SHORTEST_SUBSTEP_NS * self._physics_steps // self._period_ns)
        self._begun_ns = self._physics_step = 0
        self.substeps = -(-self._physics_steps // self._group)
        self.failure = ""
        self.steps = self.commands = self.outdated = 0
        self.late_steps = self.late_substeps = 0
        self.late: deque[dict[str, float]] = deque(maxlen=KEPT_LATE)
        if isinstance(plant, SubsteppedPlant) and self.substeps > 1:
            plant.between = self._between
        plant.reset()
        self.observation: Observation = plant.observe()

    def command(self, arrays: Sequence[bytes], tick: int, episode: int = -1) -> str:
        """Take a command for the next latch; return why not, or nothing.

        One that was computed in another episode is dropped, and counted as ``outdated``: the
        new episode has only just begun, and its first command is on the way.
        """
        try:
            (action,) = unpack(arrays, (self._action_spec,))
        except WireError as error:
            return str(error)
        if not is_finite(action):
            return f"the action is not finite: {action.tolist()}"
        if outside := self._outside(action):
            return outside
        if episode not in (-1, self.observation.episode):
            self.outdated += 1
        elif self._faults is None:
            self._latched = (action, tick)
            self.commands += 1
        else:
            self._faults.actions.send((action, tick), self._clock.now_ns())
            self.commands += 1
        return ""

    def reset(self, request: Reset) -> None:
        """Begin the requested episode at the next control step, if it is the next episode."""
        if self._due is None and request.episode == self.observation.episode + 1:
            self._due = request

    def hold(self) -> None:
        """Forget every command: the hold action acts from the next latch on."""
        self._latched = (self.hold_action, -1)
        if self._faults is not None:
            self._faults.actions.clear()

    def advance(self, begun_ns: int) -> None:
        """Compute the control step that begins at ``begun_ns``, or the reset that is due.

        Nothing happens once the episode is over. Returns when the last physics step is
        computed, about one of them before the control step ends.
        """
        try:
            if self._due is not None:
                self._begin(self._due)
            elif not self.observation.done and not self.failure:
                self._step(begun_ns)
        except PlantFailed as error:
            self.failure = str(error)

    def _begin(self, request: Reset) -> None:
        self._due = None
        self.hold()
        if self._faults is not None:
            self._faults.begin(request.seed)
        self._plant.reset(request.seed)
        self.failure = ""
        self.observation = replace(self._plant.observe(), late_steps=self.late_steps)

    def _step(self, begun_ns: int) -> None:
        self._begun_ns, self._physics_step = begun_ns, 0
        self._latch(begun_ns)
        self._plant.command(*self._acting)
        self.steps += 1
        late_ns = max(0, self._clock.now_ns() - begun_ns - self._period_ns)
        seen = self._plant.observe()
        if late_ns:
            self.late_steps += 1
            self.late_substeps += 1
            self.late.append(
                {"episode": seen.episode, "step": seen.step, "late_us": late_ns / 1000}
            )
        self.observation = replace(
            seen, applied_tick=self._acting[1], late_ns=late_ns, late_steps=self.late_steps
        )

    def _between(self) -> Array:
        """Return the action of the next physics step; waits for its time to come."""
        self._physics_step += 1
        if self._physics_step % self._group == 0:
            passed_ns = self._physics_step * self._period_ns // self._physics_steps
            boundary_ns = self._begun_ns + passed_ns
            self.late_substeps += self._clock.now_ns() > boundary_ns
            self._wait_until(boundary_ns)
            self._latch(boundary_ns)
        return self._acting[0]

    def _outside(self, action: Array) -> str:
        """Return in words which element leaves its limits first; nothing when none does."""
        (low, high), value = self._limits, action.astype(np.float64)
        beyond = (value < low) | (value > high)
        if not beyond.any():
            return ""
        spec, place = self._action_spec, int(np.flatnonzero(beyond)[0])
        name = spec.elements[place] if spec.elements else f"number {place}"
        least, most = (float(limit.reshape(-1)[place]) for limit in spec.bounds())
        got = float(value.reshape(-1)[place])
        return f"{spec.name}: {name} is {got:g}, expected {least:g} to {most:g}"

    def _latch(self, now_ns: int) -> None:
        if self._faults is not None:
            for arrived in self._faults.actions.arrived(now_ns):
                self._latched = arrived
        self._acting = self._latched


def _checked_hold(hold_action: Array | None, spec: ArraySpec) -> Array:
    held = spec.resting() if hold_action is None else hold_action
    if held.shape != spec.shape or not is_finite(held):
        raise ConfigError(
            f"hold action {held.tolist()}: expected finite numbers of shape {spec.shape}"
        )
    return held.astype(spec.dtype)


def _tolerant_limits(spec: ArraySpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = spec.bounds()
    with np.errstate(invalid="ignore"):
        width = np.where(np.isfinite(high - low), high - low, 0.0)
    return low - ROUNDING * width, high + ROUNDING * width
