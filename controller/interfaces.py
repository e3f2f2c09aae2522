"""The seams of the runtime. Local and remote implementations look the same to a caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from controller.spec import Spec
from controller.types import (
    ActionChunk,
    Array,
    Observation,
    Rejected,
    Request,
    TickRecord,
    VectorStep,
)


@runtime_checkable
class Clock(Protocol):
    """Time, passed in. Nobody reads a clock at the point of use."""

    def now_ns(self) -> int:
        """Return monotonic nanoseconds."""
        ...

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at ``deadline_ns`` or as soon after it as the machine allows."""
        ...


@runtime_checkable
class Plant(Protocol):
    """A robot, simulated or real."""

    @property
    def spec(self) -> Spec:
        """What it looks like."""
        ...

    def reset(self, seed: int | None = None) -> None:
        """Begin a new episode; with ``seed`` the episode is determined by it.

        A lockstep plant has begun it on return. A real-time plant begins it soon: wait for
        an observation with a higher ``episode``.
        """
        ...

    def observe(self) -> Observation:
        """Return the newest observation; never waits for a new one.

        Raises:
            PlantLost: the plant cannot be reached any more.
        """
        ...

    def command(self, action: Array, tick: int) -> None:
        """Apply ``action`` until the next command. Does not wait.

        A lockstep plant advances by one control step.
        """
        ...

    def close(self) -> None:
        """Release the plant; safe to call twice."""
        ...


@runtime_checkable
class VectorPlant(Protocol):
    """Several copies of one task in lockstep, for evaluation and for learning online."""

    @property
    def spec(self) -> Spec:
        """What each copy looks like."""
        ...

    @property
    def num(self) -> int:
        """How many copies there are, N."""
        ...

    def reset(self, seed: int | None = None) -> NDArray[np.float64]:
        """Begin an episode in every copy; return the observations (N, D) to act on.

        With ``seed`` everything that follows is determined by it.
        """
        ...

    def step(self, actions: Array) -> VectorStep:
        """Apply actions (N, *spec.action.shape), one control step each.

        A copy whose episode ends begins the next one in the same call.
        """
        ...

    def close(self) -> None:
        """Release the copies; safe to call twice."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Something that answers an observation with actions."""

    @property
    def spec(self) -> Spec:
        """The robot it was made for."""
        ...

    @property
    def version(self) -> str:
        """Version that would answer the next request; empty while unknown."""
        ...

    def infer(self, request: Request) -> ActionChunk | None:
        """Return the answer to ``request``, or None when none came by its deadline.

        An answer to an earlier request is never returned for this one.
        """
        ...

    def close(self) -> None:
        """Release the policy; safe to call twice."""
        ...


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A policy that answers several requests in one computation."""

    @property
    def max_batch(self) -> int:
        """Most requests that it takes at once."""
        ...

    def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk | None]:
        """Return the answer to each of 1 to ``max_batch`` requests, in their order.

        One request that cannot be answered, because its observation is not finite for example,
        leaves the answers to the others as they are.
        """
        ...

    def expected_ns(self, batch: int) -> int:
        """Return how long the cheapest answer to ``batch`` requests is expected to take."""
        ...


@runtime_checkable
class AheadPolicy(Policy, Protocol):
    """A policy that can be asked without waiting for the answer."""

    def submit(self, request: Request) -> bool:
        """Send ``request`` off; False when it could not be sent. Never waits.

        Raises:
            Refused: there is nobody who would answer.
        """
        ...

    def poll(self) -> ActionChunk | Rejected | None:
        """Return the next answer that has arrived, or None when there is none. Never waits.

        Answers come in the order in which they arrived, those to earlier requests among them.
        """
        ...


@runtime_checkable
class Sink(Protocol):
    """Where the loop hands over what happened."""

    def tick(self, record: TickRecord) -> bool:
        """Take one tick. Never waits in real time; False when it was dropped."""
        ...

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Take one event, for example ``("mode", "RUN -> HOLD: episode over")``."""
        ...

    def close(self) -> None:
        """Finish the log; safe to call twice."""
        ...
