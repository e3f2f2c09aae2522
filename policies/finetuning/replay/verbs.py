"""The hidden verb ``onebeat finetune replay``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.config import load
from controller.display import console
from controller.errors import ConfigError
from controller.keys import server_keys
from controller.signals import StopFlag
from controller.spec import Spec
from controller.tuning.settings import PartConfig
from policies.bundle import read_manifest, resolve
from policies.finetuning.replay.limiter import Limiter
from policies.finetuning.replay.service import ReplayService
from policies.finetuning.replay.store import Places, Store
from policies.finetuning.settings import FinetuneConfig

SPEC = "spec.json"
"""The robot of a fine-tuning, in its directory."""


def replay(config: PartConfig, arguments: Arguments) -> int:
    """Keep rows and hand out batches until SIGTERM or Ctrl-C."""
    del arguments
    finetune = load(FinetuneConfig, Path(config.settings))
    settings, learn = finetune.replay, finetune.learn
    if settings.endpoint is None:
        raise ConfigError(
            f"{config.settings}: replay.endpoint: expected an address, as in "
            "replay.endpoint=ipc://PATH; onebeat finetune --live fills it in"
        )
    if settings.capacity < learn.batch:
        raise ConfigError(
            f"replay.capacity: {settings.capacity} rows, expected at least learn.batch, "
            f"{learn.batch}"
        )
    spec = spec_of(finetune)
    with StopFlag() as stop:
        places = Places(Path(finetune.out) / "replay", settings.capacity)
        store = Store(spec, places, finetune.seed)
        if config.begin:
            store.progress.finished = False
        service = ReplayService(
            store,
            spec,
            Limiter(learn.updates_per_step, learn.warmup_steps, settings.slack),
            settings.endpoint,
            MonotonicClock(),
            save_every_s=settings.save_every_s,
            keys=server_keys(settings.server_keys),
        )
        rows = len(store.ring)
        console().print(f"replay of {spec.task}, {rows} rows, at {service.endpoint}")
        service.run(stop)
    return 0


def spec_of(config: FinetuneConfig) -> Spec:
    """Return the robot of a fine-tuning: what its directory says, else its parent's.

    Raises:
        ConfigError: neither says.
        BundleError: the parent cannot be read.
    """
    file = Path(config.out) / SPEC
    try:
        return msgspec.json.decode(file.read_bytes(), type=Spec)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not the spec of a robot: {error}") from error
    if config.parent is None:
        raise ConfigError(f"{file}: is missing, and there is no parent: expected one of the two")
    return read_manifest(resolve(config.parent)).spec
