"""The process that learns in a live fine-tuning: a killed one goes on from its saved state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.config import load
from controller.errors import ConfigError
from controller.feed.client import ReplayClient
from controller.interfaces import Clock
from controller.keys import client_keys
from controller.signals import StopFlag
from controller.spec import Spec
from controller.transitions import Transitions
from controller.tuning.settings import PartConfig
from policies.bundle import load_bundle
from policies.data.open import open_dataset
from policies.finetuning.agent import Agent, make_agent
from policies.finetuning.batches import Encoder, Mixer, Offline
from policies.finetuning.course import Course, Source
from policies.finetuning.improving import require_changed
from policies.finetuning.rules import Rules
from policies.finetuning.settings import FinetuneConfig
from policies.finetuning.workplace import Place, offline_entry
from policies.learning import RewardSettings
from policies.stopwatch import torch_settings
from policies.table import Table, require_robot
from policies.train_state import exclusive, read_state

NAME = "learner"
"""Of the client."""


def learner(part: PartConfig, arguments: Arguments) -> int:
    """Learn until the service says that no more rows come, or until SIGTERM."""
    config = load(FinetuneConfig, Path(part.settings))
    clock = MonotonicClock()
    with StopFlag() as stop:
        spec = _robot(config)
        client = ReplayClient(
            _endpoint(config), spec, clock, NAME, client_keys(config.replay.client_keys)
        )
        try:
            learn(config, spec, client, clock, stop)
        finally:
            client.close()
    return 0


def learn(
    config: FinetuneConfig,
    spec: Spec,
    source: Source,
    clock: Clock,
    should_stop: Callable[[], bool],
) -> Course:
    """Learn from ``source``, going on from the state that ``config.out`` holds, if it does.

    Args:
        config: what to do.
        spec: the robot.
        source: where rows are drawn.
        clock: measures, and waits.
        should_stop: asked after every update.

    Returns:
        The course, at its end.

    Raises:
        BundleError: the parent cannot be improved, or the state is of another fine-tuning.
        ConfigError: it diverged before, with these very settings.
        DataError: the offline data are of another robot.
        TrainingDiverged: a number is not finite.
    """
    out = Path(config.out)
    require_changed(out, config.learn)
    offline = None
    if config.offline is not None:
        offline = open_dataset(config.offline, spec).transitions
    parent = load_bundle(config.parent) if config.parent is not None else None
    with exclusive(Place(out).learner), torch_settings(config.seed, config.threads):
        course = _course(config, make_agent(config, spec, parent), offline, source, clock)
        saved = read_state(course.place.learner)
        if saved is not None:
            course.restore(saved)
        course.run(should_stop)
    return course


def _course(
    config: FinetuneConfig,
    agent: Agent,
    offline: Transitions | None,
    source: Source,
    clock: Clock,
) -> Course:
    rules, generator = Rules(config.rows), agent.learner.generator
    drawn, entry = None, None
    if offline is not None:
        drawn, entry = offline_draws(agent, offline, config.device), offline_entry(offline)
    mixer = Mixer(
        Encoder(source.layout, agent.codec, config.device),
        rules,
        drawn,
        config.learn.offline_share,
        config.learn.batch,
        generator,
    )
    return Course(config, agent, mixer, rules, source, clock, entry)


def offline_draws(agent: Agent, data: Transitions, device: str) -> Offline:
    """Return the draws from offline data of the agent's robot, its rewards as they are.

    Raises:
        DataError: of another robot, or not finite.
    """
    require_robot(data, agent.spec)
    table = Table(data, agent.codec, RewardSettings(), device)
    return Offline(table, agent.learner.generator)


def _robot(config: FinetuneConfig) -> Spec:
    """Return the robot: that of the bundle, or, from scratch, of ``OUT/spec.json``.

    Raises:
        ConfigError: neither is there.
    """
    if config.parent is not None:
        return load_bundle(config.parent).spec
    file = Place(Path(config.out)).spec
    try:
        return msgspec.json.decode(file.read_bytes(), type=Spec)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file}: expected the robot, as there is no parent: {error}") from None


def _endpoint(config: FinetuneConfig) -> str:
    if config.replay.endpoint is None:
        raise ConfigError("replay.endpoint: expected the address of the replay service, got null")
    return config.replay.endpoint
