"""A live fine-tuning: the processes that run a policy, and those that improve it meanwhile.

The launcher does nothing that any of them waits for. It starts them, starts those again that
die, and looks at their counters a few times a second. The order of the end matters: the actors
first, so that every log is complete; then the learner and the gate, which finish what the last
rows allow; the replay service and the policy server last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import msgspec

from controller.endpoints import endpoint_for
from controller.errors import ControllerError
from controller.keys import client_keys
from controller.launch import POLL_S, RunFailed, policy_server
from controller.process import Child, Supervisor
from controller.ray_child import Cluster, connect
from controller.tuning.actors import Actor, make_actor
from controller.tuning.kept import Kept, MakePart, last_words, part, words_file
from controller.tuning.settings import LivePlan
from controller.tuning.watch import Seen, Watch, asking

LEARN_ON_S = 25.0
"""Time that the learner has for the updates that the last rows allow."""
JUDGE_S = 30.0
"""Time that the gate has for what it is judging."""
STOP_S = 10.0
LOST_S = 120.0
"""Time from the actors' start to the first row, after which the run is given up."""


class Look(msgspec.Struct, frozen=True):
    """How a live fine-tuning stands.

    Attributes:
        seen: what the replay service said last.
        elapsed_s: time since the first row; 0 before it.
        ticks: of the actors' loops in real time.
        missed: ticks of theirs that were missed.
        actors: how many are at work.
    """

    seen: Seen
    elapsed_s: float
    ticks: int
    missed: int
    actors: int


class LiveTuning:
    """The processes of a live fine-tuning; a context manager that leaves none behind.

    Args:
        plan: what to do. ``plan.bundles`` is there, with a current version.
        sockets: directory for addresses of this machine.
        make: makes its processes.

    Attributes:
        notes: one line for each thing that a person should know, oldest first.
        began_ns: when it was made, on the monotonic clock.
    """

    def __init__(self, plan: LivePlan, sockets: Path, make: MakePart = part) -> None:
        self.plan, self._sockets, self._make = plan, sockets, make
        self.began_ns = time.monotonic_ns()
        self.notes: list[str] = []
        self._resources = ExitStack()
        self._parts: dict[str, Kept] = {}
        self._actors: list[Actor] = []
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._acting_s: float | None = None
        self._rows_before = 0
        self._shown: dict[str, int] = {}
        self._server_at = endpoint_for(sockets, "policy") if plan.realtime else ""
        self._ask = asking(plan.replay, client_keys(plan.keys))
        self._watch = Watch(self._ask)

    def __enter__(self) -> LiveTuning:
        with ExitStack() as resources:
            self._cluster = self._connect(resources)
            self._supervisor = resources.enter_context(Supervisor())
            resources.callback(self._stop_actors)
            self._start()
            resources.enter_context(self._watch)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._kill()
        self._resources.close()

    def _connect(self, resources: ExitStack) -> Cluster | None:
        if self.plan.actors is None:
            return None
        cluster = resources.enter_context(connect(self.plan.actors, self.plan.num_actors))
        cluster.check_reach(self.plan.replay)
        return cluster

    def _start(self) -> None:
        plan, settings = self.plan, f"settings={self.plan.settings}"
        server = self._server_at
        begins = iter(("begin=true",))  # Of the first start alone.
        self._keep("replay", lambda: self._part("replay", settings, *begins))
        if plan.realtime:
            self._keep("server", self._server)
        gate = (settings, *([f"policy_endpoint={server}"] if server else []))
        self._keep("gate", lambda: self._part("gate", *gate, niceness=plan.niceness))
        self._keep(
            "learner",
            lambda: self._part("learner", settings, niceness=plan.niceness),
            Diverged(plan.out / "diverged"),
        )
        if plan.realtime:
            self._start_actors()

    def _start_actors(self) -> None:
        self._acting_s, self._rows_before = time.monotonic(), self._watch.seen.env_steps
        for index in range(self.plan.num_actors):
            self._actors.append(
                make_actor(
                    self._supervisor, self.plan, index, self._server_at, self._make, self._cluster
                )
            )

    def _part(self, name: str, *words: str, niceness: int = 0) -> Child:
        return self._make(f"finetune {name}", self.plan.out, name, *words, niceness=niceness)

    def _server(self) -> Child:
        """Return the policy server of all actors; a new one serves the version in force."""
        plan, endpoint = self.plan, self._server_at
        log = words_file(plan.out, "server")
        about = plan.policy_at(endpoint)
        return policy_server(about, endpoint, plan.sched_fifo, log=log)

    def _keep(
        self, name: str, make: Callable[[], Child], hopeless: Callable[[Child], str] | None = None
    ) -> None:
        more = () if hopeless is None else (hopeless,)
        self._parts[name] = Kept(self._supervisor, name, make, *more)

    @property
    def processes(self) -> dict[str, Child]:
        """The newest process of each name: of the parts and of the actors."""
        found = {name: kept.child for name, kept in self._parts.items()}
        for actor in self._actors:
            found |= actor.processes
        return found

    @property
    def failures(self) -> dict[str, str]:
        """Why parts and actors ended before their time, by name."""
        every = {name: kept.failure for name, kept in self._parts.items()}
        every |= {actor.name: actor.failure for actor in self._actors}
        return {name: why for name, why in every.items() if why}

    @property
    def deaths(self) -> dict[str, int]:
        """How often each process died."""
        counts = {name: kept.deaths for name, kept in self._parts.items()}
        for actor in self._actors:
            counts |= actor.deaths
        return counts

    def look(self) -> Look:
        """Start again what died, and return how it stands."""
        now_s = time.monotonic()
        for kept in self._parts.values():
            kept.look(now_s)
            self._tell(kept.notes)
        for actor in self._actors:
            actor.look(now_s)
            self._tell(actor.notes)
        boards = [board for actor in self._actors if (board := actor.status())]
        ticks = sum(board["ticks"] for board in boards)
        seen = self._watch.seen
        if self._acting_s is None and seen.stats.get("learner"):
            # Rows that come before the learner can draw are of nobody's improvement. A robot
            # does not wait for it.
            self._start_actors()
        self._show_processes()
        if self._first_s is None and (ticks or seen.env_steps > self._rows_before):
            self._first_s = now_s
        return Look(
            seen,
            0.0 if self._first_s is None else now_s - self._first_s,
            ticks,
            sum(board["missed"] for board in boards),
            sum(actor.running for actor in self._actors),
        )

    def _show_processes(self) -> None:
        """Keep ``OUT/processes.json``, the process ids by name, as they are."""
        pids = {name: child.pid for name, child in self.processes.items()}
        if pids == self._shown:
            return
        self._shown = pids
        draft = self.plan.out / ".processes.json"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(pids), indent=1) + b"\n")
        draft.replace(self.plan.out / "processes.json")

    def _tell(self, notes: list[str]) -> None:
        at_s = time.monotonic() - self._began_s
        self.notes += [f"{at_s:.1f} s: {note}" for note in notes]
        notes.clear()

    def wait(self, shown: Callable[[Look], None], should_stop: Callable[[], bool]) -> str:
        """Wait for the end of the run, and return in words what ended it.

        Args:
            shown: called with each look.
            should_stop: whether to end now.

        Raises:
            RunFailed: nothing happened, because a part cannot do its work.
        """
        while True:
            look = self.look()
            shown(look)
            if ended := self._ended(look, should_stop):
                return ended
            time.sleep(POLL_S)

    def _ended(self, look: Look, should_stop: Callable[[], bool]) -> str:
        plan = self.plan
        if should_stop():
            return "stopped"
        if not look.elapsed_s:
            self._check_begin()
        if plan.minutes is not None and look.elapsed_s >= 60.0 * plan.minutes:
            return f"{plan.minutes:g} minutes"
        if plan.steps is not None and look.seen.env_steps >= plan.steps:
            return f"{plan.steps} steps"
        return "" if look.actors or self._acting_s is None else "no actor left"

    def _check_begin(self) -> None:
        """Raise :class:`RunFailed` where there will be no first row."""
        for name, child in self.processes.items():
            if (child.poll() or 0) > 0:
                raise RunFailed(f"{name}: {last_words(child)}")
        for name, why in self.failures.items():
            raise RunFailed(f"{name}: {why}")
        if self._acting_s is not None and time.monotonic() - self._acting_s > LOST_S:
            raise RunFailed(f"no row came within {LOST_S:g} s; see {self.plan.out}/*.log")

    def finish(self) -> Look:
        """End in order, and return how it stood then.

        The actors first; then the learner does what the last rows allow and the gate judges what
        it has, both within limits of time.
        """
        last = self.look()
        self._stop_actors()
        learner, gate = self._parts["learner"], self._parts["gate"]
        try:
            self._ask("finish", {})
        except ControllerError as error:
            self._tell([f"the replay service did not hear of the end: {error}"])
        if not learner.failure and not learner.wait(LEARN_ON_S):
            self._tell([f"learner: still at work after {LEARN_ON_S:g} s, stopped"])
        learner.stop(STOP_S)
        if not gate.failure and not gate.wait(JUDGE_S):
            self._tell([f"gate: still at work after {JUDGE_S:g} s, stopped"])
        gate.stop(STOP_S)
        self._watch.stop()
        seen = self._watch.look()
        for name in ("server", "replay"):
            if name in self._parts:
                self._parts[name].stop(STOP_S)
        return msgspec.structs.replace(self._counted(last), seen=seen)

    def _counted(self, look: Look) -> Look:
        """Return a look with the loops' last counters, of the moment that they were stopped."""
        boards = [board for actor in self._actors if (board := actor.status())]
        ticks, missed = (sum(board[name] for board in boards) for name in ("ticks", "missed"))
        return msgspec.structs.replace(look, ticks=ticks, missed=missed)

    def _stop_actors(self) -> None:
        """Stop all at the same time: each needs a moment to complete its log."""
        if not self._actors:
            return
        pool = ThreadPoolExecutor(len(self._actors))
        try:
            list(pool.map(lambda actor: actor.stop(), self._actors))
        except KeyboardInterrupt:
            self._kill()
            raise
        finally:
            pool.shutdown()

    def _kill(self) -> None:
        """End everything at once."""
        for child in self.processes.values():
            # One that another thread is stopping just now may be half closed.
            with suppress(ValueError, OSError):
                child.kill()


class Diverged:
    """Says whether a learner ended because it diverged.

    Args:
        place: directory that then holds what it last learned from.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._before = self._files()

    def __call__(self, child: Child) -> str:
        """Return why a learner that ended with an error should not be started again."""
        found = self._files()
        if found == self._before:
            return ""
        self._before = found
        return f"diverged: {last_words(child)}"

    def _files(self) -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in self._place.glob("*")}
