"""Errors of learning and serving policies.

ControllerError
├── BundleError (ValueError)              a bundle is missing, damaged or of another robot
├── DownloadFailed (ConnectionError)      a dataset could not be got
└── TrainingDiverged (ArithmeticError)    a loss or a weight is no longer finite
"""

from controller.errors import ControllerError


class BundleError(ControllerError, ValueError):
    """A bundle is missing, damaged or of another robot."""


class DownloadFailed(ControllerError, ConnectionError):
    """A dataset could not be got; the message says what to do instead."""


class TrainingDiverged(ControllerError, ArithmeticError):
    """A loss or a weight is no longer finite."""
