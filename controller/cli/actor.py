"""The verb that is an actor in lockstep of a live fine-tuning."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.arguments import Arguments
from controller.errors import ConfigError

if TYPE_CHECKING:
    from controller.feed.client import ReplayClient
    from controller.interfaces import Policy
    from controller.settings import RunConfig
    from controller.spec import Spec
    from controller.tuning.lives import Life
    from controller.tuning.settings import PartConfig
    from policies.finetuning.settings import FinetuneConfig


def actor(config: PartConfig, arguments: Arguments) -> int:
    """Step a task under the version in force until SIGTERM, and send the rows."""
    from controller.cli.sources import open_plant
    from controller.config import load, to_yaml
    from controller.display import say
    from controller.signals import StopFlag
    from controller.tuning.actor import act
    from controller.tuning.courier import Courier
    from controller.tuning.lives import begin_life
    from policies.engine import load_policy
    from policies.finetuning.settings import FinetuneConfig

    settings = load(FinetuneConfig, Path(config.settings))
    out = Path(config.out or Path(settings.out) / "actors" / config.name)
    run = run_of(settings, config, begin_life(out), out)
    (out / "run.yaml").write_text(to_yaml(run), encoding="utf-8")
    plant = open_plant(run.task, run.seed, run.plant.faults, out)
    life = uuid.uuid4().hex
    client = _client(settings, plant.spec, f"{config.name}/{life}")

    def load_here(path: str) -> Policy:
        return load_policy(path, run.policy.engine, act=run.policy.act, max_batch=1)

    with StopFlag() as stop:
        courier = Courier(client, out / "bundles", stop)
        try:
            act(run, plant, courier, load_here, stop, run=life)
        finally:
            client.close()
            plant.close()
    say({"paused_s": round(courier.paused_s, 3), "unsent": courier.unsent}, arguments.json)
    return 0


def run_of(settings: FinetuneConfig, part: PartConfig, life: Life, out: Path) -> RunConfig:
    """Return the run that a life of an actor is; its bundle is the one in force when it begins.

    Raises:
        ConfigError: the settings name no task.
    """
    from controller.settings import PolicySettings, RunConfig

    if not settings.task:
        raise ConfigError(f"{part.settings}: task: expected the name of a task, got nothing")
    explore = settings.explore
    return RunConfig(
        task=settings.task,
        mode="lockstep",
        seconds=None,
        seed=life.seed(settings.seed, part.index),
        out=str(out),
        policy=PolicySettings(
            bundle=str(Path(settings.out) / "bundles"),
            engine=settings.engine,
            act=settings.act,
            explore=msgspec.structs.replace(explore, offset=explore.offset + life.ticks),
        ),
        loop=settings.loop,
        log=settings.log,
    )


def _client(settings: FinetuneConfig, spec: Spec, name: str) -> ReplayClient:
    """Return the client of the replay service under whose name a life's rows are kept."""
    from controller.clock import MonotonicClock
    from controller.feed.client import ReplayClient
    from controller.keys import client_keys

    endpoint = settings.replay.endpoint
    if endpoint is None:
        raise ConfigError("replay.endpoint: expected the address of the replay service, got none")
    keys = client_keys(settings.replay.client_keys)
    return ReplayClient(endpoint, spec, MonotonicClock(), name, keys)
