"""Any policy as one that answers batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from controller.interfaces import BatchPolicy, Clock, Policy
from controller.spec import Spec
from controller.types import ActionChunk, Request

REMEMBERED = 32
"""Newest answers by which the next one's time is expected."""


class OneByOne:
    """A policy without batches as one with batches of one request.

    Args:
        policy: what answers.
        clock: measures how long it takes.
    """

    max_batch = 1

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self._took_ns: deque[int] = deque(maxlen=REMEMBERED)
        self._least_ns = 0

    @property
    def spec(self) -> Spec:
        """The robot it was made for."""
        return self._policy.spec

    @property
    def version(self) -> str:
        """Version of the policy."""
        return self._policy.version

    def infer(self, request: Request) -> ActionChunk | None:
        """Return the policy's answer."""
        began_ns = self._clock.now_ns()
        chunk = self._policy.infer(request)
        self._took_ns.append(self._clock.now_ns() - began_ns)
        self._least_ns = 0
        return chunk

    def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk | None]:
        """Return the policy's answers, one after the other."""
        return [self.infer(request) for request in requests]

    def expected_ns(self, batch: int) -> int:
        """Return the least that one of the newest answers took, times ``batch``."""
        self._least_ns = self._least_ns or min(self._took_ns, default=0)
        return batch * self._least_ns

    def close(self) -> None:
        """Release the policy; safe to call twice."""
        self._policy.close()


def batched(policy: Policy, clock: Clock) -> BatchPolicy:
    """Return ``policy`` itself where it answers batches, else one around it that does."""
    return policy if isinstance(policy, BatchPolicy) else OneByOne(policy, clock)
