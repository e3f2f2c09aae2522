"""The last stage before the plant: from what was decided to the command that is sent."""

from __future__ import annotations

import numpy as np

from controller.handover import Handover
from controller.limits import Limits
from controller.safety import filter_action, stop_at_edge
from controller.safety_settings import PLAIN, SafetySettings
from controller.spec import Spec
from controller.types import Array, Observation, Reason, Rung, TickRecord
from controller.workspace import Workspace


class SafetyFilter:
    """The filter of one run. It remembers what its limits need, and nothing else.

    Each tick: ``look``, then ``command``. A request is faded in when a person takes over or hands
    back, clipped to limits and workspace, slowed, and at last cut at the edge of the workspace,
    which no limit of change puts off. The safe command of HOLD and STOP comes at once, and what
    was stopped counts as at rest. A hold with reason BLENDED is on the way to the safe command,
    and filtered like an action.

    Args:
        spec: gives bounds, shape and dtype.
        settings: what is allowed.
        period_ns: period of the loop; None for the period of the spec.

    Attributes:
        limits: the bounds.
        workspace: where the robot may be; None for anywhere.
        previous: the command before, read-only.

    Raises:
        ConfigError: a setting does not fit the robot.
    """

    def __init__(
        self, spec: Spec, settings: SafetySettings = PLAIN, *, period_ns: int | None = None
    ) -> None:
        declared = settings.safe_action is not None
        self.workspace = Workspace(spec, settings.workspace) if settings.workspace.axes else None
        self.limits = Limits.of(
            spec,
            settings.slew_per_s,
            settings.safe_action,
            period_ns,
            acceleration_per_s2=settings.acceleration_per_s2,
        )
        if self.workspace:
            self.limits = self.workspace.narrow(self.limits, declared)
        self._handover = Handover(settings.blend_s, period_ns or spec.period_ns)
        self.previous = self._before = self.limits.safe
        self._missing = 0

    @property
    def safe(self) -> Array:
        """The declared safe command, read-only."""
        return self.limits.safe

    def look(self, observation: Observation) -> None:
        """Take note of where the robot is."""
        if self.workspace:
            self.workspace.look(observation)

    def forbids(self, *, person: bool = False) -> bool:
        """Return whether nobody may act where the robot is.

        A person may where no policy may: only somebody who sees the robot can bring it back.
        """
        space = self.workspace
        return space is not None and (space.blind or (space.left and not person))

    def command(
        self, tick: int, rung: Rung, requested: Array, reasons: Reason = Reason.NONE
    ) -> tuple[Array, Reason]:
        """Return the command to send, read-only, and why it differs from ``requested``.

        Args:
            tick: number of the tick.
            rung: where the request comes from.
            requested: the action asked for.
            reasons: those of the decision; BLENDED has a meaning on HOLD and STOP.
        """
        if not rung.acts:
            self._handover.interrupt()
            return self.apply(requested) if reasons & Reason.BLENDED else (self.hold(), Reason.NONE)
        faded, blended = self._handover.blend(tick, rung, requested, self.previous)
        executed, altered = self.apply(faded)
        if rung is Rung.HUMAN and self.forbids():
            altered |= Reason.WORKSPACE
        return executed, altered | blended if blended else altered

    def apply(self, requested: Array) -> tuple[Array, Reason]:
        """Return the command for a request of the same origin as the one before."""
        previous, limits = self.previous, self.limits
        executed, reasons = filter_action(requested, previous, limits, self._before)
        stopped = bool(reasons) and bool(reasons & Reason.NONFINITE)
        self._before = executed if stopped else previous
        edge = None if stopped or self.workspace is None else self.workspace.edge()
        if edge is not None:
            kept, cut = stop_at_edge(executed, edge, limits)
            if cut:
                self._before = np.where(kept == executed, previous, kept)
                executed, reasons = kept, reasons | cut
        executed.flags.writeable = False
        self.previous = executed
        return executed, reasons

    def hold(self) -> Array:
        """Return the safe command as the one to send, at once."""
        self.previous = self._before = self.limits.safe
        return self.previous

    def lose(self) -> None:
        """Take note that ticks are missing from the log before the next one."""
        self._missing = 2

    def recompute(self, record: TickRecord) -> Array | None:
        """Return the command of a logged tick, None where it depends on a missing one.

        Call it on each tick of a log in order, from the first of the run on.
        """
        self.look(record.observation)
        reasons = Reason(record.reasons)
        if self._missing and (record.rung.acts or reasons & Reason.BLENDED):
            self._follow(record)
            return None
        self._missing = 0
        return self.command(record.tick, record.rung, record.requested, reasons)[0]

    def _follow(self, record: TickRecord) -> None:
        """Take a logged tick for granted; two in a row, unaltered by the past, tell enough."""
        self._before, self.previous = self.previous, record.executed
        self._handover.resume(record.rung)
        self._missing -= 1
        if self._missing == 1 and self.limits.bend is None:
            self._missing = 0
        stopped = record.reasons & (Reason.WORKSPACE | Reason.NONFINITE)
        if record.reasons & Reason.BLENDED or (stopped and self.limits.bend is not None):
            self._missing = 2
