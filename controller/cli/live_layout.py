"""What a live fine-tuning begins with: settings that make sense, and its directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.cli.sources import source_spec, task_spec
from controller.errors import ConfigError
from controller.reception import MAX_SESSIONS

if TYPE_CHECKING:
    from controller.spec import Spec
    from controller.tuning.settings import LivePlan
    from policies.bundle import Bundle
    from policies.finetuning.settings import FinetuneConfig

SEEN = 10
"""Beginnings of episodes, some of which become the golden observations of fresh weights."""


MOST_ACTORS = MAX_SESSIONS - 4
"""Learner, gate, and two that look on have a session each."""


def checked(config: FinetuneConfig, parent: Bundle | None) -> Spec:
    """Return the robot.

    Raises:
        ConfigError: settings that do not go together, or no such task.
        SpecMismatch: the parent is of another robot than the task.
    """
    from controller.ray_child import check_address, check_reach

    for name in ("updates", "seconds"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{name} is for learning from logs; live ends by minutes or steps")
    if config.minutes is None and config.steps is None:
        raise ConfigError("live=true: expected minutes or steps after which it ends")
    if config.num_actors > MOST_ACTORS:
        raise ConfigError(
            f"num_actors={config.num_actors}: one replay service has {MAX_SESSIONS} sessions; "
            f"expected at most {MOST_ACTORS}"
        )
    if config.actors is not None:
        if config.mode != "lockstep":
            raise ConfigError(
                f"actors={config.actors} is for mode=lockstep, got mode={config.mode}"
            )
        check_reach(check_address(config.actors), config.replay.endpoint)
    if parent is None and not config.task:
        raise ConfigError("task: expected the name of a task, as in --task hopper")
    spec = task_spec(task_of(config, parent))
    if parent is not None:
        parent.spec.require(spec, f"the policy {config.parent}", f"the task {spec.task}")
    elif config.learn.algorithm is None:
        raise ConfigError(
            "learn.algorithm: expected consistency_ac, diffusion_ql or sac to begin from scratch"
        )
    _check_offline(config, spec)
    _check_out(config)
    return spec


def _check_offline(config: FinetuneConfig, spec: Spec) -> None:
    """Have the offline data here before anything runs that needs them.

    Raises:
        DataError: there is no such dataset.
        SpecMismatch: it is of another robot.
    """
    if config.offline is not None:
        written = source_spec(config.offline)
        if written is not None:
            spec.require(written, f"the task {spec.task}", config.offline)


def task_of(config: FinetuneConfig, parent: Bundle | None) -> str:
    """Return the name of the task; that of the bundle where none is given."""
    return config.task or (parent.spec.task if parent else "")


def _check_out(config: FinetuneConfig) -> None:
    """Refuse to mix two fine-tunings in one directory.

    Raises:
        ConfigError: ``out`` holds one and it is not to be resumed, or the other way round.
    """
    there = (Path(config.out) / "finetune.yaml").is_file()
    if there and not config.resume:
        raise ConfigError(
            f"out: {config.out} holds a fine-tuning: resume=true goes on with it; or choose "
            "another directory"
        )
    if config.resume and not there:
        raise ConfigError(f"resume=true: out={config.out} holds no fine-tuning to go on with")


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Hold ``out`` for this fine-tuning alone.

    Raises:
        ConfigError: another one is at work there, or nothing can be written there.
    """
    from policies.disk import hold

    try:
        lock = hold(out / ".lock")
    except OSError as error:
        raise ConfigError(f"out: {out}: cannot be written to: {error.strerror or error}") from None
    if lock is None:
        raise ConfigError(f"out: {out}: another fine-tuning is at work there")
    with lock:
        yield


def lay_out(config: FinetuneConfig, spec: Spec, parent: Bundle | None, sockets: Path) -> LivePlan:
    """Write what the processes start from into ``out``, and return what the launcher needs.

    ``finetune.yaml``, the settings with every address; ``spec.json``, the robot; ``bundles``,
    with the first version as the current one, unless the fine-tuning is resumed.

    Args:
        config: what to do.
        spec: the robot.
        parent: what to start from; None for a policy of fresh weights.
        sockets: directory for addresses of this machine.
    """
    from controller.config import to_yaml
    from controller.endpoints import endpoint_for

    out = Path(config.out)
    endpoint = config.replay.endpoint or endpoint_for(sockets, "replay")
    resolved = msgspec.structs.replace(
        config,
        parent=None if parent is None else str(parent.path),
        task=task_of(config, parent),
        replay=msgspec.structs.replace(config.replay, endpoint=endpoint),
    )
    if not config.resume:
        _first_version(resolved, spec, parent)
    (out / "spec.json").write_bytes(msgspec.json.format(msgspec.json.encode(spec), indent=1))
    settings = out / "finetune.yaml"
    settings.write_text(to_yaml(resolved), encoding="utf-8")
    return _plan(resolved, settings, endpoint)


def _plan(config: FinetuneConfig, settings: Path, endpoint: str) -> LivePlan:
    from controller.settings import PolicySettings
    from controller.tuning.settings import LivePlan

    device = config.device if config.engine == "torch" else "cpu"
    return LivePlan(
        settings=settings,
        out=Path(config.out),
        task=config.task,
        replay=endpoint,
        keys=config.replay.client_keys,
        realtime=config.mode == "realtime",
        minutes=config.minutes,
        steps=config.steps,
        num_actors=config.num_actors,
        actors=config.actors,
        seed=config.seed,
        loop=config.loop,
        log=config.log,
        policy=PolicySettings(
            engine=config.engine, device=device, act=config.act, explore=config.explore
        ),
        niceness=config.niceness,
        sched_fifo=config.sched_fifo,
    )


def _first_version(config: FinetuneConfig, spec: Spec, parent: Bundle | None) -> Path:
    """Publish the version to begin with; without a parent one of fresh weights."""
    from policies.bundle import publish

    store = Path(config.out) / "bundles"
    if parent is not None:
        return publish(parent.path, store)
    from policies.finetuning.agent import make_agent, write_candidate
    from sim.vector import make_vector

    with make_vector(config.task, SEEN, seed=config.seed, processes=1) as plants:
        seen = plants.reset(config.seed)
    agent = make_agent(config, spec, None)
    return publish(write_candidate(agent, store, seen, (), {"steps": 0}, None), store)
