"""One run of training, or several side by side: data, learner, what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
import torch

from controller.spec import Spec
from controller.transitions import Transitions
from policies import bundle, codec
from policies.algos.learner import Figures, Sizes
from policies.disk import replace_file
from policies.errors import BundleError, TrainingDiverged
from policies.golden import golden
from policies.learners import make_learner
from policies.settings import TrainConfig
from policies.stepper import make_stepper
from policies.table import Table, require_fit
from policies.train_state import Saved, restore, write_state

FREE = (
    "data", "out", "preset", "resume", "checkpoint_every", "save_every", "log_every",
    "tensorboard", "evaluate_episodes", "device", "seed",
)  # fmt: skip
"""Settings that may differ when a run is taken up again. The seeds are compared as a whole."""
UNNAMED = {"horizon": 1}
"""What settings mean that do not name it."""
DIVERGED = "diverged.safetensors"


class Training:
    """R runs: their networks, their data and how far they are.

    Args:
        config: what to do.
        data: what to learn from.
        spec: the robot; its limits set the scale of the actions.
        out: where the runs leave what they keep.

    Attributes:
        step: updates done.
        stores: the directory of each run.

    Raises:
        DataError: see :func:`policies.table.require_fit`.
        BundleError: ``config.device`` is not there.
    """

    def __init__(self, config: TrainConfig, data: Transitions, spec: Spec, out: Path) -> None:
        require_device(config.device)
        data = require_fit(data, spec, config.optimiser.batch, clip=config.clip_actions)
        self.config, self.data, self.spec, self.out = config, data, spec, out
        self.codec = codec.fit(data, spec, config.observation, normalise=config.normalise)
        width = config.horizon * self.codec.action_size
        sizes = Sizes(width, self.codec.condition_size, config.runs, config.device)
        self.learner = make_learner(config, sizes)
        self._table = Table(data, self.codec, config.reward, config.device, config.horizon)
        self._stepper = make_stepper(self.learner, self._table, config.optimiser.batch)
        self.step, self._since = 0, 0
        self._digest = data.digest()
        # Sums of 50 000 losses: float32 would lose their last three digits.
        self._losses = torch.zeros(len(config.runs), dtype=torch.float64, device=config.device)
        self._figures: Figures = {}
        self.stores = [out / f"seed_{seed}" for seed in config.seeds] if config.seeds else [out]

    def advance(self) -> None:
        """Do one update.

        Raises:
            TrainingDiverged: a figure is not finite. On CUDA that is looked for only when
                figures are asked for.
        """
        self._figures = self._stepper(self.step)
        self.step += 1
        if "loss" in self._figures:
            self._since += 1
            self._losses += self._figures["loss"]
        if self.config.device == "cpu":
            self._require_finite()

    def figures(self) -> list[dict[str, float]]:
        """Return the figures of the last update, of each run."""
        self._require_finite()
        columns = {name: values.tolist() for name, values in self._figures.items()}
        return [
            {name: values[run] for name, values in columns.items()}
            for run in range(len(self.stores))
        ]

    def _require_finite(self) -> None:
        for name, values in self._figures.items():
            if not math.isfinite(float(values.sum())):
                raise self._diverged(name, int(values.isfinite().logical_not().int().argmax()))

    def _diverged(self, name: str, run: int) -> TrainingDiverged:
        """Keep the batch; return what to raise when ``name`` of a run is not finite."""
        file = self.out / DIVERGED
        batch = self._table.take(self._stepper.rows)
        arrays = {key: value.cpu().numpy() for key, value in vars(batch).items()}
        arrays |= {"rows": self._stepper.rows.cpu().numpy(), "update": np.array(self.step)}
        contiguous = {key: np.asarray(array, order="C") for key, array in arrays.items()}
        replace_file(file, safetensors.numpy.save(contiguous))
        group, rate = "optimiser", self.config.optimiser.learning_rate
        if name in ("q_loss", "q"):
            group, rate = ("value", self.config.value.learning_rate)
        who = f" of seed {self.config.runs[run]}" if self.config.seeds else ""
        return TrainingDiverged(
            f"{name}{who} is no longer finite at update {self.step}: lower "
            f"{group}.learning_rate (now {rate:g}), or look for outliers in the batch, which is "
            f"in {file}; the bundles and the state from before are as they were"
        )

    def mean_losses(self) -> list[float | None]:
        """Return the mean imitation loss of each run since the last call, None without one."""
        if not self._since:
            return [None] * len(self.stores)
        means = (self._losses / self._since).tolist()
        self._losses.zero_()
        self._since = 0
        return list(means)

    def about(self, *, finished: bool) -> dict[str, Any]:
        """Return what is written beside a state."""
        return {
            "config": comparable(self.config),
            "data": self._digest,
            "spec": self.spec.digest(),
            "step": self.step,
            "since": self._since,
            "losses": self._losses.tolist(),
            "finished": finished,
        }

    def save(self, *, finished: bool = False) -> None:
        """Write the state to go on from."""
        write_state(self.out, self.learner, self.about(finished=finished))

    def restore(self, saved: Saved) -> None:
        """Go on where the run that left ``saved`` stopped.

        Raises:
            BundleError: it had other settings, data or another robot.
        """
        about, now = saved.about, self.about(finished=False)
        other = difference(UNNAMED | about["config"], now["config"])
        if other:
            raise BundleError(f"{self.out}: cannot resume: {other}")
        for name, what in (("spec", "robot"), ("data", "data")):
            if about[name] != now[name]:
                raise BundleError(
                    f"{self.out}: cannot resume: the {what} is another: the run has "
                    f"[{about[name]}], this is [{now[name]}]"
                )
        restore(saved, self.learner)
        self.step, self._since = about["step"], about["since"]
        self._losses.copy_(torch.tensor(about["losses"], dtype=torch.float64))

    def publish(self) -> list[Path]:
        """Write the bundle of each run as its store's current one.

        Raises:
            TrainingDiverged: a policy gives actions that are not finite; none is current then.
        """
        made = [self._bundle(run, store) for run, store in enumerate(self.stores)]
        return [bundle.publish(*each) for each in zip(made, self.stores, strict=True)]

    def _bundle(self, run: int, store: Path) -> Path:
        config, critics = self.config, self.learner.critic_arrays(run)
        figures = self.figures() if self._figures else [{}] * len(self.stores)
        draft = bundle.Draft(
            algorithm=config.algorithm,
            spec=self.spec,
            model=self.learner.model,
            sampler=config.sampler,
            codec=self.codec,
            data=(bundle.DataEntry("offline", self.data.task, len(self.data), self._digest),),
            training={
                "config": comparable(config) | {"seeds": [config.runs[run]]},
                "preset": config.preset,
                "steps": self.step,
                "result": figures[run],
            },
            critic=self.learner.critic,
            horizon=config.horizon,
        )
        weights = self.learner.policy_arrays(run)
        with np.errstate(over="ignore", invalid="ignore"):
            kept = golden(draft, weights, self.data.observations, critics)
        if not np.isfinite(kept["actions"]).all():
            raise self._diverged("an action", run)
        extra = {bundle.CRITICS: critics} if critics else {}
        return bundle.save_bundle(store, draft, weights, kept, extra)


def require_device(device: str) -> None:
    """Raise :class:`BundleError` unless ``device`` is there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BundleError("device is cuda, but torch finds no GPU here; valid now: cpu")


def comparable(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide the weights, as JSON values."""
    settings: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    kept = {name: value for name, value in settings.items() if name not in FREE}
    return kept | {"seeds": list(config.runs)}


def difference(had: Mapping[str, Any], have: Mapping[str, Any], place: str = "") -> str | None:
    """Return in words the first setting in which a saved run differs, None if none does."""
    for name in sorted(had.keys() | have.keys()):
        old, new = had.get(name), have.get(name)
        key = f"{place}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = difference(old, new, f"{key}.")
            if inner:
                return inner
        elif old != new:
            return f"the run has {key}={old}, these settings have {new}"
    return None
