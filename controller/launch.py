"""A real-time run: simulation, policy server and control loop as processes of their own.

The launcher itself does nothing that a tick waits for. It starts the others and reads the
loop's status board a few times a second.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from errno import EACCES
from pathlib import Path
from types import TracebackType

import msgspec

from controller.config import to_yaml
from controller.endpoints import endpoint_for
from controller.errors import ConfigError, ControllerError
from controller.keeper import Keeper
from controller.log_parts import set_aside
from controller.process import Child, RuntimeDirectory, StopFlag, Supervisor
from controller.settings import PolicySettings, RunConfig
from controller.status import StatusBoard

VIEWER = "viewer"
POLL_S = 0.2
"""Between two looks at the status board."""


class RunFailed(ControllerError, RuntimeError):
    """A run ended before its time.

    Attributes:
        log: its log, valid up to there; None when no tick was run.
    """

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


def command(verb: str, *words: str) -> list[str]:
    """Return the command line that runs a verb of this program in a process of its own."""
    return [sys.executable, "-m", "controller.cli", *verb.split(), *words]


def fresh_log(out: Path) -> Path:
    """Make ``out`` and return the path of a log there; a log that exists is renamed first.

    Raises:
        ConfigError: nothing can be written there.
    """
    log = out / "log.mcap"
    try:
        out.mkdir(parents=True, exist_ok=True)
        set_aside(log)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"out: {out}: cannot be written to: {why}") from None
    return log


def policy_server(
    about: PolicySettings, endpoint: str, sched_fifo: str = "auto", log: Path | None = None
) -> Child:
    """Return a policy server process, not yet started; ``log`` keeps what it says."""
    words = (
        f"bundle={about.bundle}",
        f"endpoint={endpoint}",
        f"engine={about.engine}",
        f"device={about.device}",
        f"sched_fifo={sched_fifo}",
        *(
            f"act.{name}={value}"
            for name, value in msgspec.structs.asdict(about.act).items()
            if value is not None
        ),
    )
    return Child(command("serve", *words), "policy server", log=log)


class LiveRun:
    """The processes of one real-time run; a context manager that leaves none behind.

    Args:
        config: settings of the run.
        loop: program that is the control loop when given the path of the run's settings; empty
            for the usual one.

    Attributes:
        log: path of the log that is being written.
        policy_endpoint: address of the policy server.

    Raises:
        ConfigError: faults are given for a plant that is not started here.
    """

    def __init__(self, config: RunConfig, loop: Sequence[str] = ()) -> None:
        if config.plant.endpoint is not None and config.plant.faults.active:
            raise ConfigError(
                f"plant.faults: the plant at {config.plant.endpoint} is not started by this "
                "run; give them to its server, as in onebeat sim serve faults.noise=0.1"
            )
        self._config = config
        self._loop_program = tuple(loop) or tuple(command("loop"))
        self._resources = ExitStack()
        self._first_ns = 0
        self._keeper: Keeper | None = None
        self._status_path = Path(config.out) / "status.bin"
        self.log = Path(config.out) / "log.mcap"
        self.policy_endpoint = config.policy.endpoint or ""

    def __enter__(self) -> LiveRun:
        with ExitStack() as resources:
            self.log = fresh_log(Path(self._config.out))
            directory = resources.enter_context(RuntimeDirectory())
            self._supervisor = resources.enter_context(Supervisor())
            self._start(directory)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The loop first: its last command goes to a plant that is still there.
        self._loop.stop(timeout_s=10.0)
        self._resources.close()

    def _start(self, directory: Path) -> None:
        config = self._config
        plant = config.plant.endpoint or endpoint_for(directory, "plant")
        policy = config.policy.endpoint or endpoint_for(directory, "policy")
        self.policy_endpoint = policy
        StatusBoard(self._status_path, create=True).close()
        if config.plant.endpoint is None:
            words = (
                f"task={config.task}",
                f"endpoint={plant}",
                f"seed={config.seed}",
                f"sched_fifo={config.loop.sched_fifo}",
                f"dumps={config.out}",
                *config.plant.faults.words(),
            )
            self._supervisor.start(Child(command("sim serve", *words), "simulation"))
        if config.policy.endpoint is None:
            self._start_server(policy)
        resolved = msgspec.structs.replace(
            config,
            plant=msgspec.structs.replace(config.plant, endpoint=plant),
            policy=msgspec.structs.replace(config.policy, endpoint=policy),
        )
        settings = Path(config.out) / "run.yaml"
        settings.write_text(to_yaml(resolved), encoding="utf-8")
        if config.view:
            words = (str(self.log), f"port={config.view_port}", "follow=true", "--json")
            self._supervisor.start(Child(command("view", *words), VIEWER, niceness=10))
        self._loop = self._supervisor.start(
            Child((*self._loop_program, str(settings)), "control loop")
        )

    def _start_server(self, endpoint: str) -> None:
        """Start the policy server, to be started again when it dies if that is wanted."""
        config = self._config

        def server() -> Child:
            return policy_server(config.policy, endpoint, config.loop.sched_fifo)

        if config.policy.restart:
            self._keeper = Keeper(self._supervisor, server)
        else:
            self._supervisor.start(server())

    @property
    def children(self) -> list[Child]:
        """Its processes, in the order in which they were started."""
        return self._supervisor.children

    def child(self, name: str) -> Child:
        """Return the process of a name: simulation, policy server or control loop."""
        return next(child for child in self.children if child.name == name)

    def status(self) -> dict[str, int]:
        """Return the loop's status board."""
        with StatusBoard(self._status_path) as board:
            return board.read()

    def elapsed_s(self, status: dict[str, int]) -> float:
        """Return the time since the loop's first tick; 0 before it."""
        if not status["ticks"]:
            return 0.0
        self._first_ns = self._first_ns or status["sent_ns"]
        return (status["sent_ns"] - self._first_ns) / 1e9

    @property
    def running(self) -> bool:
        """Whether the control loop is still at work."""
        return self._loop.poll() is None

    def wait(self, look: Callable[[dict[str, int]], bool]) -> list[str]:
        """Wait for the loop's end, or until ``look``, given the status, returns True.

        Returns one line for each process beside the loop that died meanwhile: the loop goes
        on without it, on its fallback ladder, and a policy server of this run is started again.

        Raises:
            RunFailed: the control loop ended with an error, or before its first tick a
                process that it needs did.
        """
        died: dict[str, str] = {}
        while True:
            running = self.running
            status = self.status()
            for child in self._supervisor.children:
                shown = child.name == VIEWER and child.poll() == 0
                if child is not self._loop and child.poll() is not None and not shown:
                    died[child.name] = f"{child.name}: {_last_words(child)}"
            if self._keeper is not None and running and status["ticks"]:
                self._keeper.look(time.monotonic())
            if look(status):
                break
            if not running:
                self._check_end()
                break
            if died.keys() - {VIEWER} and not status["ticks"]:
                raise RunFailed("; ".join(died.values()))
            time.sleep(POLL_S)
        restarts = self._keeper.restarts if self._keeper else 0
        again = [f"policy server: started again, {restarts} times"] if restarts else []
        return [*died.values(), *again]

    def _check_end(self) -> None:
        if self._loop.poll() != 0:
            log = self.log if self.status()["ticks"] and self.log.exists() else None
            where = f" (log: {log})" if log else ""
            raise RunFailed(f"control loop: {_last_words(self._loop)}{where}", log)

    def stop(self) -> None:
        """Have the loop send its last safe command and close its log, and wait for that."""
        self._loop.stop(timeout_s=10.0)


def watch(config: RunConfig, look: Callable[[float, dict[str, int]], None]) -> list[str]:
    """Run to the end, or to a first Ctrl-C or SIGTERM, which ends the run in order.

    Args:
        config: settings of the run.
        look: called with the elapsed seconds and the status a few times a second.

    Returns:
        One line for each thing that a person should know.

    Raises:
        KeyboardInterrupt: it was stopped before its first tick.
    """
    with StopFlag() as stop, LiveRun(config) as live:

        def seen(status: dict[str, int]) -> bool:
            look(live.elapsed_s(status), status)
            return stop()

        notes = live.wait(seen)
        if stop():
            live.stop()
            if not live.status()["ticks"]:
                raise KeyboardInterrupt
            notes.append("stopped before its end; the log is complete")
        return notes


def run_line(status: Mapping[str, int]) -> str:
    """Return the counters of a running loop in a few words."""
    fallback = status["tail"] + status["local"]
    return (
        f"tick {status['ticks']} · missed {status['missed']} · "
        f"fallback {fallback} · episodes {status['episodes']}"
    )


def _last_words(child: Child) -> str:
    said = child.last_error()
    prefix, _, message = said.partition(": ")
    said = message if prefix.startswith("onebeat ") else said
    return said or child.status()
