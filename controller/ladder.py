"""The fallback ladder: what to command at a tick, whatever the policy and the plant do.

FRESH, TAIL, LOCAL, HOLD, STOP: each rung is tried only when the ones above gave nothing. Nothing
a policy does gets past it as an exception, except ``AssertionError``, which is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.answers import ask
from controller.asking import AskEachTick, Asking, Heard
from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.chunks import Plan, Row, faded_elements
from controller.holding import Holding
from controller.interfaces import Clock, Policy
from controller.notices import Notices, Notify
from controller.observation_age import ObservationAge
from controller.pacing import Tick
from controller.prefetch import AskAhead
from controller.safety import is_finite
from controller.spec import Spec
from controller.types import ActionChunk, Array, Observation, Reason, Request, Rung

__all__ = ["Decision", "Ladder", "Notices", "Notify", "Patience"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the ladder waits for what, in nanoseconds.

    Attributes:
        period_ns: period of the loop.
        answer_ns: from a tick's deadline to the end of the wait for an answer.
        max_age_ns: age beyond which an observation is not acted on.
        stop_after_ns: time on HOLD, without an action between, after which STOP latches.
    """

    period_ns: int
    answer_ns: int
    max_age_ns: int
    stop_after_ns: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What the ladder wants done at one tick. Durations are nanoseconds, -1 when absent.

    Attributes:
        requested: the action before the safety filter; the safe command on HOLD and STOP.
        rung: where it came from.
        reasons: why it is not simply the fresh answer.
        version: version of the policy behind it; empty on HOLD and STOP.
        answer_tick: tick of the request behind it; -1 on HOLD and STOP.
        evaluations: network evaluations behind it.
        candidates: actions drawn for it; 0 on HOLD and STOP.
        batch: requests answered together with it; 0 on HOLD and STOP.
        answer_rtt_ns: from its request to its answer; -1 on HOLD and STOP.
        prefix: rows of the prefix of its request.
        queue_ns: waiting at the server; only on FRESH, where the tick waited for the answer.
        infer_ns: computing the answer; likewise.
        rtt_ns: from the request to the answer, or to the end of the wait for it; 0 where the
            policy is asked ahead.
    """

    requested: Array
    rung: Rung
    reasons: Reason = Reason.NONE
    version: str = ""
    answer_tick: int = -1
    evaluations: int = 0
    candidates: int = 0
    batch: int = 0
    answer_rtt_ns: int = -1
    prefix: int = 0
    queue_ns: int = -1
    infer_ns: int = -1
    rtt_ns: int = -1

    @property
    def eased(self) -> bool:
        """Whether ``requested`` is on the way to the safe command, within the safety limits.

        A HOLD or STOP without reason BLENDED commands the safe command itself, at once.
        """
        return not self.rung.acts and bool(self.reasons & Reason.BLENDED)


class Ladder:
    """Decides each tick of one run.

    Args:
        policy: whom to ask. Where it has them, ``ready`` tells whether there is a session, and
            ``newest_chunk`` is the newest answer that arrived, late ones included.
        local: replica of the policy in this process, or None.
        spec: the robot.
        clock: time.
        seed: seed of the run, sent with each request.
        patience: how long to wait for what.
        safe: the declared safe command.
        notify: takes (kind, detail) of whatever went wrong.
        chunks: when to ask for chunks of actions, and how one follows another.
        fallback: how long each rung may act.
        previous: gives the command that was sent last; None for the safe one, whatever was sent.

    Attributes:
        age: how old observations are.
        latched: reasons of the latched stop, or None while there is none.
        asking: keeps the plan filled.

    Raises:
        ConfigError: ``chunks`` names an element that the action does not have.
    """

    def __init__(
        self,
        policy: Policy,
        local: Policy | None,
        spec: Spec,
        clock: Clock,
        *,
        seed: int,
        patience: Patience,
        safe: Array,
        notify: Notify,
        chunks: ChunkSettings | None = None,
        fallback: FallbackSettings | None = None,
        previous: Callable[[], Array] | None = None,
    ) -> None:
        fallback = fallback or FallbackSettings()
        self._local = local
        self._action = spec.action
        self._clock = clock
        self._seed = seed
        self._patience = patience
        self._safe = safe
        self._notify = notify
        self._local_ticks = fallback.local_ticks
        self._holding = Holding(
            safe,
            fallback.hold,
            round(fallback.ramp_s * 1e9 / patience.period_ns),
            previous or (lambda: safe),
        )
        self.age = ObservationAge()
        self.latched: Reason | None = None
        self.asking = self._asking_of(policy, spec, chunks or ChunkSettings(), fallback)
        self._episode = -1
        self._held_ns = 0
        self._last_index = -1
        self._local_since: int | None = None

    def decide(self, tick: Tick, observation: Observation) -> Decision:
        """Return what to command for ``observation``; takes no longer than the policy does."""
        if self.latched is not None:
            return self._stopped(tick.index, self.latched)
        now_ns = self._clock.now_ns()
        age_ns = self.age.measure(observation, now_ns)
        if age_ns > self._patience.max_age_ns:
            return self.hold(tick, Reason.STALE)
        for array in observation.arrays:
            if not is_finite(array):
                self._notify("observation", "the observation is not finite")
                return self.hold(tick, Reason.NONFINITE)
        if observation.episode != self._episode:
            # A plan was meant for the episode it was computed in.
            self._episode = observation.episode
            self.asking.clear(tick.index)
        deadline_ns = tick.deadline_ns + self._patience.answer_ns
        return self._climb_down(
            tick, Request(tick.index, self._seed, observation, age_ns, deadline_ns)
        )

    def overruled(self, tick: Tick) -> None:
        """Take note that somebody else commands this tick, so that the plan is void.

        The tick is no silence, and the next one that is decided asks anew.
        """
        self._acts(tick.index)
        self._local_since = None
        self.asking.clear(tick.index + 1)

    def wait(self, tick: Tick) -> Decision:
        """Return the safe command between two episodes, which is no silence."""
        self._last_index = tick.index
        if self.latched is not None:
            return self._stopped(tick.index, self.latched)
        self._holding.release()
        return Decision(self._safe, Rung.HOLD, Reason.EPISODE)

    def hold(self, tick: Tick, reasons: Reason, rtt_ns: int = -1) -> Decision:
        """Return what to command for want of anything better; latches STOP in the end."""
        self._held_ns += (tick.index - self._last_index) * self._patience.period_ns
        self._last_index = tick.index
        if self.latched is None and self._held_ns >= self._patience.stop_after_ns:
            self.latch(reasons)
        if self.latched is not None:
            return self._stopped(tick.index, self.latched)
        command, eased = self._holding.command(tick.index)
        return Decision(command, Rung.HOLD, _eased(reasons, eased), rtt_ns=rtt_ns)

    def stop(self, tick: Tick | None = None) -> Decision:
        """Return the safe command, latched, because somebody asked for it.

        With ``tick``, what leads to it where holds are ramped.
        """
        self.latch(Reason.OPERATOR)
        if tick is not None:
            return self._stopped(tick.index, Reason.OPERATOR)
        return Decision(self._safe, Rung.STOP, Reason.OPERATOR)

    def latch(self, reasons: Reason) -> None:
        """Let no policy act any more, because of ``reasons``; the first ones are kept."""
        if self.latched is None:
            self.latched = reasons

    def _asking_of(
        self, policy: Policy, spec: Spec, chunks: ChunkSettings, fallback: FallbackSettings
    ) -> Asking:
        plan = Plan(
            chunks.blend,
            faded_elements(spec.action, chunks.blend_exclude) if chunks.blend_exclude else None,
            fallback.tail_ticks,
        )
        if chunks.ask == "each_tick":
            return AskEachTick(policy, spec, self._clock, plan, self._is_too_old, self._notify)
        return AskAhead(
            policy,
            spec,
            self._clock,
            plan,
            chunks,
            period_ns=self._patience.period_ns,
            answer_ns=self._patience.answer_ns,
            notify=self._notify,
        )

    def _is_too_old(self, observation: Observation, now_ns: int) -> bool:
        return self.age.measure(observation, now_ns) > self._patience.max_age_ns

    def _stopped(self, tick: int, reasons: Reason) -> Decision:
        command, eased = self._holding.command(tick, latched=True)
        return Decision(command, Rung.STOP, _eased(reasons, eased))

    def _climb_down(self, tick: Tick, request: Request) -> Decision:
        heard = self.asking.ask(tick, request)
        row = self.asking.plan.row(tick.index)
        if row is not None:
            return self._planned(tick.index, row, heard)
        reasons = heard.reasons
        if self._local and self._may_act_locally(tick.index):
            chunk, fault = ask(self._local, request, self._action, "local", self._notify)
            if chunk:
                return self._locally(tick.index, chunk, reasons, heard)
            reasons |= fault
        return self.hold(tick, reasons, heard.rtt_ns)

    def _may_act_locally(self, tick: int) -> bool:
        since, limit = self._local_since, self._local_ticks
        return limit is None or (tick if since is None else since) + limit > tick

    def _acts(self, tick: int) -> None:
        self._held_ns, self._last_index = 0, tick
        self._holding.release()

    def _planned(self, tick: int, row: Row, heard: Heard) -> Decision:
        self._acts(tick)
        self._local_since = None
        chunk, fresh = row.source.chunk, tick < row.source.until
        reasons = heard.reasons | Reason.BLENDED if row.blended else heard.reasons
        if chunk.explored and tick in chunk.explored:
            reasons |= Reason.EXPLORED
        rung = Rung.FRESH if fresh else Rung.TAIL
        return _decision(row.action, chunk, rung, reasons, heard, fresh and heard.waits)

    def _locally(self, tick: int, chunk: ActionChunk, reasons: Reason, heard: Heard) -> Decision:
        self._acts(tick)
        self._local_since = tick if self._local_since is None else self._local_since
        action = chunk.at(tick)
        assert action is not None, f"chunk of tick {chunk.tick} has no row for {tick}"
        return _decision(action, chunk, Rung.LOCAL, reasons, heard, False)


def _decision(
    action: Array, chunk: ActionChunk, rung: Rung, reasons: Reason, heard: Heard, waited: bool
) -> Decision:
    # A server may report anything; the stages of a tick must still add up to its length.
    queue_ns = min(max(chunk.queue_ns, 0), heard.rtt_ns) if waited else -1
    infer_ns = min(max(chunk.infer_ns, 0), heard.rtt_ns - queue_ns) if waited else -1
    return Decision(
        requested=action.copy(),
        rung=rung,
        reasons=reasons,
        version=chunk.version,
        answer_tick=chunk.tick,
        evaluations=chunk.evaluations,
        candidates=chunk.candidates,
        batch=chunk.batch,
        answer_rtt_ns=chunk.rtt_ns,
        prefix=chunk.prefix,
        queue_ns=queue_ns,
        infer_ns=infer_ns,
        rtt_ns=heard.rtt_ns,
    )


def _eased(reasons: Reason, eased: bool) -> Reason:
    return reasons | Reason.BLENDED if eased else reasons
