"""The verbs ``onebeat serve`` and ``onebeat export``."""

from __future__ import annotations

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.display import console, say
from controller.interfaces import Policy
from controller.realtime import urgent
from controller.signals import StopFlag
from policies import export as onnx_export
from policies.engine import load_policy
from policies.server import PolicyServer
from policies.settings import ServeConfig


def serve(config: ServeConfig, arguments: Arguments) -> int:
    """Answer requests until SIGTERM or Ctrl-C."""

    def load(path: str) -> Policy:
        return load_policy(path, config.engine, config.device, act=config.act)

    with StopFlag() as stop, urgent(config.sched_fifo):
        policy = load(config.bundle)
        server = PolicyServer(policy, config.endpoint, MonotonicClock(), load)
        console().print(f"serving {policy.version} of {policy.spec.task} at {config.endpoint}")
        server.run(stop)
    return 0


def export(config: onnx_export.ExportPolicyConfig, arguments: Arguments) -> int:
    """Write a policy as an ONNX file."""
    say(onnx_export.export(config), arguments.json)
    return 0
