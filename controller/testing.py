"""Fakes of every seam, with scripted faults, and conformance kits for every implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from controller.clock import VirtualClock
from controller.conformance import check_plant, check_policy
from controller.errors import PeerTimeout, PlantFailed, PlantLost, Refused, WireError
from controller.interfaces import Clock
from controller.spec import ArraySpec, Spec
from controller.types import ActionChunk, Array, Observation, Request, TickRecord

__all__ = [
    "FakePlant",
    "FakePolicy",
    "FakeRealTimePlant",
    "ListSink",
    "PlantFault",
    "PolicyOutcome",
    "check_plant",
    "check_policy",
    "example_spec",
]

PlantFault = Literal["lost", "failed", "stall", "nan", "drop"]
PolicyOutcome = Literal[
    "ok", "late", "silent", "refused", "timeout", "garbage", "crash", "bug",
    "nan", "shape", "dtype", "tick",
]  # fmt: skip

_RAISES: Final[Mapping[str, Exception]] = {
    "refused": Refused("the server is loading"),
    "timeout": PeerTimeout("no answer"),
    "garbage": WireError("not a message"),
    "crash": RuntimeError("out of memory"),
    "bug": AssertionError("a bug of ours"),
}


def example_spec(rate_hz: float = 100.0) -> Spec:
    """Return the spec of a point in the plane that is driven by its velocity."""
    return Spec(
        task="example",
        observation=(
            ArraySpec("position", (2,), "float64", "m", elements=("x", "y")),
            ArraySpec("target", (2,), "float64", "m"),
        ),
        action=ArraySpec("velocity", (2,), "float32", "m/s", low=(-1.0, -1.0), high=(1.0, 1.0)),
        rate_hz=rate_hz,
    )


class FakePlant:
    """A point driven by its velocity, in lockstep: x' = x + dt·u, reward = -|x - target|.

    Success is being within 5 cm of the target.

    Args:
        spec: as :func:`example_spec`, at any rate.
        clock: stamps the observations; None stamps with simulated time, as plants may.
        episode_steps: steps after which an episode is truncated.
        terminate_at: step at which every episode is terminated; None for never.
        faults: by number of commands received with a tick of 0 or more: what happens until the
            next one. ``lost`` and ``failed`` make ``observe`` raise, ``stall`` shows the
            observation before, ``nan`` shows one that is not finite, ``drop`` ignores the next
            command.

    Attributes:
        commands: (tick, action) of every command received.
        seeds: seeds of the resets.
    """

    def __init__(
        self,
        spec: Spec | None = None,
        *,
        clock: Clock | None = None,
        episode_steps: int = 20,
        terminate_at: int | None = None,
        faults: Mapping[int, PlantFault] | None = None,
    ) -> None:
        self._spec = spec or example_spec()
        self._clock = clock
        self._episode_steps = episode_steps
        self._terminate_at = terminate_at
        self._faults = dict(faults or {})
        self._time_ns = 0
        self._closed = False
        self._now: Observation | None = None
        self._shown: Observation | None = None
        self.commands: list[tuple[int, Array]] = []
        self.seeds: list[int | None] = []
        self._ticks_received = 0

    @property
    def spec(self) -> Spec:
        """The robot."""
        return self._spec

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode at a place drawn from ``seed``."""
        self._require_open()
        self.seeds.append(seed)
        episode = 0 if self._now is None else self._now.episode + 1
        drawn = np.random.default_rng(seed).uniform(-1.0, 1.0, 4)
        self._now = Observation(_read_only(drawn[:2], drawn[2:]), self._stamp(), episode)

    def observe(self) -> Observation:
        """Return the newest observation, under the fault of the moment."""
        self._require_open()
        if self._now is None:
            raise PlantLost("the plant was never reset")
        fault = self._fault()
        if fault == "lost":
            raise PlantLost("scripted")
        if fault == "failed":
            raise PlantFailed("scripted failure")
        if fault == "stall" and self._shown is not None:
            return self._shown
        self._shown = self._now
        if fault == "nan":
            position, target = self._now.arrays
            return replace(self._now, arrays=_read_only(np.full_like(position, np.nan), target))
        return self._now

    def command(self, action: Array, tick: int) -> None:
        """Advance by one control step."""
        self._require_open()
        assert self._now is not None, "a lockstep plant is reset before its first command"
        assert not self._now.done, "a lockstep plant is not commanded once its episode is over"
        drop = self._fault() == "drop"
        self._receive(action, tick)
        if not drop:
            self._step(action, tick)

    def close(self) -> None:
        """Release nothing."""
        self._closed = True

    def _receive(self, action: Array, tick: int) -> None:
        self.commands.append((tick, action.copy()))
        self._ticks_received += tick >= 0

    def _step(self, action: Array, tick: int) -> None:
        assert self._now is not None
        self._time_ns += self._spec.period_ns
        position, target = (array.astype(np.float64) for array in self._now.arrays)
        moved = position + np.asarray(action, np.float64) / self._spec.rate_hz
        distance = float(np.linalg.norm(moved - target))
        step = self._now.step + 1
        terminated = step == self._terminate_at
        self._now = Observation(
            arrays=_read_only(moved, target),
            stamp_ns=self._stamp(),
            episode=self._now.episode,
            step=step,
            reward=-distance,
            episode_return=self._now.episode_return - distance,
            terminated=terminated,
            truncated=not terminated and step >= self._episode_steps,
            success=self._now.success or distance < 0.05,
            applied_tick=tick,
        )

    def _fault(self) -> PlantFault | None:
        return self._faults.get(self._ticks_received)

    def _stamp(self) -> int:
        return self._clock.now_ns() if self._clock else self._time_ns

    def _require_open(self) -> None:
        if self._closed:
            raise PlantLost("the plant is closed")


class FakeRealTimePlant(FakePlant):
    """The same point, advancing with the clock: every period it applies the last command.

    Its grid begins at the clock's time of construction. At its end an episode stands still, with
    its last observation on show, until ``reset_periods`` after a reset was asked for.
    """

    def __init__(
        self,
        clock: Clock,
        spec: Spec | None = None,
        *,
        reset_periods: int = 3,
        episode_steps: int = 20,
        terminate_at: int | None = None,
        faults: Mapping[int, PlantFault] | None = None,
    ) -> None:
        super().__init__(
            spec,
            clock=clock,
            episode_steps=episode_steps,
            terminate_at=terminate_at,
            faults=faults,
        )
        self._wall = clock
        self._reset_periods = reset_periods
        self._next_ns = clock.now_ns()
        self._held: tuple[int, Array] = (-1, np.zeros(2, np.float32))
        self._due: tuple[int, int | None] | None = None
        super().reset(0)
        self.seeds.clear()

    def reset(self, seed: int | None = None) -> None:
        """Ask for an episode; it begins ``reset_periods`` later."""
        self._require_open()
        self.seeds.append(seed)
        self._due = (self._wall.now_ns() + self._reset_periods * self._spec.period_ns, seed)

    def observe(self) -> Observation:
        """Let the periods pass that the clock says have passed, and look."""
        while self._next_ns <= self._wall.now_ns():
            self._pass_period(self._next_ns)
            self._next_ns += self._spec.period_ns
        return super().observe()

    def command(self, action: Array, tick: int) -> None:
        """Hold ``action`` from the next period on."""
        self._require_open()
        if self._fault() != "drop":
            self._held = (tick, action.copy())
        self._receive(action, tick)

    def _pass_period(self, now_ns: int) -> None:
        if self._due is not None and now_ns >= self._due[0]:
            super().reset(self._due[1])
            self.seeds.pop()
            self._due = None
        elif self._due is None and self._now is not None and not self._now.done:
            self._step(self._held[1], self._held[0])
        if self._now is not None:
            self._now = replace(self._now, stamp_ns=now_ns)


class FakePolicy:
    """Drives towards the target with a little noise from (seed, tick), or fails as scripted.

    Args:
        spec: as :func:`example_spec`.
        clock: a virtual clock that answers take their time of.
        outcomes: what happens at which tick; ``ok`` where not given. ``late`` waits for the
            request's deadline and gives nothing; ``silent`` gives nothing, and there is no
            version to tell.
        costs_ns: by tick, how long the answer takes; 0 where not given.
        horizon: rows per answer.
        version: of the policy.

    Attributes:
        requests: every request received.
    """

    def __init__(
        self,
        spec: Spec | None = None,
        *,
        clock: VirtualClock | None = None,
        outcomes: Mapping[int, PolicyOutcome] | None = None,
        costs_ns: Mapping[int, int] | None = None,
        horizon: int = 1,
        version: str = "fake-1",
    ) -> None:
        self._spec = spec or example_spec()
        self._clock = clock or VirtualClock()
        self._outcomes = dict(outcomes or {})
        self._costs_ns = dict(costs_ns or {})
        self._horizon = horizon
        self._version = version
        self._told_version = version
        self._closed = False
        self.requests: list[Request] = []

    @property
    def spec(self) -> Spec:
        """The robot."""
        return self._spec

    @property
    def version(self) -> str:
        """The version, empty after a ``silent`` outcome."""
        return self._told_version

    def infer(self, request: Request) -> ActionChunk | None:
        """Answer, or fail as scripted."""
        if self._closed:
            raise Refused("the policy is closed")
        self.requests.append(request)
        cost_ns = self._costs_ns.get(request.tick, 0)
        self._clock.advance(cost_ns)
        outcome = self._outcomes.get(request.tick, "ok")
        self._told_version = "" if outcome == "silent" else self._version
        if outcome in _RAISES:
            raise _RAISES[outcome]
        if outcome == "late":
            self._clock.sleep_until(request.deadline_ns)
        if outcome in ("late", "silent"):
            return None
        actions, prefix = self._actions(request), request.prefix
        rows = 0 if prefix is None else min(len(prefix), self._horizon)
        if prefix is not None:
            actions[:rows] = prefix[:rows]
        chunk = ActionChunk(request.tick, actions, self._version, infer_ns=cost_ns, prefix=rows)
        return _spoil(chunk, outcome)

    def close(self) -> None:
        """Refuse requests from now on."""
        self._closed = True

    def _actions(self, request: Request) -> Array:
        position, target = (array.astype(np.float64) for array in request.observation.arrays)
        noise = np.random.Generator(np.random.Philox(key=[request.seed, request.tick]))
        rows = [target - position + 0.01 * noise.standard_normal(2) for _ in range(self._horizon)]
        return np.clip(rows, -1.0, 1.0).astype(self._spec.action.dtype)


class ListSink:
    """Keeps everything in lists.

    Args:
        capacity: number of records it takes; it drops the others.

    Attributes:
        records: what the loop did.
        events: (stamp_ns, kind, detail).
        closed: whether it was closed.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self.records: list[TickRecord] = []
        self.events: list[tuple[int, str, str]] = []
        self.closed = False

    def tick(self, record: TickRecord) -> bool:
        """Keep the record if there is room."""
        if self._capacity is not None and len(self.records) >= self._capacity:
            return False
        self.records.append(record)
        return True

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Keep the event."""
        self.events.append((stamp_ns, kind, detail))
        return True

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


def _read_only(*arrays: Array) -> tuple[Array, ...]:
    copies = tuple(array.copy() for array in arrays)
    for copy in copies:
        copy.flags.writeable = False
    return copies


def _spoil(chunk: ActionChunk, outcome: PolicyOutcome) -> ActionChunk:
    actions = chunk.actions.astype(np.float32)
    if outcome == "nan":
        actions[-1, -1] = np.nan
        return replace(chunk, actions=actions)
    if outcome == "shape":
        return replace(chunk, actions=actions[:, :-1])
    if outcome == "dtype":
        return replace(chunk, actions=actions.astype(np.float64))
    if outcome == "tick":
        return replace(chunk, tick=chunk.tick - 1)
    return chunk
