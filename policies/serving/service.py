"""One policy by name: the version that answers, the one before it, and one on trial."""

from __future__ import annotations

import logging
from typing import Any

from controller.interfaces import BatchPolicy, Clock, Policy
from controller.types import Array
from policies.serving.canary import Canary
from policies.serving.counts import PolicyCounts
from policies.serving.one_by_one import batched
from policies.serving.swap import Post

logger = logging.getLogger(__name__)

MAX_WARM_BATCHES = 8
"""Batch sizes that a new version is warmed up at: the most frequent."""


class Lane:
    """A version in service. What waits for it finds its successor after a swap.

    Args:
        service: what it belongs to.
        policy: what answers.
    """

    def __init__(self, service: Service, policy: BatchPolicy) -> None:
        self.service, self.policy = service, policy

    @property
    def max_batch(self) -> int:
        """Most requests of one computation."""
        return self.policy.max_batch

    def expected_ns(self, batch: int) -> int:
        """Return how long the cheapest answer to ``batch`` requests is expected to take."""
        return self.policy.expected_ns(batch)

    @property
    def version(self) -> str:
        """Version that answers."""
        return self.policy.version[:200]


class Service:
    """A named policy.

    Args:
        name: what clients call it.
        policy: answers at first.
        clock: time.

    Attributes:
        spec: the robot; stays.
        lane: the version that answers.
        previous: the one before; None where there is none.
        canary: the trial that runs; None where none does.
        canary_lane: its version.
        arrays: the newest observation, to try new versions on.
        counts: what became of the requests.
        change: report on the newest change; empty before any.
        trial: facts of the newest trial that ended; empty before any.
    """

    def __init__(self, name: str, policy: Policy, clock: Clock) -> None:
        self.name, self.spec, self._clock = name, policy.spec, clock
        self.lane = Lane(self, batched(policy, clock))
        self.previous: BatchPolicy | None = None
        self.canary: Canary | None = None
        self.canary_lane: Lane | None = None
        self.arrays: tuple[Array, ...] = tuple(a.resting() for a in policy.spec.observation)
        self.counts = PolicyCounts()
        self.change: dict[str, Any] = {}
        self.trial: dict[str, Any] = {}
        self._enter()

    @property
    def version(self) -> str:
        """Version that answers, but for those on trial."""
        return self.lane.version

    @property
    def post(self) -> Post:
        """What a new version has to be fit for."""
        usual = [size for size, _ in self.counts.batches.most_common(MAX_WARM_BATCHES)]
        return Post(self.spec, self.arrays, tuple(sorted({1, *usual})))

    def lane_for(self, client: bytes, now_ns: int) -> Lane:
        """Return the version that answers this client now."""
        canary, lane = self.canary, self.canary_lane
        if canary is None or lane is None or not canary.takes(client, now_ns):
            return self.lane
        return lane

    def replace(self, policy: BatchPolicy) -> dict[str, str]:
        """Have ``policy`` answer from now on, and return both versions' names.

        The version before the one that answered until now is closed.
        """
        before, retired = self.version, self.previous
        self.previous, self.lane.policy = self.lane.policy, policy
        self._enter()
        if retired is not None and retired not in (self.previous, policy):
            release(retired)
        return {"before": before, "after": self.version}

    def put_on_trial(self, canary: Canary) -> None:
        """Have a new version answer its share."""
        self.canary, self.canary_lane = canary, Lane(self, canary.policy)

    def end_trial(self, verdict: str) -> Lane:
        """Take the version on trial out of service, not closed, and return its lane."""
        assert self.canary is not None
        assert self.canary_lane is not None
        self.trial = {**self.canary.facts(), "verdict": verdict}
        lane, self.canary, self.canary_lane = self.canary_lane, None, None
        return lane

    def facts(self) -> dict[str, Any]:
        """Return what it is and what it did, for people."""
        return {
            "policy": self.name,
            "version": self.version,
            "previous": self.previous.version[:200] if self.previous else "",
            **self.counts.facts(),
            "change": self.change,
            "canary": self.canary.facts() if self.canary else self.trial,
        }

    def numbers(self) -> dict[str, Any]:
        """Return what a monitoring system counts on from."""
        return {
            "version": self.version,
            "canary": self.canary.facts() if self.canary else None,
            **self.counts.numbers(),
        }

    def close(self) -> None:
        """Release every version."""
        on_trial = None if self.canary is None else self.canary.policy
        for policy in (self.lane.policy, self.previous, on_trial):
            if policy is not None:
                release(policy)

    def _enter(self) -> None:
        self.counts.enter_version(self.version, self._clock.now_ns())


def release(policy: BatchPolicy) -> None:
    """Close a policy that is out of service; one that fails at that must not end the server."""
    try:
        policy.close()
    except Exception as error:
        logger.warning("closing %s: %s: %s", policy.version, type(error).__name__, error)
