"""Settings of the fault trials."""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.loop_config import LoopConfig
from controller.ranges import Positive, SchedFifo, Seed


class FaultTrialsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inject each fault into a running system, and report what it did.

    Attributes:
        bundle: the policy; a bundle, a store, or the name of one that comes with onebeat.
        task: the simulated task; null for that of the bundle.
        faults: names of the faults, all where the list is empty. Nothing injected: none. Of the
            server: server_killed, server_stopped, server_restarted. Of its answers:
            answers_delayed, answers_reordered, answers_duplicated, answers_lost,
            answers_garbage, answers_oversize, answers_nonfinite, answers_out_of_range. Of
            messages: messages_mutated. Of a swap: bundle_corrupt, bundle_wrong,
            bundle_missing. Of the plant: plant_frozen, plant_killed. Of log and viewer:
            recorder_stopped, recorder_killed, disk_full, viewer_stalled. Of the machine:
            clock_stepped, collector_storm, cpu_oversubscribed.
        rate_hz: rate of the loop.
        before_s: undisturbed time before a fault.
        after_s: longest undisturbed time after it; the run ends sooner once it has recovered.
        slew_per_s: slew limit of the loop, in units of the action: no command jumps further
            than this over the rate, except to the safe command.
        stop_after_s: time without an action after which the loop's stop latches.
        local_replica: keep a copy of the policy in the control process.
        mutations: mutated messages that pass the wire in the fault of that name.
        allow_clock_step: step this machine's wall clock by an hour and back, which other
            programs notice; without it that fault is left out.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
        out: directory of the runs; one below it per fault.
        seed: of the runs and of what is random in a fault.
    """

    bundle: str = "hopper"
    task: str | None = None
    faults: tuple[str, ...] = ()
    rate_hz: Positive = 200.0
    before_s: Positive = 2.0
    after_s: Positive = 10.0
    slew_per_s: Positive | None = 100.0
    stop_after_s: Positive = 2.0
    local_replica: bool = True
    mutations: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    allow_clock_step: bool = False
    sched_fifo: SchedFifo = "auto"
    out: str = "runs/faults"
    seed: Seed = 0

    def loop(self) -> LoopConfig:
        """Return the settings of the loop under trial."""
        return LoopConfig(
            rate_hz=self.rate_hz,
            stop_after_s=self.stop_after_s,
            slew_per_s=self.slew_per_s,
            sched_fifo=self.sched_fifo,
        )
