"""The verb ``onebeat control``."""

from __future__ import annotations

from controller.arguments import Arguments
from controller.control_settings import ControlConfig


def control(config: ControlConfig, arguments: Arguments) -> int:
    """Send one control request and show the report."""
    from controller import control as requests
    from controller.display import say
    from controller.keys import client_keys

    keys = client_keys(config.keys)
    report = requests.control(config.endpoint, config.verb, config.args, config.timeout_s, keys)
    say(report, arguments.json)
    return 0
