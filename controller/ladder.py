"""The fallback ladder: what to command at a tick, whatever the policy and the plant do.

FRESH, TAIL, LOCAL, HOLD, STOP: each rung is tried only when the ones above gave nothing. Nothing
a policy does gets past it as an exception, except ``AssertionError``, which is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.errors import PeerTimeout, Refused
from controller.interfaces import Clock, Policy, Sink
from controller.pacing import Tick
from controller.safety import fits, is_finite
from controller.spec import Spec
from controller.types import ActionChunk, Array, Observation, Reason, Request, Rung

Notify = Callable[[str, str], None]

CREDIBLE_STAMP_NS = 10_000_000_000
"""A stamp that lies further back than this when first seen is taken to be of another clock."""


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
        queue_ns: waiting at the server; only on FRESH.
        infer_ns: computing the answer; only on FRESH.
        rtt_ns: from the request to the answer, or to the end of the wait for it.
    """

    requested: Array
    rung: Rung
    reasons: Reason = Reason.NONE
    version: str = ""
    answer_tick: int = -1
    evaluations: int = 0
    queue_ns: int = -1
    infer_ns: int = -1
    rtt_ns: int = -1


class ObservationAge:
    """How old an observation is, by the best evidence there is.

    A stamp that lies within ``CREDIBLE_STAMP_NS`` before the first sight of its observation is
    of this machine's clock, and the age counts from it. Any other is of another clock: then the
    age counts from the first sight, which still finds a plant that has fallen silent.

    Attributes:
        stamps: whether stamps may be used at all. False for a lockstep plant: it waits for the
            command, and its stamps may count simulated time.
    """

    def __init__(self) -> None:
        self.stamps = True
        self._key: tuple[int, int, int] | None = None
        self._since_ns = 0

    def measure(self, observation: Observation, now_ns: int) -> int:
        """Return the age at ``now_ns`` in nanoseconds, never negative."""
        key = (observation.episode, observation.step, observation.stamp_ns)
        if key != self._key:
            self._key = key
            lag_ns = now_ns - observation.stamp_ns
            credible = self.stamps and 0 <= lag_ns <= CREDIBLE_STAMP_NS
            self._since_ns = observation.stamp_ns if credible else now_ns
        return now_ns - self._since_ns


class Notices:
    """Events to a sink, at most one per kind and interval; the next one counts the others.

    Args:
        sink: where they go.
        clock: stamps them.
        interval_ns: shortest distance of two events of a kind.
    """

    def __init__(self, sink: Sink, clock: Clock, interval_ns: int = 1_000_000_000) -> None:
        self._sink = sink
        self._clock = clock
        self._interval_ns = interval_ns
        self._last_ns: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def __call__(self, kind: str, detail: str) -> None:
        """Hand over the event, or count it as held back."""
        now_ns = self._clock.now_ns()
        last_ns = self._last_ns.get(kind)
        if last_ns is not None and now_ns - last_ns < self._interval_ns:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return
        self._last_ns[kind] = now_ns
        missing = self._held_back.pop(kind, 0)
        self._sink.event(now_ns, kind, f"{detail} ({missing} more before)" if missing else detail)


class Ladder:
    """Decides each tick of one run.

    Args:
        policy: whom to ask. Where it has them, ``ready`` tells whether there is a session, and
            ``newest_chunk`` is the newest answer that arrived, late ones included: the tail of
            a late answer is as good as that of a timely one, as its rows belong to ticks.
        local: replica of the policy in this process, or None.
        spec: the robot.
        clock: time.
        seed: seed of the run, sent with each request.
        patience: how long to wait for what.
        safe: the declared safe command.
        notify: takes (kind, detail) of whatever went wrong.

    Attributes:
        age: how old observations are.
        latched: reasons of the latched stop, or None while there is none.
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
    ) -> None:
        self._policy = policy
        self._local = local
        self._spec = spec
        self._clock = clock
        self._seed = seed
        self._patience = patience
        self._safe = safe
        self._notify = notify
        self.age = ObservationAge()
        self.latched: Reason | None = None
        self._chunk: ActionChunk | None = None
        self._episode = -1
        self._episode_index = 0
        self._held_ns = 0
        self._last_index = -1

    def decide(self, tick: Tick, observation: Observation) -> Decision:
        """Return what to command for ``observation``; takes no longer than the policy does."""
        if self.latched is not None:
            return self._stopped(self.latched)
        now_ns = self._clock.now_ns()
        age_ns = self.age.measure(observation, now_ns)
        if age_ns > self._patience.max_age_ns:
            return self.hold(tick, Reason.STALE)
        if not all(is_finite(array) for array in observation.arrays):
            self._notify("observation", "the observation is not finite")
            return self.hold(tick, Reason.NONFINITE)
        if observation.episode != self._episode:
            # The tail of a chunk was meant for the episode it was computed in.
            self._episode, self._chunk = observation.episode, None
            self._episode_index = tick.index
        deadline_ns = tick.deadline_ns + self._patience.answer_ns
        request = Request(tick.index, self._seed, observation, age_ns, deadline_ns)
        return self._climb_down(tick, request, now_ns)

    def wait(self, tick: Tick) -> Decision:
        """Return the safe command between two episodes, which is no silence."""
        self._last_index = tick.index
        if self.latched is not None:
            return self._stopped(self.latched)
        return Decision(self._safe, Rung.HOLD, Reason.EPISODE)

    def hold(self, tick: Tick, reasons: Reason, rtt_ns: int = -1) -> Decision:
        """Return the safe command for want of anything better; latches STOP in the end."""
        self._held_ns += (tick.index - self._last_index) * self._patience.period_ns
        self._last_index = tick.index
        if self.latched is None and self._held_ns >= self._patience.stop_after_ns:
            self.latch(reasons)
        if self.latched is not None:
            return self._stopped(self.latched)
        return Decision(self._safe, Rung.HOLD, reasons, rtt_ns=rtt_ns)

    def stop(self) -> Decision:
        """Return the safe command, latched, because somebody asked for it."""
        self.latch(Reason.OPERATOR)
        return self._stopped(Reason.OPERATOR)

    def latch(self, reasons: Reason) -> None:
        """Let no policy act any more, because of ``reasons``; the first ones are kept."""
        if self.latched is None:
            self.latched = reasons

    def _stopped(self, reasons: Reason) -> Decision:
        return Decision(self._safe, Rung.STOP, reasons)

    def _climb_down(self, tick: Tick, request: Request, asked_ns: int) -> Decision:
        fresh, reasons = self._ask(self._policy, request, "policy")
        now_ns = self._clock.now_ns()
        rtt_ns = now_ns - asked_ns
        if fresh and self.age.measure(request.observation, now_ns) > self._patience.max_age_ns:
            fresh, reasons = None, Reason.LATE
        if fresh:
            self._chunk = fresh
            return self._acting(tick, Rung.FRESH, reasons, fresh, rtt_ns)
        chunk = self._newest_chunk()
        if chunk and chunk.at(tick.index) is not None:
            return self._acting(tick, Rung.TAIL, reasons, chunk, rtt_ns)
        if self._local:
            local, fault = self._ask(self._local, request, "local")
            if local:
                return self._acting(tick, Rung.LOCAL, reasons, local, rtt_ns)
            reasons |= fault
        return self.hold(tick, reasons, rtt_ns)

    def _newest_chunk(self) -> ActionChunk | None:
        """Return the newest chunk of this episode, be it one that came after its deadline."""
        late: ActionChunk | None = getattr(self._policy, "newest_chunk", None)
        since = self._chunk.tick + 1 if self._chunk else self._episode_index
        if late is not None and late.tick >= since and not self._fault_of(late, late.tick)[1]:
            self._chunk = late
        return self._chunk

    def _acting(
        self, tick: Tick, rung: Rung, reasons: Reason, chunk: ActionChunk, rtt_ns: int
    ) -> Decision:
        self._held_ns, self._last_index = 0, tick.index
        action = chunk.at(tick.index)
        assert action is not None, f"chunk of tick {chunk.tick} has no row for {tick.index}"
        # A server may report anything; the stages of a tick must still add up to its length.
        fresh = rung is Rung.FRESH
        queue_ns = min(max(chunk.queue_ns, 0), rtt_ns) if fresh else -1
        infer_ns = min(max(chunk.infer_ns, 0), rtt_ns - queue_ns) if fresh else -1
        return Decision(
            requested=action.copy(),
            rung=rung,
            reasons=reasons,
            version=chunk.version,
            answer_tick=chunk.tick,
            evaluations=chunk.evaluations,
            queue_ns=queue_ns,
            infer_ns=infer_ns,
            rtt_ns=rtt_ns,
        )

    def _ask(self, policy: Policy, request: Request, who: str) -> tuple[ActionChunk | None, Reason]:
        try:
            chunk = policy.infer(request)
        except AssertionError:
            raise
        except Exception as error:  # A policy is foreign code, and every tick needs a command.
            self._notify(who, f"{type(error).__name__}: {error}")
            return None, reason_of(error)
        if chunk is None:
            reachable = policy.version and getattr(policy, "ready", True)
            return None, Reason.LATE if reachable else Reason.UNREACHABLE
        fault, reason = self._fault_of(chunk, request.tick)
        if reason:
            self._notify(who, fault)
            return None, reason
        return chunk, Reason.NONE

    def _fault_of(self, chunk: ActionChunk, tick: int) -> tuple[str, Reason]:
        """Return what is wrong with an answer: a chunk that is no action counts as refused."""
        if chunk.tick != tick:
            return f"answer to tick {chunk.tick}, expected {tick}", Reason.LATE
        action = self._spec.action
        if not fits(chunk.actions, action):
            return (
                f"answer of shape {list(chunk.actions.shape)} {chunk.actions.dtype}, expected "
                f"[horizon, {', '.join(map(str, action.shape))}] {action.dtype}"
            ), Reason.REFUSED
        if not is_finite(chunk.actions):
            return "answer is not finite", Reason.NONFINITE
        return "", Reason.NONE


def reason_of(error: Exception) -> Reason:
    """Return the reason that stands for an exception of a policy."""
    if isinstance(error, Refused):
        return Reason.REFUSED
    if isinstance(error, (PeerTimeout, TimeoutError)):
        return Reason.LATE
    if isinstance(error, OSError):
        return Reason.UNREACHABLE
    return Reason.REFUSED
