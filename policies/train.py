"""Learn a policy from transitions, and write it as a bundle."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import Tensor

from controller.clock import MonotonicClock
from controller.errors import DataError
from controller.interfaces import Clock
from controller.spec import Spec
from controller.transitions import Transitions, layout_of
from policies import bundle, codec, train_state
from policies.algos.consistency_bc import ConsistencyLoss, Info, follow
from policies.engine import golden
from policies.errors import BundleError, TrainingDiverged
from policies.nets import Denoiser
from policies.settings import OptimiserSettings, TrainConfig

log = logging.getLogger(__name__)

Progress = Callable[[int, int, Info], None]
METRICS = "metrics.jsonl"


def train(
    config: TrainConfig,
    data: Transitions,
    spec: Spec,
    out: Path | None = None,
    on_progress: Progress | None = None,
    *,
    should_stop: Callable[[], bool] | None = None,
    resume: Path | None = None,
    clock: Clock | None = None,
) -> Path:
    """Train a consistency policy and publish its bundle as ``out/<version>``.

    The same config, data and thread count give the same weights bit for bit on one machine,
    also when the run was stopped and resumed.

    Args:
        config: what to do.
        data: what to learn from.
        spec: the robot; its limits set the scale of the actions.
        out: store that receives the bundle and ``metrics.jsonl``; ``config.out`` by default.
        on_progress: called after each update with (updates done, updates in all, info).
        should_stop: asked after each update; True ends the run early, with a bundle.
            So does a KeyboardInterrupt once an update is done.
        resume: bundle of an unfinished run of the same config to go on from.
        clock: measures the speed.

    Returns:
        The bundle's directory.

    Raises:
        DataError: the data is not of this robot.
        TrainingDiverged: the loss is no longer finite.
        BundleError: ``resume`` does not hold the state of such a run.
    """
    require_robot(data, spec)
    store = out or Path(config.out)
    with torch_settings(config.seed, config.optimiser.threads), metrics_file(store) as metrics:
        run = Run(config, data, spec)
        if resume is not None:
            run.restore(resume)
        watch = Stopwatch(clock or MonotonicClock(), run.step)
        try:
            while run.step < config.optimiser.steps:
                info = run.update() | {"updates_per_s": watch.rate(run.step)}
                if run.step % config.log_every == 0 or run.step == config.optimiser.steps:
                    write_metrics(metrics, run.step, info)
                if on_progress is not None:
                    on_progress(run.step, config.optimiser.steps, info)
                if should_stop is not None and should_stop():
                    break
        except KeyboardInterrupt:
            if run.step == 0:
                raise
            log.warning("interrupted after %d of %d updates", run.step, config.optimiser.steps)
        return bundle.publish(run.save(store), store)


class Run:
    """One training run: three networks, the optimiser and the encoded data.

    Args:
        config: what to do.
        data: what to learn from.
        spec: the robot.
    """

    def __init__(self, config: TrainConfig, data: Transitions, spec: Spec) -> None:
        self.config, self.data, self.spec = config, data, spec
        self.codec = codec.fit(data, spec, config.observation)
        self.condition = torch.from_numpy(self.codec.encode_observation(data.observations))
        self.action = torch.from_numpy(self.codec.encode_action(data.actions))
        self.generator = torch.Generator().manual_seed(config.seed)
        self.online = Denoiser(
            self.codec.action_size, self.codec.condition_size, config.network
        ).train()
        self.target, self.served = copy.deepcopy(self.online), copy.deepcopy(self.online)
        self.optimiser = torch.optim.AdamW(
            self.online.parameters(), weight_decay=config.optimiser.weight_decay, fused=True
        )
        self.loss = ConsistencyLoss(config.loss, config.noise)
        self.step = 0
        self.info: Info = {}

    def update(self) -> Info:
        """Do one gradient update and return what to report.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        settings = self.config.optimiser
        rows = torch.randint(len(self.action), (settings.batch,), generator=self.generator)
        loss, info = self.loss(
            self.online,
            self.target if self.config.loss.target_decay else self.online,
            self.condition[rows],
            self.action[rows],
            (self.step, settings.steps),
            self.generator,
        )
        if not math.isfinite(info["loss"]):
            raise TrainingDiverged(
                f"loss is {info['loss']} at update {self.step + 1}: "
                f"lower optimiser.learning_rate (now {settings.learning_rate:g})"
            )
        self._descend(loss, learning_rate(settings, self.step))
        self.step += 1
        self.info = info
        return info

    def _descend(self, loss: Tensor, rate: float) -> None:
        descend(self.optimiser, loss, rate, self.config.optimiser.grad_clip)
        if self.config.loss.target_decay:
            follow(self.target, self.online, self.config.loss.target_decay)
        # The average forgets the initial weights first: its decay grows to the declared one.
        young = (self.step + 1) / (self.step + 10)
        follow(self.served, self.online, min(self.config.optimiser.served_decay, young))

    def restore(self, path: Path) -> None:
        """Go on where the run that wrote the bundle at ``path`` stopped."""
        saved = bundle.load_bundle(path)
        if saved.manifest.training.get("config") != comparable(self.config):
            raise BundleError(f"{path}: cannot resume: it was trained with other settings")
        if saved.manifest.data[0].digest != self.data.digest():
            raise BundleError(f"{path}: cannot resume: it was trained on other data")
        arrays = saved.arrays(bundle.STATE)
        self.step = train_state.unpack(arrays, self._modules(), self.optimiser, self.generator)

    def save(self, out: Path) -> Path:
        """Write the bundle of the served weights."""
        config = self.config
        draft = bundle.Draft(
            algorithm=config.algorithm,
            spec=self.spec,
            network=config.network,
            preconditioning=config.noise,
            sampler=config.sampler,
            codec=self.codec,
            data=(data_entry("offline", self.data),),
            training={
                "config": comparable(config),
                "loss": msgspec.to_builtins(config.loss),
                "steps": self.step,
                "result": self.info,
            },
        )
        weights = train_state.to_arrays(self.served)
        extra = {}
        if config.save_state:
            extra[bundle.STATE] = train_state.pack(
                self._modules(), self.optimiser, self.generator, self.step
            )
        kept = golden(draft, weights, self.data.observations)
        return bundle.save_bundle(out, draft, weights, kept, extra)

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"online": self.online, "target": self.target, "served": self.served}


def learning_rate(settings: OptimiserSettings, step: int) -> float:
    """Return the rate of update ``step``: linear warm-up, then cosine to the final share."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
    share = settings.final_rate + (1.0 - settings.final_rate) * cosine
    return settings.learning_rate * rise * share


def descend(
    optimiser: torch.optim.Optimizer, loss: Tensor, rate: float, grad_clip: float | None
) -> None:
    """Take one optimiser step down ``loss`` with the gradient's norm limited."""
    parameters = optimiser.param_groups[0]["params"]
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    optimiser.param_groups[0]["lr"] = rate
    optimiser.step()


def comparable(config: TrainConfig) -> dict[str, object]:
    """Return the settings that decide the weights, as JSON values."""
    settings: dict[str, object] = msgspec.json.decode(msgspec.json.encode(config))
    for name in ("data", "out", "log_every", "save_state"):
        del settings[name]
    return settings


def data_entry(role: str, data: Transitions) -> bundle.DataEntry:
    """Return the manifest's line on ``data``; ``role`` is offline or log."""
    fields = {"role": role, "task": data.task, "rows": len(data), "digest": data.digest()}
    return msgspec.convert(fields, bundle.DataEntry)


def require_robot(data: Transitions, spec: Spec) -> None:
    """Raise :class:`DataError` unless ``data`` has the layout of ``spec``."""
    actions = data.actions[:1].size
    if data.layout != layout_of(spec) or actions != spec.action.size:
        raise DataError(
            f"transitions of {data.task or 'unknown task'} have {data.layout} and {actions} "
            f"actions, expected those of {spec.describe()}"
        )


class Stopwatch:
    """Updates per second since it was made.

    Args:
        clock: measures.
        count: updates done before.
    """

    def __init__(self, clock: Clock, count: int = 0) -> None:
        self._clock, self._count, self._start_ns = clock, count, clock.now_ns()

    def rate(self, count: int) -> float:
        """Return updates per second, 0 before any time has passed."""
        elapsed_ns = self._clock.now_ns() - self._start_ns
        return (count - self._count) / (elapsed_ns / 1e9) if elapsed_ns > 0 else 0.0


def write_metrics(stream: IO[bytes], step: int, info: Info) -> None:
    """Append one line of metrics."""
    stream.write(msgspec.json.encode({"step": step, **info}) + b"\n")
    stream.flush()


@contextmanager
def metrics_file(out: Path) -> Iterator[IO[bytes]]:
    """Open the metrics of a run in ``out``, to append to."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / METRICS).open("ab") as stream:
        yield stream


@contextmanager
def torch_settings(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and set its threads inside; leave both as they were outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
