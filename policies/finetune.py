"""Improve a policy from the logs of its own runs with Consistency-AC."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from controller.clock import MonotonicClock
from controller.errors import DataError
from controller.interfaces import Clock
from controller.transitions import Transitions
from policies import bundle
from policies.algos.consistency_bc import ConsistencyBC
from policies.algos.learner import Batch, Sizes
from policies.algos.q_guided import QGuided
from policies.algos.value import Valuation
from policies.errors import BundleError, TrainingDiverged
from policies.golden import golden
from policies.learning import (
    NEWEST,
    Averaging,
    ConsistencySettings,
    ImproveSettings,
    OptimiserSettings,
    RewardSettings,
    ValueSettings,
)
from policies.metrics import Metrics
from policies.model import ConsistencyModel, CriticSettings, SamplerSettings
from policies.settings import FinetuneConfig
from policies.stopwatch import torch_settings
from policies.table import Table, require_robot
from policies.train import Progress

Info = dict[str, float]

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
        policy, ``loss`` (L_c) and ``policy_loss`` (L_q).

    Raises:
        BundleError: the parent is damaged, no consistency policy, or one of chunks.
        DataError: data of another robot, or nothing to imitate.
        TrainingDiverged: a loss is no longer finite.
    """
    source = _improvable(parent or config.parent)
    for part in (logs, *([] if offline is None else [offline])):
        require_robot(part, source.spec)
    store = out or Path(config.out)
    budget = _Budget(config, clock or MonotonicClock())
    with torch_settings(config.seed, config.threads), Metrics(store, tensorboard=False) as metrics:
        run = Finetuning(config, source, logs, offline)
        while budget.left(run.updates):
            info = run.update(actor=budget.share(run.updates) >= config.warmup)
            if run.updates % config.log_every == 0:
                metrics.write(run.updates, info)
            if on_progress is not None:
                on_progress(*budget.progress(run.updates), info)
            if should_stop is not None and should_stop():
                break
        path = bundle.publish(run.save(store), store)
    made = {"bundle": str(path), "version_after": path.name, "seconds": budget.elapsed_s()}
    return run.facts() | made


def _improvable(path: Path | str) -> bundle.Bundle:
    source = bundle.load_bundle(path)
    if not isinstance(source.manifest.model, ConsistencyModel):
        raise BundleError(
            f"{source.path}: learned by {source.manifest.algorithm}; expected a consistency "
            "policy, learned by consistency_bc or consistency_ac"
        )
    if source.manifest.horizon > 1:
        raise BundleError(
            f"{source.path}: answers with {source.manifest.horizon} actions; expected a policy of "
            "one, as the critics value single actions"
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


class Finetuning:
    """Learner and data of one fine-tuning.

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
        self.learner = _learner(config, parent)
        self.tables, self.anchors = self._encode()
        self.updates = self.actor_updates = 0
        self.info: Info = {}

    def _encode(self) -> tuple[list[Table], list[Table]]:
        """Return what the critics learn from and what L_c imitates: logs first, then offline."""

        def table(data: Transitions) -> Table:
            return Table(data, self.parent.codec, RewardSettings())

        own = self.logs.info.get(ACTED, np.ones(len(self.logs))).astype(np.bool_)
        extra = [] if self.offline is None else [table(self.offline)]
        acted = [table(self.logs.select(own))] if own.any() else []
        if not acted and not extra:
            raise DataError("no row of the logs holds an action of the policy: nothing to imitate")
        return [table(self.logs), *extra], [*acted, *extra]

    def _draw(self, tables: list[Table]) -> Batch:
        """Draw a batch with the declared share of the first table."""
        whole = self.config.batch
        if len(tables) == 1:
            return self._take(tables[0], whole)
        first = max(1, round(whole * self.config.log_share))
        counts = (first, max(1, whole - first))
        parts = [self._take(t, n) for t, n in zip(tables, counts, strict=True)]
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Batch(*(torch.cat(column, 1) for column in columns))

    def _take(self, table: Table, count: int) -> Batch:
        rows: Tensor = torch.randint(len(table), (1, count), generator=self.learner.generator)
        return table.take(rows)

    def update(self, *, actor: bool) -> Info:
        """Update the critics and, with ``actor``, the policy.

        Raises:
            TrainingDiverged: a loss is not finite.
        """
        config = self.config
        variant = self.learner.prepare(self.updates)
        figures = self.learner.update_critics(self._draw(self.tables))
        if actor:
            states = self._draw(self.tables).condition
            figures |= self.learner.update_actor(self._draw(self.anchors), states, variant)
            self.actor_updates += 1
        self.updates += 1
        info = {name: float(value) for name, value in figures.items()}
        bad = [name for name, value in info.items() if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"{bad[0]} is {info[bad[0]]} at update {self.updates}: lower critic_rate "
                f"(now {config.critic_rate:g}) or actor_rate (now {config.actor_rate:g})"
            )
        self.info = info
        return info

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
        data = [_entry("log", self.logs)]
        if self.offline is not None:
            data.append(_entry("offline", self.offline))
        config = msgspec.json.decode(msgspec.json.encode(self.config))
        draft = bundle.Draft(
            algorithm="consistency_ac",
            spec=about.spec,
            model=about.model,
            sampler=about.sampler,
            codec=self.parent.codec,
            data=tuple(data),
            training={
                "config": config | {"loss": msgspec.to_builtins(_loss_of(self.parent))},
                "steps": self.updates,
                "result": self.info,
            },
            critic=self.learner.critic,
            parent=about,
        )
        weights, critics = self.learner.policy_arrays(0), self.learner.critic_arrays(0)
        kept = golden(draft, weights, self.logs.observations, critics)
        return bundle.save_bundle(out, draft, weights, kept, {bundle.CRITICS: critics})


def _learner(config: FinetuneConfig, parent: bundle.Bundle) -> QGuided:
    """Return Consistency-AC with the weights of ``parent``, and its critics if it has any.

    The consistency loss stays at the finest grid its training ended with, the newest weights
    its target. The served average acts in the TD target.
    """
    about = parent.manifest
    assert isinstance(about.model, ConsistencyModel)
    sizes = Sizes(parent.codec.action_size, parent.codec.condition_size, (config.seed,))
    loss = msgspec.structs.replace(_loss_of(parent), target=NEWEST, restart=0)
    slow = Averaging(decay=config.served_decay, grow=False)
    optimiser = OptimiserSettings(
        steps=1,
        learning_rate=config.actor_rate,
        warmup=0,
        final_rate=1.0,
        grad_clip=config.grad_clip,
        served=slow,
    )
    actor = ConsistencyBC(sizes, about.model, loss, optimiser, SamplerSettings(), slow)
    for network in (actor.online, *actor.averages.kept.values()):
        network.load_arrays(parent.weights)
    shape = about.critic or CriticSettings(hidden=about.model.network.hidden)
    values = Valuation(
        sizes,
        shape,
        ValueSettings(
            learning_rate=config.critic_rate,
            discount=config.discount,
            tau=1.0 - config.critic_decay,
        ),
        config.grad_clip,
    )
    if about.critic:
        for network in (values.online, values.target):
            network.load_arrays(parent.arrays(bundle.CRITICS))
    return QGuided(actor, values, ImproveSettings(eta=config.eta, q_loss="mean", steps=1))


def _loss_of(parent: bundle.Bundle) -> ConsistencySettings:
    settings = parent.manifest.training.get("config", {}).get("loss", {})
    loss: ConsistencySettings = msgspec.convert(settings, ConsistencySettings)
    return loss


def _entry(role: str, data: Transitions) -> bundle.DataEntry:
    fields = {"role": role, "task": data.task, "rows": len(data), "digest": data.digest()}
    return msgspec.convert(fields, bundle.DataEntry)
