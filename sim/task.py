"""What a task is: static facts, and how to build its environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from controller.spec import Spec
from sim.d4rl import scores
from sim.env import Env


@dataclass(frozen=True)
class Task:
    """One task. Looking at it builds nothing and imports no simulator.

    Attributes:
        name: its name.
        family: tasks of one family come from one source and are built alike.
        description: one line.
        episode_steps: steps after which an episode is cut.
        make_spec: returns its spec, without building it.
        make_env: builds its environment from options by keyword; ``signature`` of it lists them.
        physics_steps: physics steps of one control step.
        has_success: whether ``info["success"]`` means anything.
        scored_as: D4RL dataset whose reference returns apply, empty for none.
        datasets: names of the published D4RL datasets that fit it.
    """

    name: str
    family: str
    description: str
    episode_steps: int
    make_spec: Callable[[], Spec]
    make_env: Callable[..., Env]
    physics_steps: int = 1
    has_success: bool = False
    scored_as: str = ""
    datasets: tuple[str, ...] = ()

    @property
    def reference(self) -> tuple[float, float] | None:
        """Returns of score 0 and score 100."""
        return scores.reference(self.scored_as)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options of its environment."""
        return tuple(inspect.signature(self.make_env).parameters)

    def spec(self) -> Spec:
        """Return what its plant looks like."""
        return self.make_spec()
