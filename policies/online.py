"""Learn a policy from what copies of a robot go through under it.

A run is cut into segments. Where one ends the state is saved and every copy begins a new episode
with a seed drawn from (seed, step), so that a run that is taken up again does, bit for bit, what
one that was never stopped does: there is no state of a simulation to restore.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controller.clock import MonotonicClock
from controller.errors import ConfigError
from controller.interfaces import Clock, VectorPlant
from controller.types import VectorStep
from policies import bundle, codec, online_results
from policies.algos.sac import Info, SoftActorCritic
from policies.errors import TrainingDiverged
from policies.metrics import Metrics
from policies.online_results import Reference, scored
from policies.online_state import (
    Progress,
    Saved,
    read_state,
    restore,
    write_state,
)
from policies.replay import Replay
from policies.settings import SacConfig
from policies.stopwatch import Stopwatch, torch_settings
from policies.train_state import exclusive

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int, Info], None]

STATE, ROWS = "state/run.safetensors", "state/replay.f32"
RECENT = 20
"""Episodes whose mean return is reported while learning."""
EPISODES, SCORING = 0, 1
"""Streams of seeds."""


def learn(
    config: SacConfig,
    plants: VectorPlant,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
    *,
    reference: Reference | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Learn with soft actor-critic, or go on with the run that ``out`` holds.

    The same config and thread count give the same weights bit for bit on one machine, also when
    the run was killed and taken up again: it goes on from the last saved state. One that was
    stopped by ``should_stop`` saves its state there and loses nothing; but the episodes that ran
    end there, so that it differs from one that was never stopped unless a segment ended there.

    Args:
        config: what to do.
        plants: ``config.copies`` copies of the robot; they stay open.
        out: directory of the run; ``config.out`` by default.
        on_progress: called after each step of the copies with (steps done, steps in all, info).
        reference: returns that score 0 and 100.
        should_stop: asked after each step of the copies; True saves the state and ends the run.
        clock: measures the speed.

    Returns:
        ``task``, ``out``, ``steps``, ``updates``, ``finished``, the figures of the last snapshot
        (see :func:`policies.online_results.score`), and once finished ``replay`` and ``bundle``.

    Raises:
        ConfigError: the copies are not ``config.copies``, or their action has no limits.
        BundleError: ``out`` holds a run with other settings, or one that is at work, or a
            damaged state.
        DataError: there is no room for the replay, or it is gone.
        TrainingDiverged: a figure is no longer finite.
    """
    store = out or Path(config.out or f"runs/sac/{plants.spec.task}")
    with exclusive(store), torch_settings(config.seed, config.threads):
        saved = read_state(store / STATE, config, plants.spec)
        if saved is not None and _is_finished(saved.progress, config, store):
            return _facts(saved.progress, plants.spec.task, store, finished=True)
        run = OnlineRun(config, plants, store, reference, saved)
        with Metrics(store, tensorboard=False, until=run.progress.step) as metrics:
            run.end_segment(metrics)
            stopped = False
            while run.progress.step < run.steps and not stopped:
                run.begin()
                watch = Stopwatch(clock or MonotonicClock(), run.progress.updates)
                stopped = _segment(run, metrics, watch, on_progress, should_stop)
                run.end_segment(metrics)
        finished = run.progress.step == run.steps
        if finished:
            run.publish()
        return _facts(run.progress, plants.spec.task, store, finished=finished)


def _segment(
    run: OnlineRun,
    metrics: Metrics,
    watch: Stopwatch,
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool] | None,
) -> bool:
    """Learn to the end of the segment, or until told to stop; return whether that was so."""
    progress, every = run.progress, run.config.log_every
    end = next(edge for edge in run.edges if edge > progress.step)
    while progress.step < end:
        lines = progress.step // every
        run.advance()
        figures = run.figures()
        if progress.step // every != lines or progress.step == end:
            rate = {"updates_per_s": watch.rate(progress.updates)}
            metrics.write(progress.step, figures | run.check() | rate)
        if on_progress is not None:
            on_progress(progress.step, run.steps, figures)
        if should_stop is not None and should_stop():
            return True
    run.warn_of_endless_episodes()
    return False


class OnlineRun:
    """One run: the networks, what was gone through, and how far it is.

    Args:
        config: what to do.
        plants: copies of the robot.
        store: directory of the run.
        reference: returns that score 0 and 100.
        saved: what to go on from.
    """

    def __init__(
        self,
        config: SacConfig,
        plants: VectorPlant,
        store: Path,
        reference: Reference | None = None,
        saved: Saved | None = None,
    ) -> None:
        if plants.num != config.copies:
            raise ConfigError(f"copies is {config.copies}, but there are {plants.num}")
        self.config, self.plants, self.store = config, plants, store
        self.reference = reference
        self.codec = codec.of_limits(plants.spec)
        self.edges = segment_edges(config)
        sizes = (self.codec.condition_size, self.codec.action_size)
        self.learner = _learner(config, *sizes)
        self.rng = np.random.default_rng(config.seed)
        self.progress = Progress()
        if saved is not None:
            restore(saved, self.learner, self.rng)
            self.progress = saved.progress
        self.replay = Replay(
            store / ROWS,
            min(config.capacity, self.steps),
            0 if config.capacity >= self.steps else max(np.diff(self.edges).tolist()),
            sizes,
            config.copies,
            self.progress.step,
        )
        self._observations = np.zeros((config.copies, sizes[0]))
        self._returns: deque[float] = deque(maxlen=RECENT)
        self._warned = False

    @property
    def steps(self) -> int:
        """Control steps in all: the configured ones, rounded up to whole steps of the copies."""
        return self.edges[-1]

    def begin(self) -> None:
        """Begin an episode in every copy."""
        self._observations = self.plants.reset(self._seed(EPISODES, self.progress.step))

    def advance(self) -> None:
        """Do one step of the copies and the updates that are due after it."""
        actions = self._explore()
        step = self.plants.step(self.codec.decode_action(actions))
        self.replay.add(self._observations, actions, step)
        self.progress.step += self.config.copies
        self._observations = step.observations
        self._note(step)
        config = self.config
        due = int(config.updates_per_step * (self.progress.step - config.start_steps))
        count = due - self.progress.updates
        if count > 0:
            for batch in self.replay.draw(count, config.batch, self.rng, self.learner.device):
                self.learner.update(batch)
            self.progress.updates += count

    def _explore(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return actions (N, A) in [-1, 1]: evenly drawn at first, then the policy's."""
        shape = (self.config.copies, self.codec.action_size)
        if self.progress.step < self.config.start_steps:
            return self.rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        seen = torch.from_numpy(self.codec.encode_observation(self._observations))
        noise = self.learner.noise(*shape)
        return self.learner.act(seen.to(self.learner.device), noise).cpu().numpy()

    def _note(self, step: VectorStep) -> None:
        done = step.terminated | step.truncated
        if done.any():
            self._returns.extend(step.episode_returns[done].tolist())

    def figures(self) -> Info:
        """Return the mean return, and score, of the newest episodes."""
        if not self._returns:
            return {}
        mean = sum(self._returns) / len(self._returns)
        score = scored(mean, self.reference)
        return {"return": mean} if score is None else {"return": mean, "score": score}

    def warn_of_endless_episodes(self) -> None:
        """Say so once when all that is ever seen of an episode is its beginning."""
        if not self._returns and not self._warned:
            self._warned = True
            log.warning(
                "no episode of %s ended within a segment: what lies further in is never seen; "
                "take fewer copies, fewer snapshots or a larger save_every",
                self.plants.spec.task,
            )

    def check(self) -> Info:
        """Return figures of the last update.

        Raises:
            TrainingDiverged: one is not finite.
        """
        info = self.learner.info()
        bad = [name for name, value in info.items() if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"{bad[0]} is {info[bad[0]]} after {self.progress.updates} updates: lower "
                f"learning_rate (now {self.config.learning_rate:g})"
            )
        return info

    def end_segment(self, metrics: Metrics) -> None:
        """Score the policy where a snapshot is due, and save the state.

        Raises:
            TrainingDiverged: a figure is not finite.
        """
        self.check()
        last = self.config.snapshots - 1
        index = len(self.progress.snapshots)
        while index <= last and self.progress.step >= self.config.steps * index // last:
            facts = self._snapshot(index)
            metrics.write(self.progress.step, {"snapshot": index, **facts})
            index += 1
        self.replay.cut()
        write_state(
            self.store / STATE,
            self.config,
            self.plants.spec,
            self.learner,
            self.rng,
            self.progress,
        )

    def _snapshot(self, index: int) -> dict[str, Any]:
        """Write the policy, score it, and return what is to be told of it."""
        facts: dict[str, Any] = {
            "file": online_results.write_snapshot(self.store, self.learner, index),
            "step": self.progress.step,
        }
        facts |= online_results.score(
            self.config,
            self.learner,
            self.codec,
            self.plants,
            self.reference,
            self._seed(SCORING, 0),
        )
        self.progress.snapshots.append(facts)
        online_results.write_scores(self.store, self.progress)
        return facts

    def publish(self) -> None:
        """Write replay and bundle, and drop what only an unfinished run needs."""
        online_results.publish(
            self.config,
            self.plants.spec,
            self.codec,
            self.learner,
            self.replay,
            self.progress,
            self.store,
        )
        (self.store / ROWS).unlink()

    def _seed(self, stream: int, step: int) -> int:
        entropy = (self.config.seed, stream, step)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def segment_edges(config: SacConfig) -> list[int]:
    """Return the steps at which segments end, 0 first: every snapshot's, and evenly between.

    Each is a multiple of the copies.
    """
    copies, snapshots = config.copies, config.snapshots - 1
    parts = -(-config.steps // (snapshots * config.save_every * copies))
    count = snapshots * parts
    edges = {-(-(config.steps * index // count) // copies) * copies for index in range(count)}
    return sorted(edges | {-(-config.steps // copies) * copies})


def _learner(config: SacConfig, observation_size: int, action_size: int) -> SoftActorCritic:
    return SoftActorCritic(
        observation_size,
        action_size,
        config.hidden,
        learning_rate=config.learning_rate,
        discount=config.discount,
        tau=config.tau,
        temperature=config.temperature,
        target_entropy=config.target_entropy,
        generator=torch.Generator(config.device).manual_seed(config.seed),
    )


def _is_finished(progress: Progress, config: SacConfig, store: Path) -> bool:
    done = progress.step == segment_edges(config)[-1]
    return done and not (store / ROWS).exists()


def _facts(progress: Progress, task: str, store: Path, *, finished: bool) -> dict[str, Any]:
    facts = {
        "task": task,
        "out": str(store),
        "steps": progress.step,
        "updates": progress.updates,
        "finished": finished,
    }
    last = progress.snapshots[-1] if progress.snapshots else {}
    facts |= {name: value for name, value in last.items() if name not in ("file", "step")}
    if finished:
        facts["replay"] = str(store / online_results.REPLAY)
        facts["bundle"] = str(bundle.resolve(store / online_results.BUNDLES))
    return facts
