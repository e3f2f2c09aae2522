"""The verbs ``onebeat serve`` and ``onebeat export``."""

from __future__ import annotations

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.display import console, say
from controller.interfaces import Policy
from controller.keys import server_keys
from controller.realtime import urgent
from controller.signals import StopFlag
from policies import export as onnx_export
from policies.engine import load_policy
from policies.serving.server import PolicyServer
from policies.serving.swap import Steps
from policies.settings import ServeConfig


def serve(config: ServeConfig, arguments: Arguments) -> int:
    """Answer requests until SIGTERM or Ctrl-C."""

    def load(path: str, steps: Steps) -> Policy:
        return load_policy(path, config.engine, config.device, act=config.act, step=steps)

    clock = MonotonicClock()
    with StopFlag() as stop, urgent(config.sched_fifo):
        policies = {name: load(path, Steps(clock)) for name, path in config.bundles.items()}
        server = PolicyServer(
            policies,
            config.endpoint,
            clock,
            load,
            keys=server_keys(config.keys),
            max_rate_hz=config.max_rate_hz,
        )
        for name, policy in policies.items():
            about = f"{policy.version} of {policy.spec.task}"
            console().print(f"serving {about} as {name} at {server.endpoint}")
        server.run(stop, config.drain_s)
    return 0


def export(config: onnx_export.ExportPolicyConfig, arguments: Arguments) -> int:
    """Write a policy as an ONNX file."""
    say(onnx_export.export(config), arguments.json)
    return 0
