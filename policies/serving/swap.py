"""Bringing a new policy up beside the one that serves: load, compare, try out, step by step."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from controller.interfaces import BatchPolicy, Clock, Policy
from controller.spec import Spec
from controller.types import Array
from controller.wire import one_line
from policies.serving.one_by_one import batched
from policies.serving.trials import try_out

SWITCH_INTERVAL_S = 0.0005
"""How long the loading thread may keep the interpreter from the serving one; 5 ms by default."""


class Steps:
    """The steps of a change, with how long each took and how it ended.

    Use: ``with steps("hash"): ...``. A step that raises ends the change.

    Args:
        clock: time.

    Attributes:
        done: ``{"name", "ms", "ok", "detail"}`` of each step that ended.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.done: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Do one step."""
        began_ns = self._clock.now_ns()
        detail = "it was broken off"
        try:
            yield
            detail = ""
        except BaseException as error:
            detail = one_line(f"{type(error).__name__}: {error}")
            raise
        finally:
            ms = (self._clock.now_ns() - began_ns) / 1e6
            self.done.append({"name": name, "ms": ms, "ok": not detail, "detail": detail})

    @property
    def failed(self) -> str:
        """Name of the step that failed; empty where none did."""
        return next((step["name"] for step in self.done if not step["ok"]), "")


Load = Callable[[str, Steps], Policy]
"""Makes a policy from the path of a bundle, step by step."""


@dataclass(frozen=True)
class Post:
    """What a new policy has to be fit for.

    Attributes:
        spec: the robot.
        arrays: an observation to try it on.
        batches: numbers of requests that it will be asked at once.
    """

    spec: Spec
    arrays: tuple[Array, ...]
    batches: tuple[int, ...] = (1,)


class Candidate:
    """A policy on its way into service, loaded and tried out in a thread of its own.

    Args:
        load: makes a policy from a path.
        path: what to load.
        post: what it has to be fit for.
        clock: time.

    Attributes:
        path: what is loaded.
        steps: what was done, complete once :attr:`done`.
        policy: the result; None until it is ready, or when it failed.
        reason: one line on why it failed; empty when it did not.
        load_ms: how long it took.
    """

    def __init__(self, load: Load, path: str, post: Post, clock: Clock) -> None:
        self.path, self.steps = path, Steps(clock)
        self.policy: BatchPolicy | None = None
        self.reason = ""
        self.load_ms = 0.0
        self._load, self._post, self._clock = load, post, clock
        self._thread = threading.Thread(target=self._run, name="candidate", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it is ready or has failed."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        began_ns = self._clock.now_ns()
        _give_way()
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_INTERVAL_S, interval_s))
        try:
            self.policy = self._bring_up()
        except BaseException as error:  # A bad bundle must never take the server down.
            failed = f"{self.steps.failed}: " if self.steps.failed else ""
            self.reason = one_line(f"{failed}{type(error).__name__}: {error}")
        finally:
            sys.setswitchinterval(interval_s)
        self.load_ms = (self._clock.now_ns() - began_ns) / 1e6

    def _bring_up(self) -> BatchPolicy:
        steps, post = self.steps, self._post
        with steps("load"):
            loaded = self._load(self.path, steps)
        try:
            with steps("spec"):
                post.spec.require(loaded.spec, "the server", self.path)
            policy = batched(loaded, self._clock)
            with steps("answers"):
                try_out(policy, post.arrays, self._clock)
            with steps("warm up"):
                try_out(policy, post.arrays, self._clock, post.batches)
        except BaseException:
            loaded.close()
            raise
        return policy


def _give_way() -> None:
    """Let the serving thread go before this one, but no other process, where it is urgent.

    At the same priority the serving thread waits for a core until this one has done its work:
    measured at 200 Hz, the longest gap between answers was 29 ms then, and is 1.2 ms now. With
    no priority, others would put this one aside while it holds the interpreter.
    """
    priority = os.sched_getparam(0).sched_priority
    if priority > 1:
        with contextlib.suppress(OSError):
            policy = os.sched_getscheduler(0)
            os.sched_setscheduler(0, policy, os.sched_param(priority - 1))
