"""The verb with which a person takes over from a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.arguments import Arguments
    from controller.teleop_settings import TeleopConfig


def teleop(config: TeleopConfig, arguments: Arguments) -> int:
    """Drive by keyboard until the person leaves."""
    from controller.teleop_keyboard import drive

    drive(config)
    return 0
