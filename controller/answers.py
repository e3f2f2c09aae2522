"""What a policy gives, checked: nothing that it does gets past this as an exception.

``AssertionError`` alone passes: it is a bug of ours.
"""

from __future__ import annotations

from controller.errors import PeerTimeout, Refused
from controller.interfaces import Policy
from controller.notices import Notify
from controller.safety import fits, is_finite
from controller.spec import ArraySpec
from controller.types import ActionChunk, Reason, Request


def ask(
    policy: Policy, request: Request, action: ArraySpec, who: str, notify: Notify
) -> tuple[ActionChunk | None, Reason]:
    """Return a policy's answer, or None and why there is none that can be used.

    Args:
        policy: whom to ask; waits as long as it does.
        request: the question.
        action: what a row of the answer must be like.
        who: kind of the event that tells what went wrong.
        notify: takes that event.
    """
    try:
        chunk = policy.infer(request)
    except AssertionError:
        raise
    except Exception as error:  # A policy is foreign code, and every tick needs a command.
        notify(who, described(error))
        return None, reason_of(error)
    if chunk is None:
        reachable = policy.version and getattr(policy, "ready", True)
        return None, Reason.LATE if reachable else Reason.UNREACHABLE
    fault, reason = fault_of(chunk, request.tick, action)
    if reason:
        notify(who, fault)
        return None, reason
    return chunk, Reason.NONE


def fault_of(chunk: ActionChunk, tick: int, action: ArraySpec) -> tuple[str, Reason]:
    """Return what is wrong with an answer to ``tick``; a chunk that is no action is refused."""
    if chunk.tick != tick:
        return f"answer to tick {chunk.tick}, expected {tick}", Reason.LATE
    if not fits(chunk.actions, action):
        return (
            f"answer of shape {list(chunk.actions.shape)} {chunk.actions.dtype}, expected "
            f"[horizon, {', '.join(map(str, action.shape))}] {action.dtype}"
        ), Reason.REFUSED
    if not is_finite(chunk.actions):
        return "answer is not finite", Reason.NONFINITE
    return "", Reason.NONE


def reason_of(error: Exception) -> Reason:
    """Return the reason that stands for an exception of a policy."""
    if isinstance(error, Refused):
        return Reason.REFUSED
    if isinstance(error, (PeerTimeout, TimeoutError)):
        return Reason.LATE
    if isinstance(error, OSError):
        return Reason.UNREACHABLE
    return Reason.REFUSED


def described(error: Exception) -> str:
    """Return an exception as one line for people."""
    return f"{type(error).__name__}: {error}"
