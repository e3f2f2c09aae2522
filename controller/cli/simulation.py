"""The verbs of ``onebeat sim`` that bring a policy to a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controller.arguments import Arguments
from controller.cli.sources import open_policy
from controller.types import Array, Observation, Request

if TYPE_CHECKING:
    from sim.settings import ViewConfig
    from sim.view import Act

FOREVER_NS = 2**62


def view(config: ViewConfig, arguments: Arguments) -> int:
    """Show a task, driven at random, not at all, or by a policy."""
    from controller.display import say
    from sim.view import view as show

    act = None if config.act in ("random", "rest") else _driver(config)
    say(show(config, act), arguments.json)
    return 0


def _driver(config: ViewConfig) -> Act:
    if config.act.endswith(".npz"):
        return _behaviour(config)
    from sim.registry import task_spec

    policy = open_policy(config.act, "numpy", "cpu")
    policy.spec.require(task_spec(config.task), "the policy", "the task")

    def act(observation: Observation, tick: int) -> Array:
        chunk = policy.infer(Request(tick, config.seed, observation, 0, FOREVER_NS))
        assert chunk is not None, "a policy in this process has no deadline to miss"
        action: Array = chunk.actions[0]
        return action

    return act


def _behaviour(config: ViewConfig) -> Act:
    from controller.transitions import flatten
    from sim.generate.behaviour import load_behaviour

    behaviour = load_behaviour(config.act)
    random = np.random.default_rng(config.seed)
    return lambda observation, tick: behaviour.act(
        flatten(observation.arrays).astype(np.float64), random
    )
