"""Improve a policy from the logs of its own runs with Consistency-AC."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from controller.clock import MonotonicClock
from controller.errors import DataError
from controller.interfaces import Clock
from controller.transitions import Transitions
from policies import bundle, train_state
from policies.algos.consistency_ac import Batch, OneStepActor, critic_loss, value_loss
from policies.algos.consistency_bc import ConsistencyLoss, Info, follow
from policies.codec import Codec
from policies.diffusion.precond import Precondition
from policies.engine import golden
from policies.errors import BundleError, TrainingDiverged
from policies.nets import Denoiser, TwinCritic
from policies.settings import ConsistencySettings, FinetuneConfig
from policies.train import (
    Progress,
    data_entry,
    descend,
    metrics_file,
    require_robot,
    torch_settings,
    write_metrics,
)

IMPROVABLE = ("consistency_bc", "consistency_ac")
ACTED = "policy_acted"
"""Column of a log's transitions: whether the action that was executed is the policy's own."""


def finetune(
    config: FinetuneConfig,
    logs: Transitions,
    offline: Transitions | None = None,
    out: Path | None = None,
    on_progress: Progress | None = None,
    *,
    parent: Path | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Fine-tune a policy and publish the new bundle as ``out/<version>``.

    The critics learn first, alone; then the policy descends L_c + eta L_q at a small rate.
    Every row of the logs teaches the critics, for they value whatever was executed. Only
    rows in which the policy's own action was executed (column ``policy_acted``) and offline
    rows enter L_c: the policy must not imitate a fallback.

    Args:
        config: what to do.
        logs: transitions of runs, in the layout of the policy's spec.
        offline: transitions that keep the policy where it was; None for the logs only.
        out: store that receives the bundle; ``config.out`` by default.
        on_progress: called after each update with (done, in all, info); milliseconds where
            time is the only limit.
        parent: bundle or store to start from; ``config.parent`` by default.
        should_stop: asked after each update; True ends early, with a bundle.
        clock: measures the budget.

    Returns:
        ``bundle`` (directory), ``version_before``, ``version_after``, ``updates`` (of the
        critics), ``actor_updates`` (the last of them), ``transitions`` (rows of the logs),
        ``seconds``, and of the last update ``q_loss``, ``q`` (mean target) and, with the
        policy, ``loss`` (L_c), ``levels`` and ``q_policy``.

    Raises:
        BundleError: the parent is damaged, or no consistency policy.
        DataError: data of another robot, or nothing to imitate.
        TrainingDiverged: a loss is no longer finite.
    """
    source = _improvable(parent or config.parent)
    for part in (logs, *([] if offline is None else [offline])):
        require_robot(part, source.spec)
    store = out or Path(config.out)
    budget = _Budget(config, clock or MonotonicClock())
    with torch_settings(config.seed, config.threads), metrics_file(store) as metrics:
        run = Finetuning(config, source, logs, offline)
        while budget.left(run.updates):
            info = run.update(actor=budget.share(run.updates) >= config.warmup)
            if run.updates % config.log_every == 0:
                write_metrics(metrics, run.updates, info)
            if on_progress is not None:
                on_progress(*budget.progress(run.updates), info)
            if should_stop is not None and should_stop():
                break
        path = bundle.publish(run.save(store), store)
    made = {"bundle": str(path), "version_after": path.name, "seconds": budget.elapsed_s()}
    return run.facts() | made


def _improvable(path: Path | str) -> bundle.Bundle:
    source = bundle.load_bundle(path)
    if source.manifest.algorithm not in IMPROVABLE:
        raise BundleError(
            f"{source.path}: learned by {source.manifest.algorithm}; Consistency-AC improves "
            f"what was learned by {' or '.join(IMPROVABLE)}"
        )
    return source


class _Budget:
    """Updates, seconds or both, whichever ends first. At least one update is done."""

    def __init__(self, config: FinetuneConfig, clock: Clock) -> None:
        self._updates, self._seconds = config.updates, config.seconds
        self._clock, self._start_ns = clock, clock.now_ns()

    def elapsed_s(self) -> float:
        return (self._clock.now_ns() - self._start_ns) / 1e9

    def share(self, updates: int) -> float:
        """Return how much of the budget is used, 0 to 1."""
        by_count = updates / self._updates if self._updates else 0.0
        by_time = self.elapsed_s() / self._seconds if self._seconds else 0.0
        return max(by_count, by_time)

    def left(self, updates: int) -> bool:
        return updates == 0 or self.share(updates) < 1.0

    def progress(self, updates: int) -> tuple[int, int]:
        if self._updates:
            return updates, self._updates
        total_ms = round(1e3 * (self._seconds or 0.0))
        return min(round(1e3 * self.elapsed_s()), total_ms), total_ms


@dataclass(frozen=True)
class Table:
    """Transitions as tensors in network units."""

    rows: Batch

    @classmethod
    def encode(cls, data: Transitions, codec: Codec) -> Table:
        """Encode ``data`` with the codec of the policy."""
        return cls(
            Batch(
                condition=torch.from_numpy(codec.encode_observation(data.observations)),
                action=torch.from_numpy(codec.encode_action(data.actions)),
                reward=torch.from_numpy(data.rewards.astype(np.float32)),
                next_condition=torch.from_numpy(codec.encode_observation(data.next_observations)),
                alive=torch.from_numpy((~data.terminals).astype(np.float32)),
            )
        )

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Return ``count`` rows drawn with replacement."""
        index = torch.randint(len(self.rows.reward), (count,), generator=generator)
        columns = (c[index] for c in vars(self.rows).values())
        return Batch(*columns)


class Finetuning:
    """Networks, optimisers and data of one fine-tuning.

    Args:
        config: what to do.
        parent: the policy to start from.
        logs: transitions of runs.
        offline: further transitions.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        parent: bundle.Bundle,
        logs: Transitions,
        offline: Transitions | None,
    ) -> None:
        self.config, self.parent, self.logs, self.offline = config, parent, logs, offline
        about, codec = parent.manifest, parent.codec
        sizes = (codec.action_size, codec.condition_size)
        self.online = Denoiser(*sizes, about.network)
        train_state.load_arrays(self.online, parent.weights)
        self.served = copy.deepcopy(self.online)
        self.critic = TwinCritic(*sizes, about.network)
        if f"{bundle.CRITICS}.safetensors" in about.files:
            train_state.load_arrays(self.critic, parent.arrays(bundle.CRITICS))
        self.critic_target = copy.deepcopy(self.critic)
        self.actor_optimiser = torch.optim.Adam(self.online.parameters(), fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), fused=True)
        self.generator = torch.Generator().manual_seed(config.seed)
        settings = msgspec.convert(about.training.get("loss", {}), ConsistencySettings)
        self.consistency = ConsistencyLoss(settings, about.preconditioning)
        self.tables, self.anchors = self._encode(codec)
        self.updates = self.actor_updates = 0
        self.info: Info = {}

    def _encode(self, codec: Codec) -> tuple[list[Table], list[Table]]:
        """Return what the critics learn from and what L_c imitates: logs first, then offline."""
        own = self.logs.info.get(ACTED, np.ones(len(self.logs))).astype(np.bool_)
        extra = [] if self.offline is None else [Table.encode(self.offline, codec)]
        tables = [Table.encode(self.logs, codec), *extra]
        acted = [Table.encode(self.logs.select(own), codec)] if own.any() else []
        if not acted and not extra:
            raise DataError("no row of the logs holds an action of the policy: nothing to imitate")
        return tables, [*acted, *extra]

    def _draw(self, tables: list[Table]) -> Batch:
        """Draw a batch with the declared share of the first table."""
        if len(tables) == 1:
            return tables[0].draw(self.config.batch, self.generator)
        first = max(1, round(self.config.batch * self.config.log_share))
        counts = (first, max(1, self.config.batch - first))
        parts = [t.draw(n, self.generator) for t, n in zip(tables, counts, strict=True)]
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Batch(*(torch.cat(column) for column in columns))

    def _actor(self, network: Denoiser) -> OneStepActor:
        about = self.parent.manifest
        precondition = Precondition.of(about.preconditioning)
        size = self.parent.codec.action_size
        return OneStepActor(network, precondition, about.preconditioning.sigma_max, size)

    def update(self, *, actor: bool) -> Info:
        """Update the critics and, with ``actor``, the policy.

        Raises:
            TrainingDiverged: a loss is not finite.
        """
        config = self.config
        info = self.update_critics()
        if actor:
            info |= self.update_actor()
            self.actor_updates += 1
        self.updates += 1
        bad = [name for name, value in info.items() if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"{bad[0]} is {info[bad[0]]} at update {self.updates}: lower critic_rate "
                f"(now {config.critic_rate:g}) or actor_rate (now {config.actor_rate:g})"
            )
        self.info = info
        return info

    def update_critics(self) -> Info:
        """Take one step down the TD loss; move the target critics."""
        config = self.config
        actor, batch = self._actor(self.served), self._draw(self.tables)
        loss, info = critic_loss(
            self.critic, self.critic_target, actor, batch, config.discount, self.generator
        )
        descend(self.critic_optimiser, loss, config.critic_rate, config.grad_clip)
        follow(self.critic_target, self.critic, config.critic_decay)
        return info

    def update_actor(self) -> Info:
        """Take one step down L_c + eta L_q; move the served average."""
        config, anchor = self.config, self._draw(self.anchors)
        states = self._draw(self.tables).condition
        imitation, info = self.consistency(
            self.online, self.online, anchor.condition, anchor.action, (1, 1), self.generator
        )
        value, more = value_loss(self.critic, self._actor(self.online), states, self.generator)
        descend(
            self.actor_optimiser,
            imitation + config.eta * value,
            config.actor_rate,
            config.grad_clip,
        )
        follow(self.served, self.online, config.served_decay)
        return info | more

    def facts(self) -> dict[str, Any]:
        """Return what was done so far, for people."""
        return {
            "version_before": self.parent.version,
            "updates": self.updates,
            "actor_updates": self.actor_updates,
            "transitions": len(self.logs),
            **self.info,
        }

    def save(self, out: Path) -> Path:
        """Write the bundle of the fine-tuned policy with its critics."""
        about = self.parent.manifest
        data = [data_entry("log", self.logs)]
        if self.offline is not None:
            data.append(data_entry("offline", self.offline))
        settings = msgspec.json.decode(msgspec.json.encode(self.config))
        draft = bundle.Draft(
            algorithm="consistency_ac",
            spec=about.spec,
            network=about.network,
            preconditioning=about.preconditioning,
            sampler=about.sampler,
            codec=self.parent.codec,
            data=tuple(data),
            training={
                "config": settings,
                "loss": about.training.get("loss", {}),
                "steps": self.updates,
                "result": self.info,
            },
            parent=about,
        )
        weights = train_state.to_arrays(self.served)
        kept = golden(draft, weights, self.logs.observations)
        critics = {bundle.CRITICS: train_state.to_arrays(self.critic)}
        return bundle.save_bundle(out, draft, weights, kept, critics)
