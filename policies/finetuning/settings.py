"""Settings of fine-tuning, from logs and live. Reading them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.explore_settings import NO_EXPLORATION, ExploreSettings
from controller.key_settings import (
    NO_CLIENT_KEYS,
    NO_SERVER_KEYS,
    ClientKeySettings,
    ServerKeySettings,
)
from controller.log_settings import LogSettings
from controller.loop_config import LoopConfig
from controller.ranges import (
    Count,
    Device,
    Engine,
    Fraction,
    NonNegative,
    Positive,
    SchedFifo,
    Seed,
)
from policies.learning import Averaging, Step, ValueSettings
from policies.model import CriticSettings, NetworkSettings

OnlineAlgorithm = Literal["consistency_ac", "diffusion_ql", "sac"]
"""``sac`` with a layer-normalised ensemble and half of each batch offline is RLPD (Ball et al.
2023)."""
Use = Literal["imitate", "value", "drop"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class RowRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the rows of a log teach, by whose command they hold.

    ``imitate``: critics learn from the row and the policy imitates its action; ``value``: critics
    learn from it alone; ``drop``: nobody does.

    Attributes:
        policy: the policy's own commands, at most clipped, slowed or blended.
        human: those of a person who had taken over.
        fallback: the safe command, held or latched.
        explored: actions drawn to explore.
        unapplied: rows of which nobody knows what command the plant made its step with.
    """

    policy: Use = "imitate"
    human: Use = "imitate"
    fallback: Use = "value"
    explored: Use = "value"
    unapplied: Use = "drop"


class LearnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a policy is improved: L = ``imitation`` L_c + ``eta`` L_q, and its critics.

    Attributes:
        algorithm: null for that of the bundle.
        batch: rows per update.
        offline_share: share of a batch that comes from the offline data, where there are any.
        updates_per_step: updates that each new row allows (UTD, replay ratio). Several are done
            in a row where it is above 1.
        actor_every: updates of the critics for each of the policy.
        warmup_steps: rows under the parent before the first update.
        critic_updates: updates of the critics alone before the policy moves for the first time;
            done on the offline data before any row comes, where there are offline data.
        lesson_updates: the first of those of the critics, in which fresh ones learn the values
            that the bundle's have, where those are of another shape and so cannot go on.
        actor_rate: learning rate of the policy.
        critic_rate: of the critics; also that of the temperature of sac.
        imitation: weight of the imitation loss; 0 for none.
        eta: weight of L_q.
        q_loss: see ``improve.q_loss`` of ``onebeat train``.
        steps: network evaluations behind an action in training; null for those it is served with.
        critic: shape of the critics. Those of the bundle go on learning where they have it;
            null for theirs, or for two of (256, 256, 256) where there are none.
        value: how the critics learn; its ``learning_rate`` and ``decay`` are not used here.
        subset: critics of the ensemble, drawn anew for each update, that make a TD target
            (Chen et al. 2021, REDQ); 0 for all.
        slow: the average of the policy that acts in the TD target.
        served: the average of the weights that is published.
        grad_clip: largest norm of each network's gradient; null for no limit.
        network: of sac from scratch: ``hidden``; of the others from scratch, all.
        temperature: of sac: weight of the entropy, kept; null learns it.
        compile: fuse the operations of an update with torch.compile, on a CPU; needs a C++
            compiler and takes half a minute at the start.
    """

    algorithm: OnlineAlgorithm | None = None
    batch: Count = 256
    offline_share: Share = 0.5
    updates_per_step: Positive = 1.0
    actor_every: Count = 1
    warmup_steps: Step = 1_000
    critic_updates: Step = 2_000
    lesson_updates: Step = 2_000
    actor_rate: Positive = 1e-4
    critic_rate: Positive = 3e-4
    imitation: NonNegative = 1.0
    eta: NonNegative = 1.0
    q_loss: Literal["mean", "coin", "raw"] = "mean"
    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    critic: CriticSettings | None = CriticSettings(count=4, hidden=(256, 256), layer_norm=True)
    value: ValueSettings = ValueSettings()
    subset: Annotated[int, msgspec.Meta(ge=0, le=100)] = 2
    slow: Averaging = Averaging(decay=0.995)
    served: Averaging = Averaging(decay=0.995)
    grad_clip: Positive | None = 1.0
    network: NetworkSettings = NetworkSettings()
    temperature: Positive | None = None
    compile: bool = False


class ReplaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The replay service.

    Attributes:
        endpoint: address that actors and learner use; null for one on this machine.
        capacity: newest rows that are kept.
        slack: updates by which the learner may be ahead of what the rows allow, and by which
            actors in lockstep may be ahead of the learner before they pause.
        save_every_s: time between two writings of what a killed service goes on from.
        server_keys: for an endpoint beyond this machine.
        client_keys: of actors and learner that use it.
    """

    endpoint: str | None = None
    capacity: Count = 1_000_000
    slack: Count = 64
    save_every_s: Positive = 2.0
    server_keys: ServerKeySettings = NO_SERVER_KEYS
    client_keys: ClientKeySettings = NO_CLIENT_KEYS


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a new version is published, and when it is taken back.

    Attributes:
        on: judge new versions; without it each is published at once and nothing is taken back.
        every: updates between two new versions.
        distance: mean distance of a new version's actions from those of the version in force
            that it may have on the held-out rows, as a share of the action's range.
        q_drop: how much less its mean Q on the held-out rows may be than that of the version
            in force, both by the new critics, as a share of the latter's size.
        at_limit: share of its actions on the held-out rows that may be at their limits beyond
            that of the version in force.
        sim_episodes: episodes in simulation that a new version must do, where the task has one;
            0 for none.
        sim_drop: how much less than the parent's return a new version's may be there, as a
            share of the parent's size.
        score_every: environment steps between two scores for the learning curve; 0 for none.
        score_episodes: episodes of each.
        window: episodes on the robot whose mean return is watched.
        margin: how far below the parent's mean return it may fall, as a share of the parent's
            size, before the parent comes back; it must be three standard errors as well.
        patience: candidates refused in a row after which the learner begins again at the version
            in force, which it has left too far behind; 0 for never.
        keep: newest published versions, and refused candidates, to keep on the disk beside the
            first, the last good one and the one in force; 0 for all, and ten.
    """

    on: bool = True
    every: Count = 1_000
    distance: Positive = 0.25
    q_drop: NonNegative = 0.1
    at_limit: NonNegative = 0.2
    sim_episodes: Annotated[int, msgspec.Meta(ge=0)] = 5
    sim_drop: NonNegative = 0.1
    score_every: Annotated[int, msgspec.Meta(ge=0)] = 5_000
    score_episodes: Count = 10
    window: Count = 10
    margin: NonNegative = 0.2
    patience: Annotated[int, msgspec.Meta(ge=0)] = 10
    keep: Annotated[int, msgspec.Meta(ge=0)] = 0


class FinetuneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Improve a policy: from the logs of its runs, or live, while it runs.

    Attributes:
        parent: bundle, or store of bundles, to start from; null begins from scratch (live).
        logs: run logs to learn from, or directories of runs.
        offline: dataset whose rows are mixed in: a file or a published name; null for none.
        out: directory of the fine-tuning: the new versions go to ``OUT/bundles``.
        preset: ``robust`` for real use, ``paper`` for Ding & Jin's online form; what is written
            here is laid over it.
        task: name of the task; of the bundle where empty.
        live: improve while it runs.
        resume: go on with the fine-tuning that ``out`` holds (live).
        mode: of the actors: realtime (a robot's beat, through a policy server) or lockstep (as
            fast as they go).
        minutes: live: wall-clock time after which to end; null for no such limit.
        steps: live: control steps after which to end, all actors together; null likewise.
        updates: from logs: updates of the critics after which to end; null likewise.
        seconds: from logs: time after which to end; null likewise.
        num_actors: actors at a time.
        actors: where lockstep actors run: null for this machine; ``ray://HOST:PORT`` for a Ray
            cluster, ``ray`` for a Ray of this machine.
        seed: of everything.
        learn: how it is improved.
        rows: what the rows teach, by whose command they hold.
        explore: chance of drawn actions, by each actor's ticks.
        act: how actors choose actions, where that is not left to the bundle.
        replay: the replay service.
        gate: when new versions are published.
        held_out: share of the logs' episodes that new versions are judged by, not taught with.
        evaluate_episodes: episodes that score the parent and the last version.
        loop: the control loop.
        log: the log of each actor.
        engine: what computes the actors' actions.
        device: of the learner.
        threads: CPU threads of the learner; one leaves the other cores to the control loop.
        niceness: of learner and gate; 19 yields to everything.
        sched_fifo: of the policy server.
        log_every: updates between two lines of metrics.
        save_every: updates between two states that a killed learner goes on from.
    """

    parent: str | None = None
    logs: str | tuple[str, ...] = ()
    offline: str | None = None
    out: str = "runs/finetune"
    preset: Literal["robust", "paper"] = "robust"
    task: str = ""
    live: bool = False
    resume: bool = False
    mode: Literal["realtime", "lockstep"] = "realtime"
    minutes: Positive | None = None
    steps: Count | None = None
    updates: Count | None = None
    seconds: Positive | None = None
    num_actors: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    actors: str | None = None
    seed: Seed = 0
    learn: LearnSettings = LearnSettings()
    rows: RowRules = RowRules()
    explore: ExploreSettings = NO_EXPLORATION
    act: ActSettings = AS_BUNDLED
    replay: ReplaySettings = ReplaySettings()
    gate: GateSettings = GateSettings()
    held_out: Fraction = 0.1
    evaluate_episodes: Annotated[int, msgspec.Meta(ge=0)] = 20
    loop: LoopConfig = LoopConfig()
    log: LogSettings = LogSettings()
    engine: Engine = "numpy"
    device: Device = "cpu"
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    niceness: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    sched_fifo: SchedFifo = "auto"
    log_every: Count = 100
    save_every: Count = 2_000

    @property
    def log_paths(self) -> tuple[str, ...]:
        """The logs, one or several."""
        return (self.logs,) if isinstance(self.logs, str) else self.logs

    @property
    def scored(self) -> ActSettings:
        """How an action is chosen where a policy is scored, and in what is published.

        As the actors do, but for the temperature: what they draw to explore, a score need not.
        """
        return msgspec.structs.replace(self.act, temperature=None)

    @staticmethod
    def beneath(tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the preset, over which what was written is laid."""
        from policies.finetuning.presets import beneath

        return beneath(tree)
