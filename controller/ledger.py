"""What a run writes down: a record per tick, events, the state of the loop, the counters."""

from __future__ import annotations

from controller.interfaces import Clock, Sink
from controller.ladder import Decision
from controller.modes import Event, next_mode
from controller.pacing import Tick
from controller.status import StatusBoard, Tally
from controller.types import Array, Mode, Observation, Reason, TickRecord


class Ledger:
    """The books of one run.

    Args:
        sink: takes a record per tick, and events.
        clock: stamps events.
        period_ns: period of the loop.
        status: board to show progress on.

    Attributes:
        mode: state of the loop.
        fault: one line on the latched stop; empty without one.
        observed_ns: when the observation of the tick had been read.
        decided_ns: when it had been decided what to do at the tick.
    """

    def __init__(
        self, sink: Sink, clock: Clock, period_ns: int, status: StatusBoard | None
    ) -> None:
        self._sink, self._clock = sink, clock
        self._tally = Tally(status, period_ns) if status else None
        self.mode, self.fault = Mode.INIT, ""
        self.observed_ns = self.decided_ns = 0

    def advance(self, event: Event, detail: str = "") -> bool:
        """Move to the mode that follows upon ``event``; return whether it is another one."""
        mode, self.mode = self.mode, next_mode(self.mode, event)
        if self.mode is mode:
            return False
        suffix = f" ({detail})" if detail else ""
        self.event("mode", f"{mode.name} -> {self.mode.name}: {event.value}{suffix}")
        if self._tally:
            self._tally.mode(self.mode)
        return True

    def event(self, kind: str, detail: str) -> None:
        """Write down something that happened between ticks."""
        self._sink.event(self._clock.now_ns(), kind, detail)

    def episode(self, observation: Observation) -> None:
        """Write down the end of an episode."""
        end = "success" if observation.success else "no success"
        detail = f"{observation.episode} over after {observation.step} steps"
        self.event("episode", f"{detail}: return {observation.episode_return:.6g}, {end}")
        if self._tally:
            self._tally.episode(observation.success)

    def close(self) -> None:
        """Show that the run is over."""
        if self._tally:
            self._tally.mode(self.mode)

    def tick(
        self,
        tick: Tick,
        observation: Observation,
        decision: Decision,
        executed: Array,
        reasons: Reason,
        sent_ns: int,
    ) -> None:
        """Write down one tick, whose command was sent at ``sent_ns``."""
        waited = decision.queue_ns >= 0
        decide_ns = self.decided_ns - self.observed_ns
        record = TickRecord(
            tick=tick.index,
            deadline_ns=tick.deadline_ns,
            sent_ns=sent_ns,
            mode=self.mode,
            rung=decision.rung,
            reasons=int(reasons),
            observation=observation,
            requested=decision.requested,
            executed=executed,
            version=decision.version,
            answer_tick=decision.answer_tick,
            evaluations=decision.evaluations,
            wake_ns=tick.wake_ns - tick.deadline_ns,
            observe_ns=self.observed_ns - tick.wake_ns,
            transport_ns=decide_ns - decision.queue_ns - decision.infer_ns if waited else -1,
            queue_ns=decision.queue_ns,
            infer_ns=decision.infer_ns,
            act_ns=sent_ns - self.decided_ns,
            total_ns=sent_ns - tick.deadline_ns,
            candidates=decision.candidates,
            batch=decision.batch,
            rtt_ns=decision.answer_rtt_ns,
            prefix=decision.prefix,
        )
        taken = self._sink.tick(record)
        if self._tally:
            self._tally.tick(record, taken)
