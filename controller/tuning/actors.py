"""The actors of a live fine-tuning: a robot's beat and what feeds on its log, or one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

import msgspec

from controller.launch import LiveRun, RunFailed
from controller.process import Child, Supervisor
from controller.ray_child import Cluster
from controller.settings import RunConfig
from controller.status import StatusError
from controller.tuning.kept import Kept, MakePart, words_file
from controller.tuning.lives import Life, begin_life
from controller.tuning.settings import LivePlan

DRAIN_S = 5.0
"""Time that a feeder has to bring the end of a complete log home."""


class Actor(Protocol):
    """Whoever goes through the rows."""

    name: str
    notes: list[str]

    @property
    def running(self) -> bool:
        """Whether it is at work, or will be again."""
        ...

    @property
    def failure(self) -> str:
        """Why it ended before its time; empty where it did not."""
        ...

    @property
    def deaths(self) -> dict[str, int]:
        """How often its processes died, by their names."""
        ...

    @property
    def processes(self) -> dict[str, Child]:
        """Its newest processes, by name."""
        ...

    def look(self, now_s: float) -> None:
        """Keep it going."""
        ...

    def status(self) -> dict[str, int]:
        """Return the counters of its loop; empty where nobody shows them here."""
        ...

    def stop(self) -> None:
        """End it in order: its log is complete afterwards, and its last rows are on their way."""
        ...


class LockstepActor:
    """One process that steps a task as fast as it goes; started again when it dies.

    Args:
        supervisor: stops it with the others.
        plan: of the fine-tuning.
        index: its number.
        make: makes the process, not yet started.
    """

    def __init__(
        self, supervisor: Supervisor, plan: LivePlan, index: int, make: Callable[[], Child]
    ) -> None:
        self.name = plan.actor(index)
        self._kept = Kept(supervisor, self.name, make)
        self.notes = self._kept.notes

    @property
    def running(self) -> bool:
        """Whether it is at work, or will be again."""
        return not self._kept.done

    @property
    def failure(self) -> str:
        """Why it was given up."""
        return self._kept.failure

    @property
    def deaths(self) -> dict[str, int]:
        """How often it died."""
        return {self.name: self._kept.deaths}

    @property
    def processes(self) -> dict[str, Child]:
        """Its newest process."""
        return {self.name: self._kept.child}

    def look(self, now_s: float) -> None:
        """Start it again when it is dead."""
        self._kept.look(now_s)

    def status(self) -> dict[str, int]:
        """Return nothing: what it did is known by its rows."""
        return {}

    def stop(self) -> None:
        """Have it complete its log and send its last rows."""
        self._kept.stop()


class RealtimeActor:
    """A simulation, a control loop at a fixed rate, and a feeder of its log.

    The loop is not started again: a robot that stopped is a person's to look at. The feeder is,
    and goes on where the replay service says that it was.

    Args:
        supervisor: stops the feeder with the others.
        plan: of the fine-tuning.
        index: its number.
        server: address of the policy server.
        make: makes the feeder.
    """

    def __init__(
        self, supervisor: Supervisor, plan: LivePlan, index: int, server: str, make: MakePart
    ) -> None:
        self.name = plan.actor(index)
        self.notes: list[str] = []
        self.failure = ""
        self._ended = False
        out, feeder = plan.actor_out(index), f"feeder-{index}"
        out.mkdir(parents=True, exist_ok=True)
        life = begin_life(out)
        words = (
            f"settings={plan.settings}",
            f"name={self.name}",
            f"index={index}",
            f"out={out}",
            f"log={out / 'log.mcap'}",
        )
        with ExitStack() as resources:
            self._live = resources.enter_context(LiveRun(_run_config(plan, index, server, life)))
            self._feeder = Kept(
                supervisor, feeder, lambda: make("finetune feed", plan.out, feeder, *words)
            )
            self._resources = resources.pop_all()

    @property
    def running(self) -> bool:
        """Whether the loop is at work."""
        return not self._ended

    @property
    def deaths(self) -> dict[str, int]:
        """How often the feeder died; 1 for a loop that ended before its time."""
        return {self.name: int(bool(self.failure)), self._feeder.name: self._feeder.deaths}

    @property
    def processes(self) -> dict[str, Child]:
        """Its simulation, control loop and feeder."""
        own = {f"{self.name} {child.name}": child for child in self._live.children}
        return {**own, self._feeder.name: self._feeder.child}

    def look(self, now_s: float) -> None:
        """See whether the loop is still at work, and start the feeder again when it is dead."""
        self._feeder.look(now_s)
        self.notes += self._feeder.notes
        self._feeder.notes.clear()
        if self._ended or self._live.running:
            return
        self._ended = True
        try:
            self._live.wait(lambda status: False)
        except RunFailed as error:
            self.failure = str(error)
            self.notes.append(f"{self.name} ended: {error}")

    def status(self) -> dict[str, int]:
        """Return the loop's status board."""
        try:
            return self._live.status()
        except StatusError:
            return {}

    def stop(self) -> None:
        """Have the loop send its last safe command and close its log, and wait for its rows."""
        self._ended = True
        self._resources.close()
        if not self._feeder.wait(DRAIN_S):
            self._feeder.stop()


def _run_config(plan: LivePlan, index: int, server: str, life: Life) -> RunConfig:
    policy = plan.policy_at(server)
    explore = msgspec.structs.replace(policy.explore, offset=life.ticks)
    return RunConfig(
        task=plan.task,
        seconds=None,
        seed=life.seed(plan.seed, index),
        out=str(plan.actor_out(index)),
        policy=msgspec.structs.replace(policy, explore=explore),
        loop=plan.loop,
        log=plan.log,
    )


def make_actor(
    supervisor: Supervisor,
    plan: LivePlan,
    index: int,
    server: str,
    make: MakePart,
    cluster: Cluster | None,
) -> Actor:
    """Return an actor of the plan, started.

    Args:
        supervisor: stops it with the others.
        plan: of the fine-tuning.
        index: its number.
        server: address of the policy server, of an actor in real time.
        make: makes processes of this machine.
        cluster: where an actor in lockstep runs; None for this machine.
    """
    if plan.realtime:
        return RealtimeActor(supervisor, plan, index, server, make)
    name = plan.actor(index)
    words = (f"settings={plan.settings}", f"name={name}", f"index={index}")

    def process() -> Child:
        if cluster is None:
            return make("finetune actor", plan.out, name, *words)
        return cluster.child(
            ("finetune", "actor", *words),
            name,
            files={str(plan.settings): plan.settings.read_text(encoding="utf-8")},
            log=words_file(plan.out, name),
        )

    return LockstepActor(supervisor, plan, index, process)
