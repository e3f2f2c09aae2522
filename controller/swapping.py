"""A policy in this process that another version can take the place of, between two ticks."""

from __future__ import annotations

import time
from collections.abc import Callable

from controller.answers import described
from controller.interfaces import Policy
from controller.notices import Notify
from controller.spec import Spec
from controller.types import ActionChunk, Request

Load = Callable[[str], Policy]
"""Makes a policy from the path of its bundle."""


class SwappingPolicy:
    """Answers with the version that was put in last. Not for two threads at once.

    Args:
        policy: the first version.
        load: makes a policy from a path; any exception of it but ``AssertionError`` leaves the
            version that is in.
        notify: takes (kind, detail) of a version that could not be put in, once per path.

    Attributes:
        swaps: versions put in after the first.
        last_ms: how long the last one took to load and put in.
    """

    def __init__(self, policy: Policy, load: Load, notify: Notify) -> None:
        self._policy, self._load, self._notify = policy, load, notify
        self._spec = policy.spec
        self._failed: set[str] = set()
        self.swaps = 0
        self.last_ms = 0.0

    @property
    def spec(self) -> Spec:
        """The robot."""
        return self._spec

    @property
    def version(self) -> str:
        """Version that answers the next request."""
        return self._policy.version

    def infer(self, request: Request) -> ActionChunk | None:
        """Ask the version that is in."""
        return self._policy.infer(request)

    def change(self, path: str) -> bool:
        """Put in the policy at ``path``; return whether it is in.

        Takes as long as loading does. A path that failed before is not tried again.
        """
        if path in self._failed:
            return False
        begun_ns = time.perf_counter_ns()
        try:
            policy = self._load(path)
            try:
                self._spec.require(policy.spec, "the plant", path)
            except Exception:
                policy.close()
                raise
        except AssertionError:
            raise
        except Exception as error:  # A bundle may be wrong in any way; the run goes on without it.
            self._failed.add(path)
            self._notify("policy", f"{path} was not put in: {described(error)}")
            return False
        self._policy, before = policy, self._policy
        before.close()
        self.swaps += 1
        self.last_ms = (time.perf_counter_ns() - begun_ns) / 1e6
        return True

    def close(self) -> None:
        """Release the version that is in; safe to call twice."""
        self._policy.close()
