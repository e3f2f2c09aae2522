"""What a policy's answer has to be, and trying a policy out before anybody depends on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.errors import ControllerError
from controller.interfaces import BatchPolicy, Clock
from controller.safety import is_finite
from controller.spec import Spec
from controller.types import ActionChunk, Array, Observation, Request
from controller.wire import MAX_HORIZON

TRIALS = 3
TRIAL_BUDGET_NS = 60_000_000_000


class NoAnswer(ControllerError, ValueError):
    """A request gets no action, or something that is no action of its robot.

    Attributes:
        code: ``nonfinite``, ``late``, ``failed`` or ``draining``.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def checked_actions(chunk: ActionChunk, tick: int, spec: Spec) -> Array:
    """Return the actions of ``chunk`` if they are (horizon, *shape), finite and for ``tick``.

    Raises:
        NoAnswer: they are not.
    """
    actions, expected = chunk.actions, spec.action
    if actions.shape[1:] != expected.shape or not 1 <= len(actions) <= MAX_HORIZON:
        raise NoAnswer(
            "failed", f"actions of shape {actions.shape}, expected (H, {expected.shape})"
        )
    if actions.dtype != expected.numpy_dtype:
        raise NoAnswer("failed", f"actions of {actions.dtype}, expected {expected.dtype}")
    if not is_finite(actions):
        raise NoAnswer("nonfinite", "the action is not finite")
    if chunk.tick != tick:
        raise NoAnswer("failed", f"an answer to tick {chunk.tick}, asked was {tick}")
    return actions


def try_out(
    policy: BatchPolicy, arrays: tuple[Array, ...], clock: Clock, batches: Iterable[int] = (1,)
) -> None:
    """Ask ``policy`` a few times about one observation: warms it up and checks its answers.

    Args:
        policy: what is tried.
        arrays: the observation.
        clock: time.
        batches: numbers of requests to ask at once; more than the policy takes are left out.

    Raises:
        NoAnswer: an answer is missing, not finite or not of the spec.
    """
    for batch in batches:
        for trial in range(TRIALS):
            if batch <= policy.max_batch:
                _try_once(policy, arrays, clock, range(trial, trial + batch))


def answers_to(policy: BatchPolicy, requests: Sequence[Request]) -> Sequence[ActionChunk | None]:
    """Return the answer to each request, a single one the way a policy without batches gives it.

    Raises:
        NoAnswer: there are not as many answers as requests.
    """
    if len(requests) == 1:
        return (policy.infer(requests[0]),)
    chunks = policy.infer_batch(requests)
    if len(chunks) != len(requests):
        raise NoAnswer("failed", f"{len(chunks)} answers to {len(requests)} requests")
    return chunks


def _try_once(
    policy: BatchPolicy, arrays: tuple[Array, ...], clock: Clock, ticks: Sequence[int]
) -> None:
    now_ns = clock.now_ns()
    observation = Observation(arrays, now_ns)
    requests = [Request(tick, 0, observation, 0, now_ns + TRIAL_BUDGET_NS) for tick in ticks]
    for request, chunk in zip(requests, answers_to(policy, requests), strict=True):
        if chunk is None:
            raise NoAnswer("failed", "no answer to a trial observation")
        checked_actions(chunk, request.tick, policy.spec)
