"""Errors of the simulation.

ControllerError
└── SimError
    ├── EpisodeOver (RuntimeError)         a command came where no episode is running
    ├── ActionMismatch (ValueError)        an action is not of the plant's shape
    ├── SimulationUnstable (PlantFailed, ArithmeticError)   the physics broke down
    └── RenderUnavailable (RuntimeError)   no picture can be drawn on this machine
"""

from controller.errors import ControllerError, PlantFailed


class SimError(ControllerError):
    """Root of what only a simulation raises."""


class EpisodeOver(SimError, RuntimeError):
    """A command or a look came where no episode is running."""


class ActionMismatch(SimError, ValueError):
    """An action is not of the plant's shape."""


class SimulationUnstable(SimError, PlantFailed, ArithmeticError):
    """The physics broke down: a number is not finite, or MuJoCo gave the state up."""


class RenderUnavailable(SimError, RuntimeError):
    """No picture can be drawn on this machine."""
