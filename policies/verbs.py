"""The verb ``onebeat serve``."""

from __future__ import annotations

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.display import console
from controller.interfaces import Policy
from controller.realtime import urgent
from controller.signals import StopFlag
from policies.engine import load_policy
from policies.server import PolicyServer
from policies.settings import ServeConfig


def serve(config: ServeConfig, arguments: Arguments) -> int:
    """Answer requests until SIGTERM or Ctrl-C."""

    def load(path: str) -> Policy:
        return load_policy(path, config.engine, config.device)

    with StopFlag() as stop, urgent(config.sched_fifo):
        policy = load(config.bundle)
        server = PolicyServer(policy, config.endpoint, MonotonicClock(), load)
        console().print(f"serving {policy.version} of {policy.spec.task} at {config.endpoint}")
        server.run(stop)
    return 0
