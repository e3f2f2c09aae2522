"""The control loop: on absolute deadlines, observe, decide, act."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

from controller.episodes import Episodes, episode_seed
from controller.errors import PlantFailed, PlantLost
from controller.holding import Holding
from controller.interfaces import Clock, Plant, Policy, Sink
from controller.ladder import Decision, Ladder, Notices, Patience
from controller.ledger import Ledger
from controller.loop_config import LoopConfig
from controller.modes import Event, event_of, next_mode
from controller.pacing import Tick, Ticker
from controller.safety_filter import SafetyFilter
from controller.status import StatusBoard
from controller.teleop import Seat, TeleopSource
from controller.types import Array, Mode, Observation, Reason, Rung

__all__ = ["ControlLoop", "LoopConfig", "Outcome", "episode_seed"]

CREDIBLE_PERIODS = 5
"""Age of a stamp, in plant periods, up to which deadlines are aligned to it."""


class Outcome(StrEnum):
    """Why a run ended."""

    TICKS = "ticks"
    """The tick limit was reached."""
    EPISODES = "episodes"
    """The episodes are complete."""
    OPERATOR = "operator"
    """Somebody asked for the stop."""
    FAULT = "fault"
    """The stop latched."""
    ERROR = "error"
    """An exception passes through."""


class ControlLoop:
    """One run of a policy on a plant.

    The same code runs in real time, with a remote plant under a ``MonotonicClock``, and in
    lockstep, with a plant in this process under a ``VirtualClock``.

    *Start.* The plant is reset with the run's seed. Until an observation of the new episode is
    there the loop is in INIT and sends the safe command, with tick -1 and unrecorded, once a
    period. Then the grid is laid: in real time with ``align``, tick 0 lies ``phase_ms`` after
    a multiple of the plant's period counted from the observation's stamp, so that at equal
    rates every tick comes just after an observation. A plant on this host stamps with the same
    CLOCK_MONOTONIC. A stamp in the future or older than ``CREDIBLE_PERIODS`` is of another
    host's clock; the arrival, known to a tenth of a period, then stands in for it.

    *Episodes.* The tick that sees ``done`` records the final observation with rung HOLD and
    reason EPISODE, and resets the plant once, with ``episode_seed``. Then it looks again. A
    plant whose next episode is there at once is in lockstep, and is sent nothing on this tick:
    a command would be a step of an episode that no policy saw. Any other plant gets the safe
    command, on this tick and on all that follow until an episode with a higher number begins.
    No reset follows the last episode of a run, a latched stop or an operator's: on a robot it
    may be a movement.

    *People.* A person who has taken over, see ``controller.teleop``, is asked before the policy,
    which is left alone meanwhile and begins anew afterwards. The latched stop, the end of an
    episode, a lost plant and a stale observation come before the person.

    *End.* After ``ticks`` periods, after ``episodes`` complete episodes, one tick after
    ``stop``, or ``linger_s`` after the stop latched, the safe command is sent once more (unless
    a lockstep plant's episode is over) and mode STOPPED is logged. With ``fallback.hold`` other
    than safe a plant in real time is led to it within the safety limits, for up to
    ``fallback.ramp_s`` and ``linger_s``. The sink stays open.

    Args:
        plant: what to control.
        policy: whom to ask.
        sink: takes a record per tick, and events.
        clock: time.
        config: settings.
        seed: seed of the run, for episodes and policy noise.
        local: replica of the policy in this process, asked when ``policy`` gave no answer.
        status: board to show progress on.
        teleop: people who may take over.

    Attributes:
        period_ns: period of the loop.
        outcome: why the last run ended.

    Raises:
        ConfigError: a limit, the safe command or the workspace does not fit the plant.
    """

    def __init__(
        self,
        plant: Plant,
        policy: Policy,
        sink: Sink,
        clock: Clock,
        config: LoopConfig,
        *,
        seed: int,
        local: Policy | None = None,
        status: StatusBoard | None = None,
        teleop: TeleopSource | None = None,
    ) -> None:
        spec = plant.spec
        self._spec, self._clock, self._config = spec, clock, config
        self.period_ns = config.period_ns(spec.rate_hz)
        self._filter = SafetyFilter(spec, config.safety, period_ns=self.period_ns)
        self._ledger = Ledger(sink, clock, self.period_ns, status)
        self._patience = _patience(config, self.period_ns, spec.period_ns)
        notices = Notices(sink, clock)
        self._episodes = Episodes(plant, clock, seed, notices)
        self._ladder = Ladder(
            policy,
            local,
            spec,
            clock,
            seed=seed,
            patience=self._patience,
            safe=self._filter.safe,
            notify=notices,
            chunks=config.chunks,
            fallback=config.fallback,
            previous=lambda: self._filter.previous,
        )
        self._seat = self._seat_for(teleop) if teleop else None
        self._stop_reason: str | None = None
        self.outcome = Outcome.ERROR
        self._tick_limit: int | None = None
        self._episode_limit: int | None = None
        self._next_index, self._fault_index = 0, -1

    def _seat_for(self, teleop: TeleopSource) -> Seat:
        about, easing = self._config.teleop, None
        if about.blend_s:
            ticks = round(about.blend_s * 1e9 / self.period_ns)
            easing = Holding(self._filter.safe, "ramp", ticks, lambda: self._filter.previous)
        return Seat(teleop, self._clock, about.timeout_s, self._ledger.event, easing)

    @property
    def fault(self) -> str:
        """One line on the latched stop; empty without one."""
        return self._ledger.fault

    def run(self, ticks: int | None = None, episodes: int | None = None) -> Outcome:
        """Run once; without limits, until ``stop`` or a latched stop.

        Args:
            ticks: number of periods, the skipped ones included.
            episodes: number of complete episodes.

        Raises:
            PlantLost: the plant was silent for too long. The safe command was sent.
            PlantFailed: the plant cannot go on; the message is its own.
        """
        self._tick_limit, self._episode_limit = ticks, episodes
        try:
            # Invariant: the command sent is a filtered action or the declared safe command,
            # and it was sent on time.
            for tick in self._ticks():
                observation = self._observe()
                decision = self._decide(tick, observation)
                self._act(tick, observation, decision)
        finally:
            self._finish()
        return self._verdict()

    def stop(self, reason: str) -> None:
        """Ask for the end of the run; safe to call from a signal handler or another thread."""
        self._stop_reason = reason

    def _ticks(self) -> Iterator[Tick]:
        if not self._begin():
            return
        limit = math.inf if self._tick_limit is None else self._tick_limit
        for tick in Ticker(self._clock, self.period_ns, self._start_ns()):
            if tick.index >= limit:
                self.outcome = Outcome.TICKS
                return
            self._next_index = tick.index + 1
            yield tick
            if self._is_over():
                return

    def _is_over(self) -> bool:
        if self._ledger.mode is Mode.STOPPED:
            self.outcome = Outcome.OPERATOR
        elif self._episodes_complete():
            self.outcome = Outcome.EPISODES
        elif self._ledger.mode is Mode.FAULT and self._lingered():
            self.outcome = Outcome.FAULT
        elif self._tick_limit is not None and self._next_index >= self._tick_limit:
            self.outcome = Outcome.FAULT if self._ledger.mode is Mode.FAULT else Outcome.TICKS
        else:
            return False
        return True

    def _episodes_complete(self) -> bool:
        limit = self._episode_limit
        return limit is not None and self._episodes.completed >= limit

    def _lingered(self) -> bool:
        if self._episodes.lockstep:
            return True
        if self._tick_limit is not None and not self._plant_lost():
            return False
        linger_ticks = round(self._config.linger_s * 1e9 / self.period_ns)
        return self._next_index >= self._fault_index + linger_ticks

    def _plant_lost(self) -> bool:
        latched = self._ladder.latched or Reason.NONE
        return bool(latched & (Reason.PLANT_LOST | Reason.STALE | Reason.PLANT_FAILED))

    def _begin(self) -> bool:
        """Reset the plant and wait for the episode; False when the run ends before it."""
        event = Event.EPISODE_BEGUN if self._episodes.begin() else self._wait_for_episode()
        self._advance(event)
        return event is Event.EPISODE_BEGUN

    def _wait_for_episode(self) -> Event:
        command_ns = self._clock.now_ns()
        for poll in Ticker(self._clock, max(1, self.period_ns // 10), command_ns):
            if self._episodes.begun():
                break
            if self._stop_reason is not None:
                self.outcome = Outcome.OPERATOR
                return Event.OPERATOR_STOP
            if self._episodes.waited_ns > self._config.reset_timeout_s * 1e9:
                self.outcome = Outcome.FAULT
                self._latch_overdue()
                return Event.SILENT_TOO_LONG
            if poll.wake_ns >= command_ns:
                self._episodes.send(self._filter.safe, -1)
                command_ns += self.period_ns
        return Event.EPISODE_BEGUN

    def _start_ns(self) -> int:
        now_ns, last = self._clock.now_ns(), self._episodes.last
        if self._episodes.lockstep or not self._config.align or last is None:
            return now_ns
        plant_ns = self._spec.period_ns
        age_ns = now_ns - last.stamp_ns
        credible = 0 <= age_ns <= CREDIBLE_PERIODS * plant_ns
        first_ns = now_ns - (age_ns if credible else 0) + round(self._config.phase_ms * 1e6)
        periods = max(0, -((first_ns - now_ns) // plant_ns))
        return first_ns + periods * plant_ns

    def _observe(self) -> Observation:
        observation = self._episodes.look()
        assert observation is not None, "the first tick comes after the first observation"
        self._filter.look(observation)
        self._ledger.observed_ns = self._clock.now_ns()
        return observation

    def _decide(self, tick: Tick, observation: Observation) -> Decision:
        wish = self._seat.poll() if self._seat else None
        if self._stop_reason is not None:
            decision = self._ladder.stop(tick)
        elif self._episodes.failure:
            self._blame(self._episodes.failure)
            self._ladder.latch(Reason.PLANT_FAILED)
            decision = self._ladder.hold(tick, Reason.PLANT_FAILED)
        elif self._episodes.lost:
            decision = self._ladder.hold(tick, Reason.PLANT_LOST)
        elif self._episodes.between(observation):
            if self._episodes.overdue(observation, self._config.reset_timeout_s * 1e9):
                self._latch_overdue()
            decision = self._ladder.wait(tick)
        elif self._filter.forbids(person=wish is not None):
            decision = self._ladder.hold(tick, Reason.WORKSPACE)
        else:
            # A lockstep plant waits for the command, and may stamp with simulated time.
            self._ladder.age.stamps = not self._episodes.lockstep
            if wish is None:
                decision = self._ladder.decide(tick, observation)
            else:
                decision = self._give_way(tick, observation, wish)
        if self._seat:
            decision = self._seat.bridge(tick.index, decision)
        self._ledger.decided_ns = self._clock.now_ns()
        return decision

    def _give_way(self, tick: Tick, observation: Observation, wish: Array) -> Decision:
        """Return what a person wishes, unless the stop has latched or nobody sees the robot."""
        age_ns = self._ladder.age.measure(observation, self._clock.now_ns())
        if self._ladder.latched is not None or age_ns > self._patience.max_age_ns:
            return self._ladder.hold(tick, Reason.STALE)
        self._ladder.overruled(tick)
        return Decision(wish, Rung.HUMAN)

    def _act(self, tick: Tick, observation: Observation, decision: Decision) -> None:
        executed, altered = self._filter.command(
            tick.index, decision.rung, decision.requested, decision.reasons
        )
        failed = Reason.NONE
        if not self._turn_episode(observation):
            failed = self._episodes.send(executed, tick.index)
        sent_ns = self._clock.now_ns()
        reasons = decision.reasons
        if altered or failed:
            reasons |= altered | failed
        self._advance(event_of(decision.rung, decision.reasons, asked=decision.rtt_ns >= 0))
        self._ledger.tick(tick, observation, decision, executed, reasons, sent_ns)
        if self._seat:
            self._seat.show(tick.index, self._ledger.mode, decision.rung, executed)

    def _turn_episode(self, observation: Observation) -> bool:
        """End an episode seen done for the first time; return whether to send nothing now."""
        if not self._episodes.ends(observation):
            return False
        self._ledger.episode(observation)
        if self._episodes_complete() or self._ladder.latched is not None:
            return self._episodes.lockstep
        return self._episodes.reset()

    def _latch_overdue(self) -> None:
        timeout_s = self._config.reset_timeout_s
        self._blame(f"the plant began no episode within {timeout_s:g} s of the reset")
        self._ladder.latch(Reason.EPISODE | Reason.PLANT_LOST)

    def _blame(self, fault: str) -> None:
        self._ledger.fault = self._ledger.fault or fault

    def _advance(self, event: Event) -> None:
        detail = self._stop_reason or "" if event is Event.OPERATOR_STOP else ""
        before = self._ledger.mode
        if before is not Mode.FAULT and next_mode(before, event) is Mode.FAULT:
            self._fault_index = self._next_index
            self._blame(self._describe_fault())
            detail = self.fault
        self._ledger.advance(event, detail)

    def _describe_fault(self) -> str:
        reasons = self._ladder.latched or Reason.NONE
        names = ", ".join(str(reason.name).lower().replace("_", " ") for reason in reasons)
        silent_s = self._config.stop_after_s
        return f"stop latched at tick {self._next_index - 1} after {silent_s:g} s: {names}"

    def _finish(self) -> None:
        last = self._episodes.last
        try:
            if not (self._episodes.lockstep and last is not None and last.done):
                self._come_to_rest()
        finally:
            self._ledger.advance(Event.RUN_COMPLETE, self.outcome.value)
            self._ledger.close()

    def _come_to_rest(self) -> None:
        """Send the safe command, and where holds are ramped what leads to it."""
        fallback, begin_ns = self._config.fallback, self._clock.now_ns()
        limit_ns = begin_ns + round((fallback.ramp_s + self._config.linger_s) * 1e9)
        at_once = fallback.hold == "safe" or self._episodes.lockstep
        for tick in Ticker(self._clock, self.period_ns, begin_ns):
            here = replace(tick, index=self._next_index + tick.index)
            stop = None if at_once or tick.deadline_ns >= limit_ns else self._ladder.stop(here)
            if stop is None or not stop.eased:
                self._episodes.send(self._filter.hold(), here.index)
                return
            executed, _ = self._filter.command(here.index, stop.rung, stop.requested, stop.reasons)
            self._episodes.send(executed, here.index)

    def _verdict(self) -> Outcome:
        if (self._ladder.latched or Reason.NONE) & Reason.PLANT_FAILED or self._episodes.failure:
            raise PlantFailed(self.fault or self._episodes.failure)
        if self._plant_lost():
            raise PlantLost(f"{self.fault}; the safe command was sent")
        return self.outcome


def _patience(config: LoopConfig, period_ns: int, plant_ns: int) -> Patience:
    max_age_ns = 5 * max(period_ns, plant_ns)
    if config.max_age_s is not None:
        max_age_ns = round(config.max_age_s * 1e9)
    return Patience(
        period_ns=period_ns,
        answer_ns=round(config.answer_fraction * period_ns),
        max_age_ns=max_age_ns,
        stop_after_ns=round(config.stop_after_s * 1e9),
    )
