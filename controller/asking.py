"""Asking a policy at every tick, about the observation of the tick, and waiting for the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from controller.answers import ask, fault_of
from controller.chunks import Plan
from controller.interfaces import Clock, Policy
from controller.notices import Notify
from controller.pacing import Tick
from controller.spec import Spec
from controller.types import ActionChunk, Observation, Reason, Request

TooOld = Callable[[Observation, int], bool]
"""Whether an observation is too old to act on at a time in nanoseconds."""


class Heard(NamedTuple):
    """What came of asking at a tick.

    Attributes:
        reasons: why the plan's row for the tick is not simply the one that was intended.
        rtt_ns: how long the tick waited; 0 where it does not wait.
        waits: whether the tick waited for the row it uses.
    """

    reasons: Reason
    rtt_ns: int
    waits: bool


class Asking(Protocol):
    """A way to keep the plan filled."""

    @property
    def plan(self) -> Plan:
        """What to command."""
        ...

    def clear(self, tick: int) -> None:
        """Forget the plan; no answer to a request before ``tick`` is ever used."""
        ...

    def ask(self, tick: Tick, request: Request) -> Heard:
        """Bring the plan up to date for ``tick``; ``request`` is what can be asked at it."""
        ...


class AskEachTick:
    """Asks for every tick's own observation, and waits for the answer until its deadline.

    Where the policy has it, ``newest_chunk`` is the newest answer that arrived, late ones
    included: the tail of a late answer is as good as that of a timely one, as its rows belong
    to ticks.

    Args:
        policy: whom to ask.
        spec: the robot.
        clock: time.
        plan: to keep filled.
        too_old: an answer to an observation that became too old meanwhile is not used.
        notify: takes (kind, detail) of whatever went wrong.
    """

    def __init__(
        self,
        policy: Policy,
        spec: Spec,
        clock: Clock,
        plan: Plan,
        too_old: TooOld,
        notify: Notify,
    ) -> None:
        self.plan = plan
        self._policy = policy
        self._action = spec.action
        self._clock = clock
        self._too_old = too_old
        self._notify = notify
        self._seen: ActionChunk | None = None

    def clear(self, tick: int) -> None:
        """Forget the plan; no answer to a request before ``tick`` is ever used."""
        self.plan.clear(tick)

    def ask(self, tick: Tick, request: Request) -> Heard:
        """Wait for the answer to ``request``, which the plan then begins with."""
        asked_ns = self._clock.now_ns()
        chunk, reasons = ask(self._policy, request, self._action, "policy", self._notify)
        now_ns = self._clock.now_ns()
        if chunk is not None and self._too_old(request.observation, now_ns):
            chunk, reasons = None, Reason.LATE
        if chunk is not None:
            self.plan.join(chunk, tick.index)
        else:
            self._join_late(tick.index)
        return Heard(reasons, now_ns - asked_ns, True)

    def _join_late(self, tick: int) -> None:
        late: ActionChunk | None = getattr(self._policy, "newest_chunk", None)
        if late is None or late is self._seen:
            return
        self._seen = late
        if not fault_of(late, late.tick, self._action)[1]:
            self.plan.join(late, tick, span=0)
