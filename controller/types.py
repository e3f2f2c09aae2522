"""The records that cross the loop. Time is integer nanoseconds of a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from controller.spec import Array as Array


class Rung(IntEnum):
    """Where a command came from, best first."""

    FRESH = 0
    """What the plan intends: the answer to this tick's observation, or, where the loop asks
    ahead, a row of a chunk within the span that it was asked for."""
    TAIL = 1
    """A later row of the newest chunk that arrived, for want of a newer one."""
    LOCAL = 2
    """The replica of the policy in the control process."""
    HOLD = 3
    """The declared safe command."""
    STOP = 4
    """The declared safe command, latched: no policy acts until a restart."""
    HUMAN = 5
    """A person's command, who has taken over."""

    @property
    def acts(self) -> bool:
        """Whether a policy or a person chose the command."""
        return self <= Rung.LOCAL or self is Rung.HUMAN


class Reason(IntFlag):
    """Why the executed command is not simply the policy's answer."""

    NONE = 0
    LIMIT = 1
    """The action left its limits and was clipped."""
    SLEW = 2
    """The action changed faster than allowed and was slowed."""
    NONFINITE = 4
    """The action, or the observation, was not finite."""
    STALE = 8
    """The observation was older than allowed."""
    LATE = 16
    """No answer came in time."""
    UNREACHABLE = 32
    """There is no session with the policy server."""
    REFUSED = 64
    """The policy answered with a reason instead of an action."""
    EPISODE = 128
    """The episode is over and the next has not begun."""
    PLANT_LOST = 256
    """The plant stopped sending observations."""
    OPERATOR = 512
    """Somebody asked for the stop."""
    PLANT_FAILED = 1024
    """The plant cannot go on, and said why."""
    ACCELERATION = 2048
    """The rate of change of the action changed faster than allowed."""
    WORKSPACE = 4096
    """The robot is at the edge of its workspace, and the action led out of it."""
    BLENDED = 8192
    """The action is on the way from what acted before to what was asked for."""
    AWAITED = 16384
    """The first chunk of actions was asked for and is not due yet."""
    EXPLORED = 32768
    """The action was drawn to explore, in the policy's stead."""


class Mode(IntEnum):
    """State of the loop; see ``controller.modes.TRANSITIONS``."""

    INIT = 0
    HOLD = 1
    RUN = 2
    FAULT = 3
    STOPPED = 4


@dataclass(frozen=True, slots=True)
class Observation:
    """What the plant reported at one control step.

    Attributes:
        arrays: one array per ``Spec.observation`` entry, in that order, read-only.
        stamp_ns: when the plant sampled it, on the plant's clock.
        episode: episode number, from 0.
        step: control steps since the reset; 0 for the observation of the reset.
        reward: reward of the plant step that led here.
        episode_return: sum of rewards since the reset.
        terminated: the task ended here; the state has no successor.
        truncated: the episode was cut here by time; the state has a successor.
        success: the task's own success flag, sticky within an episode.
        applied_tick: tick of the newest command that the last plant step applied; -1 before any.
        late_ns: how much too late the plant had this step ready, 0 when in time; the largest
            such time since the observation that was looked at before this one.
        late_steps: steps that were late since the plant was started.
    """

    arrays: tuple[Array, ...]
    stamp_ns: int
    episode: int = 0
    step: int = 0
    reward: float = 0.0
    episode_return: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    applied_tick: int = -1
    late_ns: int = 0
    late_steps: int = 0

    @property
    def done(self) -> bool:
        """Whether the episode is over and a reset is due."""
        return self.terminated or self.truncated


@dataclass(frozen=True, slots=True)
class VectorStep:
    """What one step of N copies of a plant gave. Arrays belong to the caller.

    Attributes:
        observations: (N, D) what to act on next, the arrays of each observation end to end in
            spec order; where an episode ended, the first of the next one.
        next_observations: (N, D) the successors of the states acted on, also where an episode
            ended.
        rewards: (N,).
        terminated: (N,) bool; the successor is terminal.
        truncated: (N,) bool; the episode was cut by time. Never true where ``terminated`` is.
        success: (N,) bool; the task's own success flag, sticky within an episode.
        episode_returns: (N,) sum of rewards of the episode stepped, this reward included.
        episode_steps: (N,) int; control steps of it, this one included.
    """

    observations: NDArray[np.float64]
    next_observations: NDArray[np.float64]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    success: NDArray[np.bool_]
    episode_returns: NDArray[np.float64]
    episode_steps: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a policy.

    Attributes:
        tick: number of the control tick that asks; echoed by the answer.
        seed: seed of the run. The policy draws its noise from (seed, tick), so that any
            logged action can be recomputed.
        observation: what to act on.
        age_ns: age of the observation when the request was made.
        deadline_ns: time on the caller's clock after which the answer is of no use.
        prefix: (P, *action shape) what will be commanded at ticks ``tick`` to ``tick + P - 1``
            whatever the answer is; the answer begins with these rows and goes on from them.
            None, or 0 rows, leaves the answer free.
        steps: network evaluations to spend; 0 leaves the choice to the policy, which may go by
            the time left. For recomputing a logged action.
        candidates: actions to draw; 0 likewise.
    """

    tick: int
    seed: int
    observation: Observation
    age_ns: int
    deadline_ns: int
    prefix: Array | None = None
    steps: int = 0
    candidates: int = 0


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """A policy's answer: one action per control period from ``tick`` on.

    Attributes:
        tick: the request's tick; row i is meant for tick + i.
        actions: (horizon, ...) action rows, in the dtype of ``Spec.action``, in plant units.
        version: version of the policy that answered.
        evaluations: network evaluations spent.
        queue_ns: time the request waited at the server.
        infer_ns: time the policy computed.
        candidates: actions drawn, of which one was taken.
        batch: requests that were answered in one computation. A row of a batch may differ from
            the same request answered alone by rounding.
        rtt_ns: from the request to its answer, as the asking side measured it; -1 unknown.
        prefix: rows of the request's prefix, with which ``actions`` begins.
        explored: ticks whose rows were drawn to explore, in the policy's stead.
    """

    tick: int
    actions: Array
    version: str
    evaluations: int = 1
    queue_ns: int = 0
    infer_ns: int = 0
    candidates: int = 1
    batch: int = 1
    rtt_ns: int = -1
    prefix: int = 0
    explored: tuple[int, ...] = ()

    def at(self, tick: int) -> Array | None:
        """Return the action meant for ``tick``, or None outside the chunk."""
        index = tick - self.tick
        return self.actions[index] if 0 <= index < len(self.actions) else None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request that gets no answer.

    Attributes:
        tick: the request's tick.
        reason: ``LATE``, ``UNREACHABLE`` or ``REFUSED``.
        detail: one line for people; empty where nothing is wrong but the time.
    """

    tick: int
    reason: Reason
    detail: str = ""


@dataclass(slots=True)
class TickRecord:
    """Everything the log keeps of one tick. Durations are nanoseconds, -1 when absent.

    Attributes:
        tick: tick number; numbers of skipped periods are missing.
        deadline_ns: scheduled start of the tick on the loop's clock.
        sent_ns: when the command had been handed to the plant.
        mode: state of the loop.
        rung: where the command came from.
        reasons: reasons of the safety filter and of the rung, bit set of ``Reason``.
        observation: what the loop acted on.
        requested: the action before the safety filter.
        executed: the command that was sent.
        version: version of the policy behind ``requested``; empty on hold and stop.
        answer_tick: tick of the request behind ``requested``; -1 on hold and stop.
        evaluations: network evaluations behind ``requested``.
        wake_ns: lateness of the wake-up after the deadline.
        observe_ns: reading the plant.
        transport_ns: request to answer, less queue and inference.
        queue_ns: waiting at the server.
        infer_ns: computing the answer.
        act_ns: filtering and sending the command.
        total_ns: deadline to command sent.
        candidates: actions drawn for ``requested``; 0 where ``evaluations`` is.
        batch: requests answered together with that behind ``requested``; 0 likewise.
        rtt_ns: from the request behind ``requested`` to its answer, which with chunks lies in
            earlier ticks.
        prefix: rows of the prefix of the request behind ``requested``.
    """

    tick: int
    deadline_ns: int
    sent_ns: int
    mode: Mode
    rung: Rung
    reasons: int
    observation: Observation
    requested: Array
    executed: Array
    version: str = ""
    answer_tick: int = -1
    evaluations: int = 0
    wake_ns: int = -1
    observe_ns: int = -1
    transport_ns: int = -1
    queue_ns: int = -1
    infer_ns: int = -1
    act_ns: int = -1
    total_ns: int = -1
    candidates: int = 0
    batch: int = 0
    rtt_ns: int = -1
    prefix: int = 0
