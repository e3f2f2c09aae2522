"""A new version on trial: it answers a share of the requests, and is compared with the old one."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import replace
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.interfaces import BatchPolicy, Clock
from controller.spec import ArraySpec
from controller.types import ActionChunk, Array, Request
from policies.serving.trials import NoAnswer, checked_actions

WINDOW_NS = 1_000_000_000
"""A client keeps its version this long: a robot must not be handed to and fro at each tick."""
LEAST_PAIRS = 16
"""Comparisons before the times are judged."""
NEWEST_PAIRS = 512
REST = 9
"""Comparing takes one part in ten of the server's time at most, and only while nothing waits."""
MAX_PAIRS_WAITING = 4

_Positive = Annotated[float, msgspec.Meta(gt=0)]


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """On what terms a new version is tried.

    Attributes:
        bundle: the new version.
        share: part of the requests that it answers.
        seconds: length of the trial.
        requests: answers after which the trial ends earlier; 0 for no such end.
        failures: answers it may owe, where the old version has one.
        slower: how many times the old version's median time it may take.
        distance: mean distance of its actions from the old version's that it may have, as a
            share of the action's range; 0 for any.
        then: what a trial that was passed leads to: ``wait`` for a word, or ``promote``.
    """

    bundle: str
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    seconds: _Positive = 60.0
    requests: Annotated[int, msgspec.Meta(ge=0)] = 0
    failures: Annotated[int, msgspec.Meta(ge=0)] = 0
    slower: _Positive = 2.0
    distance: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    then: Literal["wait", "promote"] = "wait"


class Canary:
    """The trial of one version.

    Args:
        policy: the new version.
        terms: of the trial.
        action: the action, for the scale of distances.
        clock: time.

    Attributes:
        policy: the new version.
        terms: of the trial.
        fault: why it failed; empty where it has not.
        answered: requests that it answered.
        failures: answers that it owed.
    """

    def __init__(self, policy: BatchPolicy, terms: Terms, action: ArraySpec, clock: Clock) -> None:
        self.policy, self.terms = policy, terms
        self.fault = ""
        self.answered = self.failures = 0
        self._clock, self._began_ns = clock, clock.now_ns()
        self._limit = round(terms.share * 2**32)
        self._range = _range(action)
        self._waiting: deque[Request] = deque(maxlen=MAX_PAIRS_WAITING)
        self._rest_until_ns = 0
        self._pairs = 0
        self._new_ns: deque[int] = deque(maxlen=NEWEST_PAIRS)
        self._old_ns: deque[int] = deque(maxlen=NEWEST_PAIRS)
        self._sum = self._most = 0.0

    def takes(self, client: bytes, now_ns: int) -> bool:
        """Return whether it answers this client in this second."""
        window = (now_ns // WINDOW_NS).to_bytes(8, "little", signed=True)
        # Routing identities are numbered one after the other: a checksum of neighbours is alike.
        digest = blake2b(client + window, digest_size=4).digest()
        return int.from_bytes(digest, "little") < self._limit

    def offer(self, request: Request) -> None:
        """Take a request that was answered to compare both versions on, when it is time to."""
        if self._clock.now_ns() >= self._rest_until_ns:
            self._waiting.append(request)

    @property
    def curious(self) -> bool:
        """Whether a request waits to be compared on."""
        return bool(self._waiting)

    def compare(self, old: BatchPolicy) -> None:
        """Ask both versions about one request, under the same noise and with the same time."""
        request = self._waiting.popleft()
        self._waiting.clear()
        began_ns = self._clock.now_ns()
        # Who goes first finds the caches cold, so they take turns.
        if self._pairs % 2:
            new, theirs = self._timed(self.policy, request), self._timed(old, request)
        else:
            theirs, new = self._timed(old, request), self._timed(self.policy, request)
        self._rest_until_ns = self._clock.now_ns() + REST * (self._clock.now_ns() - began_ns)
        if isinstance(new, Exception):
            if not isinstance(theirs, Exception):
                self.fail(str(new))
        elif not isinstance(theirs, Exception):
            self._note(new, theirs)

    def fail(self, reason: str) -> None:
        """Take note of an answer that it owes."""
        self.failures += 1
        if self.failures > self.terms.failures:
            self.fault = self.fault or f"{self.failures} failed answers, the last: {reason}"

    @property
    def verdict(self) -> str:
        """``failed``, ``passed`` or, before the end, ``running``."""
        if self.fault:
            return "failed"
        terms, now_ns = self.terms, self._clock.now_ns()
        enough = terms.requests and self.answered >= terms.requests
        return "passed" if enough or now_ns - self._began_ns >= terms.seconds * 1e9 else "running"

    def facts(self) -> dict[str, Any]:
        """Return what is known so far.

        Distances are between actions of the two versions for the same request, largest element,
        as a share of the action's range where it has one.
        """
        return {
            "version": self.policy.version[:200],
            "bundle": self.terms.bundle,
            "share": self.terms.share,
            "verdict": self.verdict,
            "fault": self.fault,
            "answered": self.answered,
            "failures": self.failures,
            "pairs": self._pairs,
            "mean_distance": self._sum / self._pairs if self._pairs else 0.0,
            "max_distance": self._most,
            "latency_ratio": self._ratio(),
        }

    def _timed(self, policy: BatchPolicy, request: Request) -> tuple[Array, int] | Exception:
        began_ns = self._clock.now_ns()
        budget_ns = request.deadline_ns - request.observation.stamp_ns - request.age_ns
        asked = replace(request, deadline_ns=began_ns + budget_ns)
        try:
            chunk: ActionChunk | None = policy.infer(asked)
            took_ns = self._clock.now_ns() - began_ns
            if chunk is None:
                raise NoAnswer("late", "no answer in time")
            return checked_actions(chunk, request.tick, policy.spec), took_ns
        except Exception as error:
            return error

    def _note(self, new: tuple[Array, int], old: tuple[Array, int]) -> None:
        rows = min(len(new[0]), len(old[0]))
        apart = np.abs(new[0][:rows].astype(np.float64) - old[0][:rows].astype(np.float64))
        distance = float((apart / self._range).max(initial=0.0))
        self._pairs += 1
        self._sum += distance
        self._most = max(self._most, distance)
        self._new_ns.append(new[1])
        self._old_ns.append(old[1])
        self._judge()

    def _judge(self) -> None:
        terms = self.terms
        if self.fault or self._pairs < LEAST_PAIRS:
            return
        if self._ratio() > terms.slower:
            self.fault = f"takes {self._ratio():.2f} times as long, at most {terms.slower:g}"
        elif terms.distance and self._sum / self._pairs > terms.distance:
            self.fault = (
                f"actions are {self._sum / self._pairs:.3g} of the range away, "
                f"at most {terms.distance:g}"
            )

    def _ratio(self) -> float:
        if not self._pairs:
            return 1.0
        return statistics.median(self._new_ns) / max(1.0, statistics.median(self._old_ns))


def _range(action: ArraySpec) -> NDArray[np.float64]:
    low, high = action.bounds()
    width = high - low
    return np.where(np.isfinite(width) & (width > 0), width, 1.0)
