"""One running system that a fault is injected into."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from controller.control import control
from controller.endpoints import endpoint_for
from controller.errors import ControllerError
from controller.faults.settings import FaultTrialsConfig
from controller.keeper import Keeper
from controller.launch import LiveRun, policy_server
from controller.process import Child, RuntimeDirectory, Supervisor
from controller.settings import PolicySettings, RunConfig

MIDDLE = "controller.faults.middle"


class Stage:
    """What a fault may lay its hands on.

    Attributes:
        config: settings of the trials.
        live: the run.
        middle: process between the loop and the policy server; None where there is none.
        resources: closed at the end of the trial.
        notes: what was seen.
        complaints: what should not have been.
    """

    def __init__(self, config: FaultTrialsConfig, live: LiveRun, middle: Child | None) -> None:
        self.config, self.live, self.middle = config, live, middle
        self.resources = ExitStack()
        self.notes: list[str] = []
        self.complaints: list[str] = []

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process of the run."""
        os.kill(self.live.child(name).pid, number)

    def recorder_pids(self) -> list[int]:
        """Return the process that writes the log, and the guard that starts another one."""
        loop = self.live.child("control loop").pid
        for guard in _children(loop):
            if b"controller.recording" in Path(f"/proc/{guard}/cmdline").read_bytes():
                return [*_children(guard), guard]
        raise ControllerError("the recorder of the run was not found")

    def expect_refusal(self, verb: str, args: dict[str, str]) -> None:
        """Ask the policy server for what it has to refuse."""
        try:
            control(self.live.policy_endpoint, verb, args, timeout_s=20.0)
        except ControllerError as error:
            self.notes.append(f"refused: {str(error).partition(': ')[2][:120]}")
        else:
            self.complaints.append(f"{verb} {' '.join(args.values())} was not refused")


@contextmanager
def stage(
    config: FaultTrialsConfig, out: Path, fault: str, seconds: float, loop: tuple[str, ...]
) -> Iterator[Stage]:
    """Start a system, with a process in the middle for ``fault`` if that is not empty.

    Args:
        config: settings of the trials.
        out: directory of the run.
        fault: what the process in the middle does.
        seconds: length of the run.
        loop: program that is the control loop; empty for the usual one.
    """
    policy = PolicySettings(bundle=config.bundle, local_replica=config.local_replica)
    with ExitStack() as resources:
        middle = None
        if fault:
            directory = resources.enter_context(RuntimeDirectory())
            supervisor = resources.enter_context(Supervisor())
            front, back = (endpoint_for(directory, name) for name in ("front", "back"))
            Keeper(supervisor, lambda: policy_server(policy, back, config.sched_fifo))
            middle = supervisor.start(_middle(config, front, back, fault))
            policy = PolicySettings(
                bundle=config.bundle, local_replica=config.local_replica, endpoint=front
            )
        run = RunConfig(
            task=config.task or "",
            seconds=seconds,
            seed=config.seed,
            out=str(out),
            policy=policy,
            loop=config.loop(),
        )
        live = resources.enter_context(LiveRun(run, loop=loop))
        made = Stage(config, live, middle)
        with made.resources:
            yield made


def _middle(config: FaultTrialsConfig, front: str, back: str, fault: str) -> Child:
    numbers = (str(config.mutations), str(config.seed))
    words = [sys.executable, "-P", "-m", MIDDLE, front, back, fault, *numbers]
    return Child(words, "process in the middle")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def ends_within(live: LiveRun, seconds: float) -> bool:
    """Return whether the run ends within ``seconds``; a run that hangs is ended."""
    until = time.monotonic() + seconds
    while live.running:
        if time.monotonic() > until:
            live.child("control loop").kill()
            return False
        time.sleep(0.05)
    return True
