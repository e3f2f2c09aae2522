"""Bringing a new policy up beside the one that serves: load, compare, try out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np

from controller.errors import ControllerError
from controller.interfaces import Clock, Policy
from controller.spec import Spec
from controller.types import ActionChunk, Array, Observation, Request
from controller.wire import MAX_HORIZON, one_line

TRIALS = 3
TRIAL_BUDGET_NS = 60_000_000_000
SWITCH_INTERVAL_S = 0.0005
"""How long the loading thread may keep the interpreter from the serving one; 5 ms by default."""


class BadAnswer(ControllerError, ValueError):
    """A policy answered with something that is no action of its robot.

    Attributes:
        code: ``nonfinite`` or ``failed``.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def checked_actions(chunk: ActionChunk, tick: int, spec: Spec) -> Array:
    """Return the actions of ``chunk`` if they are (horizon, *shape), finite and for ``tick``.

    Raises:
        BadAnswer: they are not.
    """
    actions, expected = chunk.actions, spec.action
    if actions.shape[1:] != expected.shape or not 1 <= len(actions) <= MAX_HORIZON:
        raise BadAnswer(
            "failed", f"actions of shape {actions.shape}, expected (H, {expected.shape})"
        )
    if actions.dtype != expected.dtype:
        raise BadAnswer("failed", f"actions of {actions.dtype}, expected {expected.dtype}")
    if not np.isfinite(actions).all():
        raise BadAnswer("nonfinite", "the action is not finite")
    if chunk.tick != tick:
        raise BadAnswer("failed", f"an answer to tick {chunk.tick}, asked was {tick}")
    return actions


def try_out(policy: Policy, arrays: tuple[Array, ...], clock: Clock) -> None:
    """Ask ``policy`` a few times about one observation: warms it up and checks its answers.

    Raises:
        BadAnswer: an answer is missing, not finite or not of the spec.
    """
    for tick in range(TRIALS):
        now_ns = clock.now_ns()
        observation = Observation(arrays, now_ns)
        chunk = policy.infer(Request(tick, 0, observation, 0, now_ns + TRIAL_BUDGET_NS))
        if chunk is None:
            raise BadAnswer("failed", "no answer to a trial observation")
        checked_actions(chunk, tick, policy.spec)


class Candidate:
    """A policy on its way into service, loaded and tried out in a thread of its own.

    Args:
        load: makes a policy from a path.
        path: what to load.
        spec: the robot it has to be for.
        arrays: an observation to try it on.
        clock: time.

    Attributes:
        path: what is loaded.
        policy: the result; None until it is ready, or when it failed.
        reason: one line on why it failed; empty when it did not.
        load_ms: how long it took.
    """

    def __init__(
        self,
        load: Callable[[str], Policy],
        path: str,
        spec: Spec,
        arrays: tuple[Array, ...],
        clock: Clock,
    ) -> None:
        self.path = path
        self.policy: Policy | None = None
        self.reason = ""
        self.load_ms = 0.0
        self._load, self._spec, self._arrays, self._clock = load, spec, arrays, clock
        self._thread = threading.Thread(target=self._run, name="candidate", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it is ready or has failed."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        began_ns = self._clock.now_ns()
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_INTERVAL_S, interval_s))
        try:
            self.policy = self._bring_up()
        except BaseException as error:  # A bad bundle must never take the server down.
            self.reason = one_line(f"{type(error).__name__}: {error}")
        finally:
            sys.setswitchinterval(interval_s)
        self.load_ms = (self._clock.now_ns() - began_ns) / 1e6

    def _bring_up(self) -> Policy:
        policy = self._load(self.path)
        try:
            self._spec.require(policy.spec, "the server", self.path)
            try_out(policy, self._arrays, self._clock)
        except BaseException:
            policy.close()
            raise
        return policy
