"""The runs of a plan of live fine-tunings, and the parents they begin from. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.arguments import parse
from controller.config import load
from policies.finetuning.settings import FinetuneConfig
from policies.presets import known as paper_task
from policies.reproduction.online_settings import Arm, OnlinePlan, OnlineTask
from policies.settings import TrainConfig

PARENTS = "parents"
"""Directory beside the arms of a task that holds the parents trained for it."""
PAPER = "preset=paper"
CHANGEABLE = (
    "parent", "live", "resume", "out", "threads", "niceness", "log_every", "save_every", "actors",
    "device", "replay.endpoint", "replay.save_every_s", "replay.server_keys", "replay.client_keys",
)  # fmt: skip
"""Settings that do not make another experiment of a run."""


@dataclass(frozen=True)
class OnlineCell:
    """One run of a plan.

    Attributes:
        place: name of the task in the plan.
        label: name of the arm.
        seed: of the run.
        steps: control steps it is to have.
        task: what is done.
        arm: how it is learned.
        words: ``key=value`` words of ``onebeat finetune``.
    """

    place: str
    label: str
    seed: int
    steps: int
    task: OnlineTask
    arm: Arm
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people call it, also its place below the directory of the runs."""
        return f"{self.place}/{self.label}/seed_{self.seed}"

    def store(self, out: str | Path) -> Path:
        """Return the directory of the run."""
        return Path(out) / self.name

    def command(self, out: str | Path, parent: Path | None, offline: Path | None) -> list[str]:
        """Return the words of ``onebeat finetune`` for it.

        Args:
            out: directory of the runs.
            parent: what it improves; None from scratch.
            offline: its offline data; None for none.
        """
        return [
            *([f"parent={parent}"] if parent else []),
            *([f"offline={offline}"] if offline else []),
            f"task={self.task.task}",
            "live=true",
            "mode=lockstep",
            f"steps={self.steps}",
            f"seed={self.seed}",
            f"out={self.store(out)}",
            *self.words,
        ]

    def resolve(self, out: str | Path, parent: Path | None, offline: Path | None) -> FinetuneConfig:
        """Return its settings.

        Raises:
            ConfigError: a word is none of ``onebeat finetune``.
        """
        return load(FinetuneConfig, None, self.command(out, parent, offline))


@dataclass(frozen=True)
class Parent:
    """A policy that runs improve.

    Attributes:
        place: name of the task in the plan.
        kind: its name in the plan.
        seed: of its training; None for the one that all seeds share.
        kept: its store where it is not below the plan's OUT; empty otherwise.
        words: of ``onebeat train``, a settings file among them.
    """

    place: str
    kind: str
    seed: int | None
    kept: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        seed = "" if self.seed is None else f"/seed_{self.seed}"
        return f"{self.place}/{PARENTS}/{self.kind}{seed}"

    def store(self, out: str | Path) -> Path:
        """Return where it is."""
        return Path(self.kept) if self.kept else Path(out) / self.name

    def command(self, out: str | Path, data: str, task: str) -> list[str]:
        """Return the words of ``onebeat train`` for it.

        Args:
            out: directory of the runs.
            data: the file it is learned from.
            task: of the data; empty where the file says it.
        """
        named = [*([f"task={task}"] if task else []), f"seed={self.seed or 0}"]
        return [*self.words, f"data={data}", *named, f"out={self.store(out)}"]

    def resolve(self, data: str, task: str = "") -> TrainConfig:
        """Return the settings of its training.

        Raises:
            ConfigError: a word is none of ``onebeat train``.
        """
        words = parse(self.command("", data, task))
        return load(TrainConfig, words.file, words.overrides)


def expand(plan: OnlinePlan) -> list[OnlineCell]:
    """Return the runs of a plan: the first seed of everything first."""
    return [
        OnlineCell(place, label, seed, plan.steps, task, arm, _words(plan, task, arm))
        for seed in plan.seeds
        for place, task in plan.tasks.items()
        for label, arm in plan.arms.items()
        if not arm.tasks or place in arm.tasks
    ]


def _words(plan: OnlinePlan, task: OnlineTask, arm: Arm) -> tuple[str, ...]:
    paper = task.paper if PAPER in arm.settings else ()
    return (*plan.settings, *task.settings, *paper, *arm.settings)


def parent_of(cell: OnlineCell, plan: OnlinePlan) -> Parent | None:
    """Return what a run improves, None if it begins from scratch."""
    kind = cell.arm.parent
    if not kind:
        return None
    kept = cell.task.parents.get(kind, "")
    own = plan.parent_seeds and not kept
    words = (*plan.parents[kind], *cell.task.train)
    return Parent(cell.place, kind, cell.seed if own else None, kept, words)


def published_task(task: OnlineTask) -> str:
    """Return the task of the paper that results stand beside, empty for none."""
    found = (paper_task(name) for name in task.data)
    return task.published or next(filter(None, found), "")


def labels(cells: Sequence[OnlineCell]) -> list[str]:
    """Return the names of the arms in the plan's order."""
    return list(dict.fromkeys(cell.label for cell in cells))
