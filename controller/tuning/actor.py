"""An actor in lockstep: it steps a task as fast as it goes, and sends on what it went through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from controller.clock import VirtualClock
from controller.feed.stream import RowStream
from controller.interfaces import Plant, Sink
from controller.launch import fresh_log
from controller.log import McapSink
from controller.log_schema import BUNDLE, LogHeader
from controller.loop import ControlLoop, Outcome
from controller.session import LatchedStop, exploring_here, header
from controller.settings import RunConfig
from controller.spec import Spec
from controller.status import StatusBoard
from controller.swapping import Load, SwappingPolicy
from controller.tuning.courier import Courier
from controller.types import TickRecord

log = logging.getLogger(__name__)

BLOCK = 64
"""Ticks after which they are logged and their rows go out, if the time is not up before.

Between physics and a network no code is left in the caches: to log a tick and make a row of it took
83 us, and 37 us where its turn came with 63 others."""
BLOCK_NS = 50_000_000
"""Time after which that happens, however few there are."""
FIRST_S = 60.0
"""Time until there is a version to act with."""
FLUSH_S = 2.0
"""Time that the last rows have to arrive."""


class RowSink:
    """A log whose ticks also go to the replay service, block by block.

    What is sent is in the log before; a kill loses what came since the last block.

    Args:
        log: takes every tick and event.
        spec: the robot.
        courier: takes the rows.
        status: shows the number of ticks, once a block.
        after: called after each block, between two ticks.
    """

    def __init__(
        self,
        log: Sink,
        spec: Spec,
        courier: Courier,
        status: StatusBoard,
        after: Callable[[], None],
    ) -> None:
        self._log, self._courier = log, courier
        self._status, self._after = status, after
        self._stream = RowStream(spec)
        self._pending: list[TickRecord | tuple[int, str, str]] = []
        self._ticks = self._sent = 0
        self._sent_ns = time.monotonic_ns()
        self._closed = False

    def tick(self, record: TickRecord) -> bool:
        """Take one tick; now and then, wait as the replay service says.

        Raises:
            LogError: see the log.
            Refused: the replay service does not want this actor any more.
        """
        self._pending.append(record)
        self._stream.add(record)
        self._ticks += 1
        if self._ticks - self._sent >= BLOCK or time.monotonic_ns() - self._sent_ns > BLOCK_NS:
            self._write()
            self._courier.deliver(*self._stream.take())
            self._after()
            self._sent, self._sent_ns = self._ticks, time.monotonic_ns()
        return not self._closed

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Take one event."""
        self._pending.append((stamp_ns, kind, detail))
        return not self._closed

    def close(self) -> None:
        """Finish the log, then send the last rows; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._write()
        finally:
            self._log.close()
            self._courier.finish(*self._stream.finish(), FLUSH_S)

    def _write(self) -> None:
        pending, self._pending = self._pending, []
        for item in pending:
            if isinstance(item, TickRecord):
                self._log.tick(item)
            else:
                self._log.event(*item)
        self._status.write(ticks=self._ticks)


def act(
    config: RunConfig,
    plant: Plant,
    courier: Courier,
    load: Load,
    should_stop: Callable[[], bool],
    *,
    run: str = "",
    ticks: int | None = None,
) -> Outcome | None:
    """Run a task under the version in force until the wait or the run should end.

    Args:
        config: of the run, in lockstep; the bundle is filled in.
        plant: of the task.
        courier: knows the version in force and takes the rows.
        load: makes a policy from the path of its bundle.
        should_stop: whether to end.
        run: identity of the run, for its log; empty for one of its own.
        ticks: after which to end; None for no such limit.

    Returns:
        Why the run ended; None where it ended before it began.

    Raises:
        PeerTimeout: there was no version to act with in time.
        Refused: the replay service does not want this actor.
        PlantFailed: the simulation cannot go on.
        LatchedStop: the policy gave nothing that can be used.
    """
    found = courier.first_bundle(FIRST_S)
    if found is None:
        return None
    version, bundle = found
    about = msgspec.structs.replace(config.policy, bundle=bundle)
    config = msgspec.structs.replace(config, policy=about)
    facts = {"faults": config.plant.faults.facts()}
    told = header(config, plant.spec, {version: bundle}, facts)
    life = _Life(config, plant, courier, load, msgspec.structs.replace(told, run=run))
    return life.run(should_stop, ticks)


class _Life:
    """The loop of an actor, and what happens between its blocks."""

    def __init__(
        self, config: RunConfig, plant: Plant, courier: Courier, load: Load, about: LogHeader
    ) -> None:
        self._courier, self._clock = courier, VirtualClock()
        self._should_stop: Callable[[], bool] = bool
        self._policy = SwappingPolicy(load(config.policy.bundle), load, self._say)
        explorer = exploring_here(self._policy, config)
        out = Path(config.out)
        written = McapSink(fresh_log(out), about, config.log)
        self._status = StatusBoard(out / "status.bin", create=True)
        self._sink = RowSink(written, plant.spec, courier, self._status, self._between)
        self._loop = ControlLoop(
            plant, explorer, self._sink, self._clock, config.loop, seed=config.seed
        )

    def run(self, should_stop: Callable[[], bool], ticks: int | None) -> Outcome:
        self._should_stop = should_stop
        try:
            outcome = self._loop.run(ticks=ticks)
        finally:
            self._sink.close()
            self._policy.close()
            self._status.close()
        if outcome is Outcome.FAULT:
            raise LatchedStop(f"{self._loop.fault}; the safe command was sent until the end")
        return outcome

    def _between(self) -> None:
        if newer := self._courier.newer():
            version, bundle = newer
            if self._policy.change(bundle):
                self._note(BUNDLE, f"{version} {bundle}")
                self._note("swap", f"{version} was put in within {self._policy.last_ms:.1f} ms")
        if self._should_stop():
            self._loop.stop("asked to end")

    def _say(self, kind: str, detail: str) -> None:
        log.warning("%s", detail)
        self._note(kind, detail)

    def _note(self, kind: str, detail: str) -> None:
        self._sink.event(self._clock.now_ns(), kind, detail)
