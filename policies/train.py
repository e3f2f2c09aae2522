"""Learn policies from transitions, and write them as bundles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from controller.clock import MonotonicClock
from controller.interfaces import Clock
from controller.spec import Spec
from controller.transitions import Transitions
from policies import checkpoints
from policies.checkpoints import Checkpoint
from policies.errors import BundleError
from policies.manifest import MANIFEST
from policies.metrics import Metrics
from policies.settings import TrainConfig
from policies.stopwatch import Stopwatch, torch_settings
from policies.train_state import STATE, Saved, exclusive, read_state
from policies.training import Training

log = logging.getLogger(__name__)

Progress = Callable[[int, int, Mapping[str, float]], None]
Scorer = Callable[[Sequence[Path]], Sequence[Mapping[str, float]]]


def train(
    config: TrainConfig,
    data: Transitions,
    spec: Spec,
    out: Path | None = None,
    on_progress: Progress | None = None,
    *,
    should_stop: Callable[[], bool] | None = None,
    score: Scorer | None = None,
    clock: Clock | None = None,
) -> list[Path]:
    """Train a policy for each seed and publish the bundles, each in its store.

    On one machine the same config, data and threads give the same weights bit for bit, also
    when the run was stopped or killed and resumed. On CUDA that is not promised.

    Args:
        config: what to do.
        data: what to learn from.
        spec: the robot; its limits set the scale of the actions.
        out: store of the run, or of the stores of several; ``config.out`` by default.
        on_progress: called after each update with (updates done, in all, figures).
        should_stop: asked after each update; True saves the state, publishes what there is,
            and ends the run.
        score: given the bundles of a checkpoint, one of each run, returns figures of each.
        clock: measures the speed.

    Returns:
        The directory of each run's bundle.

    Raises:
        DataError: the data is not of this robot, or cannot be learned from.
        TrainingDiverged: a loss is no longer finite; the batch is kept, and what was
            published before.
        BundleError: ``out`` holds an unfinished or another run, or the device is not there.
    """
    store = out or Path(config.out)
    if config.resume and not (store / STATE).is_file():
        raise BundleError(f"{store}: nothing to resume: no run left a state there")
    with exclusive(store), torch_settings(config.runs[0], config.optimiser.threads):
        saved = _state_of(store, resume=config.resume)
        run = Training(config, data, spec, store)
        if saved is not None:
            run.restore(saved)
        return _Course(run, on_progress, score, clock or MonotonicClock()).finish(should_stop)


def _state_of(store: Path, *, resume: bool) -> Saved | None:
    """Return the state to go on from, None to begin anew.

    Raises:
        BundleError: it cannot be read, or a run that is to begin would take its place.
    """
    saved = read_state(store)
    if resume or saved is None:
        return saved
    if saved.about["finished"]:
        return None
    raise BundleError(
        f"{store}: holds a run that stopped at update {saved.about['step']}: "
        "resume=true goes on with it; else choose another out, or remove state/ there"
    )


class _Course:
    """A run from where it stands to its end: metrics, states, checkpoints on the way."""

    def __init__(
        self,
        run: Training,
        on_progress: Progress | None,
        score: Scorer | None,
        clock: Clock,
    ) -> None:
        self._run, self._config = run, run.config
        self._on_progress, self._score = on_progress, score
        self._watch = Stopwatch(clock, run.step)
        self._metrics: list[Metrics] = []

    def finish(self, should_stop: Callable[[], bool] | None) -> list[Path]:
        """Go to the end, or until told to stop; return the bundles."""
        run, steps = self._run, self._config.optimiser.steps
        with ExitStack() as stack:
            for store in run.stores:
                metrics = Metrics(store, tensorboard=self._config.tensorboard, until=run.step)
                self._metrics.append(stack.enter_context(metrics))
                checkpoints.forget_after(store, run.step)
            paths: list[Path] = []
            while run.step < steps:
                run.advance()
                paths = self._after_update()
                if run.step < steps and should_stop is not None and should_stop():
                    log.warning("stopped at update %d of %d; resume=true goes on", run.step, steps)
                    run.save()
                    return run.publish()
            return paths or self._left()

    def _left(self) -> list[Path]:
        """Return the last bundle of each run that had come to its end before."""
        known = [(store, checkpoints.read(store)) for store in self._run.stores]
        paths = [store / rows[-1].version for store, rows in known if rows]
        whole = len(paths) == len(known) and all((p / MANIFEST).is_file() for p in paths)
        return paths if whole else self._run.publish()

    def _after_update(self) -> list[Path]:
        """Do what is due after an update; return the bundles of a checkpoint."""
        run, config = self._run, self._config
        last = run.step == config.optimiser.steps
        if last or run.step % config.log_every == 0:
            self._log()
        if self._on_progress is not None:
            self._on_progress(run.step, config.optimiser.steps, self._shown)
        paths: list[Path] = []
        if last or (config.checkpoint_every and run.step % config.checkpoint_every == 0):
            with self._watch.paused():
                paths = self._checkpoint()
        if last or run.step % config.save_every == 0:
            with self._watch.paused():
                run.save(finished=last)
        return paths

    _shown: Mapping[str, float] = {}

    def _log(self) -> None:
        rate = {"updates_per_s": self._watch.rate(self._run.step)}
        rows = self._run.figures()
        for metrics, figures in zip(self._metrics, rows, strict=True):
            metrics.write(self._run.step, figures | rate)
        self._shown = {"loss": rows[0]["loss"]} if "loss" in rows[0] else rows[0]

    def _checkpoint(self) -> list[Path]:
        run = self._run
        paths, losses = run.publish(), run.mean_losses()
        for store, path, loss in zip(run.stores, paths, losses, strict=True):
            checkpoints.append(store, Checkpoint(run.step, path.name, loss))
        if self._score is not None:
            for metrics, figures in zip(self._metrics, self._score(paths), strict=True):
                metrics.write(run.step, figures)
        return paths
