"""Errors of the runtime.

ControllerError
├── ConfigError (ValueError)           a setting is unknown, of the wrong type or out of range
├── SpecMismatch (ValueError)          two sides describe different robots
├── WireError (ValueError)             bytes that are not a message of this protocol
├── Refused (ConnectionError)          the other side answered, and said no
├── PeerTimeout (TimeoutError)         the other side did not answer in time
├── EndpointInUse (OSError)            an address cannot be bound
├── PlantLost (ConnectionError)        the plant stopped sending observations
├── PlantFailed (RuntimeError)         the plant cannot go on, and says why
├── LogError (ValueError)              a file is not a run log, or is damaged beyond salvage
└── DataError (ValueError)             a dataset cannot be used as it is
"""


class ControllerError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(ControllerError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class SpecMismatch(ControllerError, ValueError):
    """Two sides describe different robots."""


class WireError(ControllerError, ValueError):
    """Bytes that are not a message of this protocol."""


class Refused(ControllerError, ConnectionError):
    """The other side answered, and said no."""


class PeerTimeout(ControllerError, TimeoutError):
    """The other side did not answer in time."""


class EndpointInUse(ControllerError, OSError):
    """An address cannot be bound."""


class PlantLost(ControllerError, ConnectionError):
    """The plant stopped sending observations."""


class PlantFailed(ControllerError, RuntimeError):
    """The plant cannot go on, and says why; a reset may revive it."""


class LogError(ControllerError, ValueError):
    """A file is not a run log, or is damaged beyond salvage."""


class DataError(ControllerError, ValueError):
    """A dataset cannot be used as it is."""
