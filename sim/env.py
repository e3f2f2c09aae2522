"""The seam between a simulated task and the plant: an environment in Gymnasium's sense."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from controller.types import Array


class Env(Protocol):
    """One task in lockstep. ``gymnasium.Env`` has this shape; no other of its members is used.

    Observations are one array, or a mapping of arrays by the names of the task's spec. Arrays
    may be views of the simulation's own memory: the plant copies them. ``info`` carries
    ``success`` (bool) where the task knows success. The limit on steps is the plant's: an
    environment's own ``truncated`` is not looked at.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; return its observation and information.

        With ``seed`` the episode is determined by it; without, the environment's own random
        stream goes on.
        """
        ...

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Apply an action for one control step.

        Returns:
            Observation, reward, terminated, truncated, information.
        """
        ...

    def close(self) -> None:
        """Release the environment."""
        ...


@runtime_checkable
class Simulated(Protocol):
    """An environment that shows its physics: what drawing, substeps and fault dumps build on.

    Attributes:
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``.
    """

    @property
    def model(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjModel``."""
        ...

    @property
    def data(self) -> Any:  # noqa: ANN401
        """The ``mujoco.MjData``."""
        ...


@runtime_checkable
class Substepped(Protocol):
    """An environment whose command can change within a control step, as on a robot.

    Attributes:
        between: called between any two physics steps of one control step; returns the action
            that acts from here on. None, as in lockstep: the whole control step is computed at
            once with the action it was given.
    """

    between: Callable[[], Array] | None


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keep off the screen what packages say on import: of other environments, of no display."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
