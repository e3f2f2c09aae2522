"""The verb that judges, publishes and takes back the versions of a live fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.cli.sources import has_success, reference, task_spec
from controller.errors import ConfigError, ControllerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from controller.interfaces import VectorPlant
    from controller.scores import Figures
    from controller.spec import Spec
    from controller.tuning.settings import PartConfig
    from controller.types import Array, VectorStep
    from policies.finetuning.settings import FinetuneConfig

COPIES = 10
"""Most copies of a task that are stepped together."""


class Stopped(ControllerError, InterruptedError):
    """The process was told to end within an episode."""


def gate(part: PartConfig, arguments: Arguments) -> int:
    """Judge candidates until learner and actors are done, or until SIGTERM."""
    import contextlib

    from controller.config import load
    from controller.keys import client_keys
    from controller.signals import StopFlag
    from policies.finetuning.gate import Gate
    from policies.finetuning.gate_links import ReplayService, servers_at
    from policies.finetuning.settings import FinetuneConfig

    config = load(FinetuneConfig, Path(part.settings))
    if config.replay.endpoint is None:
        raise ConfigError("replay.endpoint: expected the address of the replay service, got null")
    spec = _robot(config)
    keys = client_keys(config.replay.client_keys)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopFlag())
        service = ReplayService(config.replay.endpoint, spec, keys)
        stack.callback(service.close)
        stage = Stage(config, spec.task, stop)
        stack.callback(stage.close)
        servers = servers_at(part.policy_endpoint)
        for server in servers:
            stack.callback(server.close)
        work = Gate(config, service, servers, stage.score if plays(spec) else None)
        stack.callback(work.close)
        with contextlib.suppress(Stopped):
            work.run(stop)
    return 0


def _robot(config: FinetuneConfig) -> Spec:
    """Return the robot: that of the version in force, else that of the task."""
    from policies.bundle import load_bundle
    from policies.errors import BundleError

    try:
        return load_bundle(Path(config.out) / "bundles").spec
    except BundleError:
        return task_spec(config.task)


def plays(spec: Spec) -> bool:
    """Whether the simulation has the robot: its task, under the same spec."""
    try:
        return task_spec(spec.task) == spec
    except ConfigError:
        return False


class Stage:
    """Plays bundles in simulation, in this process alone; keeps its plants.

    Args:
        config: of the fine-tuning.
        task: name of the task.
        stop: asked at every step; True breaks the episodes off.
    """

    def __init__(self, config: FinetuneConfig, task: str, stop: Callable[[], bool]) -> None:
        self._config, self._task, self._stop = config, task, stop
        self._plants: dict[int, VectorPlant] = {}

    def score(self, bundle: Path, episodes: int, seed: int) -> Figures:
        """Return what the episodes of a bundle came to.

        Raises:
            Stopped: it was told to stop.
        """
        from policies.evaluation import Trial, play

        config, copies = self._config, min(COPIES, episodes)
        trial = Trial(
            task=self._task,
            episodes=episodes,
            seed=seed,
            reference=reference(self._task),
            has_success=has_success(self._task),
            engine=config.engine,
            act=config.scored,
            copies=copies,
        )
        return play(bundle, _Stoppable(self._plants_of(copies), self._stop), trial)

    def close(self) -> None:
        """Release the plants."""
        for plants in self._plants.values():
            plants.close()

    def _plants_of(self, copies: int) -> VectorPlant:
        if copies not in self._plants:
            from sim.vector import make_vector

            # One process: the other cores are the actors' and the learner's.
            self._plants[copies] = make_vector(self._task, copies, processes=1)
        return self._plants[copies]


class _Stoppable:
    """Plants that can be left in the middle of a step."""

    def __init__(self, plants: VectorPlant, stop: Callable[[], bool]) -> None:
        self._plants, self._stop = plants, stop

    @property
    def spec(self) -> Spec:
        return self._plants.spec

    @property
    def num(self) -> int:
        return self._plants.num

    def reset(self, seed: int | None = None) -> NDArray[np.float64]:
        return self._plants.reset(seed)

    def step(self, actions: Array) -> VectorStep:
        if self._stop():
            raise Stopped
        return self._plants.step(actions)

    def close(self) -> None:
        self._plants.close()
