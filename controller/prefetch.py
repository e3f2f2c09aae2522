"""Asking ahead: requests go out before their rows are needed, and no tick waits for an answer."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from controller.answers import described, fault_of, reason_of
from controller.asking import Heard
from controller.chunk_settings import ChunkSettings
from controller.chunks import Joined, Plan
from controller.delay import DelayEstimate
from controller.delayed import DelayedPolicy
from controller.interfaces import AheadPolicy, Clock, Policy
from controller.notices import Notify
from controller.pacing import Tick
from controller.spec import Spec
from controller.types import ActionChunk, Reason, Rejected, Request

FIRST_TICKS: Final = 10
"""Ticks that the first request may take, before it is known how long an answer takes."""
MAX_POLLS: Final = 16
"""Answers that one tick collects; more wait for the next."""
MAX_OPEN: Final = 64
"""Newest requests without an answer that one is still expected to."""


@dataclass(frozen=True, slots=True)
class Flight:
    """The request that is on its way."""

    tick: int
    ticks: int
    deadline_ns: int


class AskAhead:
    """Keeps the plan filled without waiting, with one request on its way at a time.

    *When.* The first request of an episode goes out at its first tick. The next goes out
    ``replan_every`` ticks after the one before, or sooner: when no more than ``lead`` rows are
    left, or when the one before failed.

    *Until when.* An answer is due when the next request would be, or when the plan runs dry, if
    that is sooner, but never sooner than the fastest answer so far took: ``deadline_ns`` of the
    request says so, and a policy that has the choice may think that long. A request without an
    answer by then is given up and another goes out, which may take twice as long where the
    one before was hurried. Should the answer to one that was given up come after all, it is used
    like any other, by the age of its rows.

    *The beginning of an episode.* Nothing waits for its first chunk: the ladder goes down, with
    reason AWAITED, until it comes. The plan of an episode never reaches into the next.

    *Rows.* A chunk is asked for to last until the next is expected: ``replan_every``, or the
    expected delay where that is longer, and the expected delay. Its rows up to there are FRESH,
    those behind are TAIL.

    *Committed rows.* With ``prefix``, the rows due before the answer is expected go out with the
    request, and are kept whatever comes. The rows sent with the request of tick k are those of
    ticks k, k + 1, ...: they can be read from the ``requested`` actions of these ticks in a log,
    blends included, as long as the plan acted at each (rung FRESH or TAIL).

    *From a log.* With the chunks recomputed so, a :class:`controller.chunks.Plan` of the same
    ``blend`` that each chunk joins at the first tick that names it gives every planned action
    again, bit for bit, provided that each chunk acted before the next one took over.

    Args:
        policy: whom to ask; one that cannot be asked ahead computes when it is asked.
        spec: the robot.
        clock: time.
        plan: to keep filled.
        settings: with ``ask`` ahead.
        period_ns: period of the loop.
        answer_ns: from the begin of a tick to when an answer must be there to be used in the
            next one.
        notify: takes (kind, detail) of whatever went wrong.

    Attributes:
        delay: ticks that answers take.
        counts: requests ``asked`` and ``given up``, and what became of answers: ``taken``,
            ``old``, ``past``, ``future``, ``unasked`` (to no open request: sent twice, or of an
            earlier episode), ``refused``.
    """

    def __init__(
        self,
        policy: Policy,
        spec: Spec,
        clock: Clock,
        plan: Plan,
        settings: ChunkSettings,
        *,
        period_ns: int,
        answer_ns: int,
        notify: Notify,
    ) -> None:
        self.plan = plan
        self.delay = DelayEstimate()
        self.counts: Counter[str] = Counter()
        self._policy: AheadPolicy = (
            policy if isinstance(policy, AheadPolicy) else DelayedPolicy(policy, clock)
        )
        self._action = spec.action
        self._settings = settings
        self._period_ns = period_ns
        self._answer_ns = answer_ns
        self._notify = notify
        self._open: deque[int] = deque(maxlen=MAX_OPEN)
        self._horizon = 0
        self._flight: Flight | None = None
        self._asked: int | None = None
        self._least = FIRST_TICKS
        self._begun = False
        self._trouble = Reason.NONE

    def clear(self, tick: int) -> None:
        """Forget the plan; no answer to a request before ``tick`` is ever used."""
        self.plan.clear(tick)
        self._open.clear()
        self._flight, self._asked = None, None
        self._begun = False
        self._trouble = Reason.NONE

    def ask(self, tick: Tick, request: Request) -> Heard:
        """Collect what arrived, and send ``request`` off if it is time to."""
        self._collect(tick.index)
        self._give_up(tick)
        index = tick.index
        if self._is_due(index) and self._submit(tick, request) and not self.plan.left(index):
            self._collect(index)
        return Heard(self._reasons(tick.index), 0, False)

    @property
    def replan_every(self) -> int:
        """Ticks from one request to the next; 0 while the length of a chunk is not known."""
        return self._settings.replan_every or (max(1, self._horizon // 2) if self._horizon else 0)

    def _is_due(self, tick: int) -> bool:
        if self._flight is not None:
            return False
        if self._asked is None or tick - self._asked >= self.replan_every:
            return True
        lead = self._settings.lead
        return self.plan.left(tick) <= (self.delay.ticks + 1 if lead is None else lead)

    def _submit(self, tick: Tick, request: Request) -> bool:
        ticks = self._patience_ticks(tick.index)
        count = min(self._settings.prefix, self.delay.ticks, max(0, self._horizon - 1))
        asked = Request(
            tick=tick.index,
            seed=request.seed,
            observation=request.observation,
            age_ns=request.age_ns,
            deadline_ns=tick.deadline_ns + (ticks - 1) * self._period_ns + self._answer_ns,
            prefix=self.plan.commit(tick.index, count),
        )
        try:
            sent = self._policy.submit(asked)
        except AssertionError:
            raise
        except Exception as error:  # A policy is foreign code, and every tick needs a command.
            self._notify("policy", described(error))
            self._trouble = reason_of(error)
            return False
        if not sent:
            self._trouble = Reason.UNREACHABLE
            return False
        self.counts["asked"] += 1
        self._open.append(tick.index)
        self._flight = Flight(tick.index, ticks, asked.deadline_ns)
        self._asked = tick.index
        return True

    def _patience_ticks(self, tick: int) -> int:
        return max(self._least, min(self.plan.left(tick), self.replan_every))

    def _collect(self, tick: int) -> None:
        for _ in range(MAX_POLLS):
            try:
                answer = self._policy.poll()
            except AssertionError:
                raise
            except Exception as error:  # As above.
                self._notify("policy", described(error))
                self._trouble = reason_of(error)
                return
            if answer is None:
                return
            if isinstance(answer, Rejected):
                self._rejected(answer)
            else:
                self._arrived(answer, tick)

    def _arrived(self, chunk: ActionChunk, tick: int) -> None:
        if chunk.tick not in self._open:
            self.counts["unasked"] += 1
            return
        self._open.remove(chunk.tick)
        in_flight = self._flight is not None and chunk.tick == self._flight.tick
        if in_flight:
            self._flight = None
        fault, reason = fault_of(chunk, chunk.tick, self._action)
        if reason:
            self._failed(reason, fault, "refused")
            return
        self.delay.add(tick - chunk.tick)
        self._least = max(1, min(self._least, tick - chunk.tick))
        self._horizon = len(chunk.actions)
        span = max(self.replan_every, self.delay.ticks) + self.delay.ticks
        joined = self.plan.join(chunk, tick, span)
        self.counts[joined.value] += 1
        if joined is Joined.TAKEN:
            self._begun, self._trouble = True, Reason.NONE
        elif joined is Joined.PAST:
            self._trouble = Reason.LATE
            self._notify(
                "policy",
                f"the answer to tick {chunk.tick} came {tick - chunk.tick} ticks later, when all "
                f"its {self._horizon} rows had passed: it needs longer chunks or a faster policy",
            )

    def _rejected(self, answer: Rejected) -> None:
        if answer.tick in self._open:
            self._open.remove(answer.tick)
        if self._flight is not None and answer.tick in (self._flight.tick, -1):
            self._hurried(answer.reason)
            self._flight = None
            self._failed(answer.reason, answer.detail, "rejected")

    def _give_up(self, tick: Tick) -> None:
        if self._flight is None or tick.deadline_ns <= self._flight.deadline_ns:
            return
        detail = f"no answer to tick {self._flight.tick} in {tick.index - self._flight.tick} ticks"
        self._hurried(Reason.LATE)
        self._flight = None
        self._failed(Reason.LATE, detail, "given up")

    def _hurried(self, reason: Reason) -> None:
        """Give the next request more time where this one had the least and was too late."""
        assert self._flight is not None
        if reason is Reason.LATE and self._flight.ticks <= self._least:
            self._least = min(2 * self._least, max(FIRST_TICKS, self.replan_every))

    def _failed(self, reason: Reason, detail: str, count: str) -> None:
        self.counts[count] += 1
        self._trouble = reason
        if self._flight is None:
            self._asked = None
        if detail:
            self._notify("policy", detail)

    def _reasons(self, tick: int) -> Reason:
        row = self.plan.row(tick)
        if row is not None and tick < row.source.until:
            return Reason.NONE
        return self._trouble or (Reason.LATE if self._begun else Reason.AWAITED)
