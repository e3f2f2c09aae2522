"""Settings of the control loop."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.ranges import Positive, SchedFifo
from controller.safety_settings import PerElement, SafetySettings, WorkspaceSettings
from controller.teleop_settings import TeleopSettings


class LoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the control loop.

    Attributes:
        rate_hz: rate of the loop; null for the rate of the plant.
        answer_fraction: part of the period, from the deadline on, that a tick waits for the
            policy's answer; the rest is for the fallback and for sending.
        max_age_s: age beyond which an observation is not acted on; null for five periods of
            the loop or of the plant, whichever is longer.
        stop_after_s: time on the safe command for want of an observation or an action, after
            which it latches until a restart.
        reset_timeout_s: how long to wait for an episode to begin, before the plant is lost.
        linger_s: how long the safe command is kept up after a latched stop. A run with a tick
            limit and a living plant keeps it up to that limit instead.
        slew_per_s: largest change per second of each action element, in units of the action:
            one number for all, or a list with null for any.
        acceleration_per_s2: largest change per second of that change, likewise.
        safe_action: the safe command, one number per action element; null for zeros clipped
            into the action's limits.
        workspace: where the robot may be.
        teleop: how a person may take over.
        align: place the deadlines just after the plant's observations.
        phase_ms: distance from the observation's stamp to the deadline when aligned: the time
            an observation needs to arrive.
        pacer: how to wait for a deadline: sleep, spin (the last ``spin_us`` of it), or auto:
            what a look of 0.2 s before the start finds clearly less late.
        spin_us: how long to busy-wait before each deadline. Pays mostly under SCHED_FIFO:
            elsewhere the scheduler takes the core from a spinner when it counts.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
        cpu: core to keep the loop on; null for any.
        chunks: when to ask for chunks of actions, and how one follows another.
        fallback: how long each rung of the fallback ladder may act.
    """

    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=10_000)] | None = None
    answer_fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    max_age_s: Positive | None = None
    stop_after_s: Positive = 2.0
    reset_timeout_s: Positive = 10.0
    linger_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    slew_per_s: PerElement = None
    acceleration_per_s2: PerElement = None
    safe_action: tuple[float, ...] | None = None
    workspace: WorkspaceSettings = WorkspaceSettings()
    teleop: TeleopSettings = TeleopSettings()
    align: bool = True
    phase_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    pacer: Literal["auto", "sleep", "spin"] = "auto"
    spin_us: Annotated[float, msgspec.Meta(ge=0, le=2000)] = 100.0
    sched_fifo: SchedFifo = "auto"
    cpu: Annotated[int, msgspec.Meta(ge=0)] | None = None
    chunks: ChunkSettings = ChunkSettings()
    fallback: FallbackSettings = FallbackSettings()

    def period_ns(self, plant_hz: float) -> int:
        """Return the period of a loop that drives a plant of the given rate."""
        return round(1e9 / (self.rate_hz or plant_hz))

    @property
    def safety(self) -> SafetySettings:
        """What determines the executed commands."""
        return SafetySettings(
            slew_per_s=self.slew_per_s,
            acceleration_per_s2=self.acceleration_per_s2,
            safe_action=self.safe_action,
            workspace=self.workspace,
            blend_s=self.teleop.blend_s,
        )
