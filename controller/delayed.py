"""A policy whose answers take longer, for the study of latency and for replays under another."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from controller.answers import described, reason_of
from controller.interfaces import AheadPolicy, Clock, Policy
from controller.types import ActionChunk, Rejected, Request
from controller.wrapped import WrappedPolicy

MAX_WAITING: Final = 256
"""Answers on their way that are kept; the ones that are due last are lost beyond."""

Delay = int | Sequence[int] | Callable[[Request], int | None]


class _Waiting(NamedTuple):
    due_ns: int
    number: int
    answer: ActionChunk | Rejected


class DelayedPolicy(WrappedPolicy):
    """Gives another policy's answers a while after they were asked for.

    An answer is there ``delay`` after the request, or when the policy has computed it if that is
    later; several requests may be on their way at once. The policy computes when it is asked:
    under a virtual clock that takes no time but the delay. Works with :meth:`infer`, which waits
    no longer than to the deadline, and with :meth:`submit` and :meth:`poll`, which never wait
    but for the computation of a policy in this process.

    Args:
        policy: computes the answers. One that can itself be asked ahead is.
        clock: time, virtual or real.
        delay: nanoseconds: the same for every request; a sequence to draw from with (``seed``,
            tick); or a function of the request, None for an answer that is lost.
        seed: of the draws.

    Attributes:
        newest_chunk: the answer to the newest tick that has arrived, also when it came late.
        late: answers that arrived after their request had been given up by :meth:`infer`.
    """

    def __init__(self, policy: Policy, clock: Clock, delay: Delay = 0, *, seed: int = 0) -> None:
        super().__init__(policy)
        self._ahead = policy if isinstance(policy, AheadPolicy) else None
        self._clock = clock
        self._delay = delay
        self._seed = seed
        self._waiting: list[_Waiting] = []
        self._due_ns: dict[int, int | None] = {}
        self._number = 0
        self._newest: ActionChunk | None = None
        self.late = 0

    @property
    def newest_chunk(self) -> ActionChunk | None:
        """The answer to the newest tick that has arrived."""
        while (answer := self._next()) is not None:
            self.late += isinstance(answer, ActionChunk)
        return self._newest

    def infer(self, request: Request) -> ActionChunk | None:
        """Ask, and wait for the answer until the deadline.

        Raises:
            Exception: whatever the policy raises, at once.
        """
        asked_ns = self._clock.now_ns()
        chunk = self._policy.infer(request)
        if chunk is None:
            return None
        delay_ns = self.delay_ns(request)
        if delay_ns is None:
            self._clock.sleep_until(request.deadline_ns)
            return None
        due_ns = max(asked_ns + delay_ns, self._clock.now_ns())
        if due_ns > request.deadline_ns:
            self._put(due_ns, _timed(chunk, due_ns - asked_ns))
            self._clock.sleep_until(request.deadline_ns)
            return None
        self._clock.sleep_until(due_ns)
        return self._arrive(_timed(chunk, self._clock.now_ns() - asked_ns))

    def submit(self, request: Request) -> bool:
        """Ask; the answer, or why there is none, is for :meth:`poll`."""
        asked_ns = self._clock.now_ns()
        delay_ns = self.delay_ns(request)
        if self._ahead is not None:
            self._remember(request.tick, None if delay_ns is None else asked_ns + delay_ns)
            return self._ahead.submit(request)
        answer = self._computed(request)
        if answer is not None and delay_ns is not None:
            due_ns = max(asked_ns + delay_ns, self._clock.now_ns())
            if isinstance(answer, ActionChunk):
                answer = _timed(answer, due_ns - asked_ns)
            self._put(due_ns, answer)
        return True

    def poll(self) -> ActionChunk | Rejected | None:
        """Return the next answer that is due by now, or None."""
        if self._ahead is not None:
            self._fetch(self._ahead)
        return self._next()

    def close(self) -> None:
        """Release the policy; answers on their way are lost."""
        self._waiting.clear()
        super().close()

    def delay_ns(self, request: Request) -> int | None:
        """Return how long the answer to ``request`` takes; None when it is lost."""
        if isinstance(self._delay, int):
            return self._delay
        if callable(self._delay):
            return self._delay(request)
        random = np.random.Generator(np.random.Philox(key=[self._seed, request.tick]))
        return int(self._delay[int(random.integers(len(self._delay)))])

    def _computed(self, request: Request) -> ActionChunk | Rejected | None:
        try:
            return self._policy.infer(request)
        except AssertionError:
            raise
        except Exception as error:  # A policy is foreign code; it fails when its answer is due.
            return Rejected(request.tick, reason_of(error), described(error))

    def _fetch(self, policy: AheadPolicy) -> None:
        while (answer := policy.poll()) is not None:
            now_ns = self._clock.now_ns()
            due_ns = self._due_ns.get(answer.tick, now_ns)
            if isinstance(answer, ActionChunk) and due_ns is not None:
                rtt_ns = answer.rtt_ns + max(0, due_ns - now_ns)
                self._put(max(due_ns, now_ns), _timed(answer, rtt_ns))
            elif isinstance(answer, Rejected):
                self._put(now_ns, answer)

    def _remember(self, tick: int, due_ns: int | None) -> None:
        self._due_ns[tick] = due_ns
        if len(self._due_ns) > MAX_WAITING:
            del self._due_ns[next(iter(self._due_ns))]

    def _put(self, due_ns: int, answer: ActionChunk | Rejected) -> None:
        heapq.heappush(self._waiting, _Waiting(due_ns, self._number, answer))
        self._number += 1
        if len(self._waiting) > MAX_WAITING:
            self._waiting.remove(max(self._waiting))
            heapq.heapify(self._waiting)

    def _next(self) -> ActionChunk | Rejected | None:
        if not self._waiting or self._waiting[0].due_ns > self._clock.now_ns():
            return None
        answer = heapq.heappop(self._waiting).answer
        return self._arrive(answer) if isinstance(answer, ActionChunk) else answer

    def _arrive(self, chunk: ActionChunk) -> ActionChunk:
        if self._newest is None or chunk.tick >= self._newest.tick:
            self._newest = chunk
        return chunk


def _timed(chunk: ActionChunk, rtt_ns: int) -> ActionChunk:
    return replace(chunk, rtt_ns=rtt_ns)
