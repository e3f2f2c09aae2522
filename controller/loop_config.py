"""Settings of the control loop."""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.ranges import Positive, SchedFifo


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
        slew_per_s: largest change per second of each action element, in units of the action;
            null for any.
        safe_action: the safe command, one number per action element; null for zeros clipped
            into the action's limits.
        align: place the deadlines just after the plant's observations.
        phase_ms: distance from the observation's stamp to the deadline when aligned: the time
            an observation needs to arrive.
        spin_us: busy-wait before each deadline. Pays only under SCHED_FIFO: elsewhere the
            scheduler takes the core from a spinner when it counts.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
        cpu: core to keep the loop on; null for any.
    """

    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=10_000)] | None = None
    answer_fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    max_age_s: Positive | None = None
    stop_after_s: Positive = 2.0
    reset_timeout_s: Positive = 10.0
    linger_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    slew_per_s: Positive | None = None
    safe_action: tuple[float, ...] | None = None
    align: bool = True
    phase_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    spin_us: Annotated[float, msgspec.Meta(ge=0, le=2000)] = 100.0
    sched_fifo: SchedFifo = "auto"
    cpu: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def period_ns(self, plant_hz: float) -> int:
        """Return the period of a loop that drives a plant of the given rate."""
        return round(1e9 / (self.rate_hz or plant_hz))
