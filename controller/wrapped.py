"""What a policy that changes another's answers has in common with it."""

from __future__ import annotations

from controller.interfaces import Policy
from controller.spec import Spec


class WrappedPolicy:
    """Stands for another policy in all but its answers.

    Args:
        policy: the other.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def spec(self) -> Spec:
        """The robot."""
        return self._policy.spec

    @property
    def version(self) -> str:
        """Version of the policy."""
        return self._policy.version

    @property
    def ready(self) -> bool:
        """Whether the policy can be reached."""
        return bool(getattr(self._policy, "ready", True))

    def close(self) -> None:
        """Release the policy; safe to call twice."""
        self._policy.close()
