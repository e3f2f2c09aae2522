"""What a run log holds besides ticks: its header and its events."""

from __future__ import annotations

import os
import platform
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Annotated, Any, Literal

import msgspec

from controller.safety_settings import SafetySettings
from controller.spec import Spec

FORMAT = 1
METADATA = "onebeat"
CONTINUED = "onebeat-next"
"""Name of the metadata with which a file says that the log goes on in the next one."""
TICK_TOPIC = "/tick"
EVENT_TOPIC = "/event"
DROPPED = "dropped"
"""Kind of the event with which a sink reports what it could not take; see :class:`Drop`."""
BUNDLE = "bundle"
"""Kind of an event with detail ``"<version> <path>"``: where a version that came later is kept."""
TICK_NUMBERS = ("tick", "deadline_ns", "sent_ns", "answer_tick", "evaluations")
TICK_CHOICES = ("candidates", "batch", "rtt_ns", "prefix")
"""Numbers of a tick that logs of earlier versions do not have; they read as 0."""
STAGES = ("wake", "observe", "transport", "queue", "infer", "act", "total")
OBSERVATION_NUMBERS = ("stamp_ns", "episode", "step", "applied_tick")
OBSERVATION_FLAGS = ("terminated", "truncated", "success")
OBSERVATION_REALS = ("reward", "episode_return")
OBSERVATION_LATENESS = ("late_ns", "late_steps")
"""Numbers that logs of earlier versions do not have; they read as 0."""


class LogHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a whole run.

    Attributes:
        spec: the robot.
        mode: realtime (monotonic time), virtual (the same in virtual time from 0) or lockstep
            (virtual time from 0, the plant waits).
        rate_hz: rate of the loop.
        seed: seed of the run; the policy draws its noise from (seed, tick).
        task: name of the task.
        engine: inference engine of the policy.
        device: device of the policy.
        bundles: path by policy version, for the versions known at the start.
        safety: all that determines the executed commands; None in logs of earlier versions.
        slew_per_s: slew limit of the safety filter in those; None for none.
        safe_action: safe command in those, flattened; None for zeros clipped into the limits.
        config: all settings of the run.
        host: facts of the machine.
        plant: what the plant says of itself: ``substeps``, ``faults`` that were on.
        created: wall-clock time of the start, ISO 8601; filled in by the writer.
        wall_offset_ns: what to add to a stamp of a record for Unix time, fixed for the run;
            filled in by the writer in real time, 0 in lockstep.
        format: version of this layout.
        run: identity of the run, the same in all files of a log; filled in by the writer.
        part: number of the file among those of the log; filled in by the writer.
        first_part: number of the oldest file that is kept; filled in by the writer.
    """

    spec: Spec
    mode: Literal["realtime", "virtual", "lockstep"]
    rate_hz: Annotated[float, msgspec.Meta(gt=0)]
    seed: int
    task: str = ""
    engine: str = ""
    device: str = ""
    bundles: dict[str, str] = {}
    safety: SafetySettings | None = None
    slew_per_s: float | None = None
    safe_action: tuple[float, ...] | None = None
    config: dict[str, Any] = {}
    host: dict[str, Any] = {}
    plant: dict[str, Any] = {}
    created: str = ""
    wall_offset_ns: int = 0
    format: int = FORMAT
    run: str = ""
    part: int = 0
    first_part: int = 0

    @property
    def period_ns(self) -> int:
        """Control period in nanoseconds."""
        return round(1e9 / self.rate_hz)

    @property
    def allowed(self) -> SafetySettings:
        """What determines the executed commands, in a log of any version."""
        return self.safety or SafetySettings(
            slew_per_s=self.slew_per_s, safe_action=self.safe_action
        )

    def dated(self) -> LogHeader:
        """Return the header with an identity and the present time, unless it has them."""
        if not self.run:
            return msgspec.structs.replace(self, run=uuid.uuid4().hex).dated()
        if self.created:
            return self
        real = self.mode == "realtime"
        return msgspec.structs.replace(
            self,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_offset_ns=time.time_ns() - time.monotonic_ns() if real else 0,
        )


class Drop(msgspec.Struct, frozen=True):
    """Records that a sink could not take, one after the other; detail of a ``dropped`` event.

    Attributes:
        ticks: number of ticks.
        events: number of events.
        first: number of the first such tick, -1 when there is none.
        last: number of the last such tick.
    """

    ticks: int = 0
    events: int = 0
    first: int = -1
    last: int = -1

    def with_tick(self, tick: int) -> Drop:
        """Return this and one more tick."""
        first = tick if self.first < 0 else self.first
        return Drop(self.ticks + 1, self.events, first, tick)

    def with_event(self) -> Drop:
        """Return this and one more event."""
        return Drop(self.ticks, self.events + 1, self.first, self.last)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened between ticks; ``stamp_ns`` is on the loop's clock."""

    stamp_ns: int
    kind: str
    detail: str = ""


def host_facts() -> dict[str, Any]:
    """Return what a reader of figures needs to know of this machine."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "numpy": installed_version("numpy"),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
