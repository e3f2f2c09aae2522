"""Settings of the processes that a live fine-tuning starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from controller.key_settings import NO_CLIENT_KEYS, ClientKeySettings
from controller.log_settings import LogSettings
from controller.loop_config import LoopConfig
from controller.ranges import SchedFifo
from controller.settings import PolicySettings


class PartConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process of a live fine-tuning.

    Attributes:
        settings: the fine-tuning's own settings, OUT/finetune.yaml.
        name: of an actor, under which its rows are kept.
        index: number of an actor, from 0; its episodes have other seeds than those of the others.
        out: directory of an actor; empty for OUT/actors/NAME.
        log: log that a feeder follows; empty for that of its actor.
        policy_endpoint: policy server that a gate swaps; empty for none.
        begin: of the replay service: rows will come again, though an earlier part of the
            fine-tuning had ended.
    """

    settings: str = "runs/finetune/finetune.yaml"
    name: str = "actor-0"
    index: Annotated[int, msgspec.Meta(ge=0, le=2**20)] = 0
    out: str = ""
    log: str = ""
    policy_endpoint: str = ""
    begin: bool = False


class LivePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher of a live fine-tuning needs to know of its settings.

    Attributes:
        settings: the whole settings, for the processes.
        out: directory of the fine-tuning.
        task: name of the task.
        replay: address of the replay service.
        keys: of the launcher, where that is beyond this machine.
        realtime: whether the actors keep a robot's beat; else they go as fast as they can.
        minutes: wall-clock time from the first row on, after which to end.
        steps: rows after which to end, all actors and earlier parts of the same fine-tuning
            together.
        num_actors: actors at a time.
        actors: where actors in lockstep run, where that is not this machine.
        seed: of the first actor's episodes.
        loop: control loop of an actor in real time.
        log: its log.
        policy: how its policy server acts; the address is filled in.
        niceness: of learner and gate.
        sched_fifo: of the policy server.
    """

    settings: Path
    out: Path
    task: str
    replay: str
    keys: ClientKeySettings = NO_CLIENT_KEYS
    realtime: bool = True
    minutes: float | None = None
    steps: int | None = None
    num_actors: int = 1
    actors: str | None = None
    seed: int = 0
    loop: LoopConfig = LoopConfig()
    log: LogSettings = LogSettings()
    policy: PolicySettings = PolicySettings()
    niceness: int = 10
    sched_fifo: SchedFifo = "auto"

    @property
    def bundles(self) -> Path:
        """The store of published versions."""
        return self.out / "bundles"

    def policy_at(self, endpoint: str) -> PolicySettings:
        """Return the policy of an actor in real time, at the address of its server.

        The loop's own copy, of the version in force when it began, acts while a killed server
        starts again, which on a busy machine may take longer than a robot is to stand still.
        """
        return msgspec.structs.replace(
            self.policy, bundle=str(self.bundles), endpoint=endpoint, local_replica=True
        )

    def actor(self, index: int) -> str:
        """Return the name of an actor."""
        return f"actor-{index}"

    def actor_out(self, index: int) -> Path:
        """Return the directory of an actor."""
        return self.out / "actors" / self.actor(index)
