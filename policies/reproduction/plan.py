"""The runs of a plan: every dataset, algorithm, variant and seed of it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controller.config import load
from policies.presets import BUILDERS, preset_of
from policies.presets import known as paper_task
from policies.reproduction.settings import ReproduceConfig
from policies.settings import TrainConfig

INDIFFERENT = (
    "checkpoint_every", "save_every", "log_every", "tensorboard", "evaluate_episodes", "device",
    "optimiser.compile", "optimiser.threads",
)  # fmt: skip
"""Settings that do not make another experiment of a run."""


@dataclass(frozen=True)
class Cell:
    """One run of a plan.

    Attributes:
        dataset: name of the data.
        algorithm: of ``onebeat train``.
        variant: name of the change of the settings; empty for none.
        seed: of the run.
        preset: what the settings begin with.
        words: ``key=value`` words laid over that.
    """

    dataset: str
    algorithm: str
    variant: str
    seed: int
    preset: Literal["own", "paper", "released"]
    words: tuple[str, ...]

    @property
    def label(self) -> str:
        """Algorithm and variant in one word."""
        return f"{self.algorithm}-{self.variant}" if self.variant else self.algorithm

    @property
    def group(self) -> tuple[str, str]:
        """What the runs of its other seeds have in common with it."""
        return self.dataset, self.label

    @property
    def name(self) -> str:
        """What people call it, also its place below the directory of the runs."""
        return f"{self.dataset}/{self.label}/seed_{self.seed}"

    @property
    def settings(self) -> str:
        """The words that make it the experiment it is."""
        return " ".join(
            word for word in self.words if word.partition("=")[0].strip() not in INDIFFERENT
        )

    def store(self, out: str | Path) -> Path:
        """Return the directory of the run."""
        return Path(out) / self.name

    def command(self, data: str, task: str = "") -> list[str]:
        """Return the words of ``onebeat train`` that say what is learned, seed and store apart."""
        words = [f"algorithm={self.algorithm}", f"preset={self.preset}", f"data={data}"]
        return [*words, *([f"task={task}"] if task else []), *self.words]

    def resolve(self, data: str = "", task: str = "") -> TrainConfig:
        """Return the settings of its training.

        Args:
            data: the file; its name alone where there is none.
            task: of the data; empty where the file says it.

        Raises:
            ConfigError: a word is none of ``onebeat train``, or the preset has no such task.
        """
        return load(TrainConfig, None, self.command(data or self.dataset, task))


def expand(config: ReproduceConfig) -> list[Cell]:
    """Return the runs of a plan: the first seed of everything first, variants behind the rest."""
    return [
        Cell(dataset, algorithm, variant, seed, _preset(config, algorithm), words)
        for variant, seed in _rounds(config)
        for dataset, algorithm, words in _kinds(config, variant)
    ]


def _rounds(config: ReproduceConfig) -> Iterator[tuple[str, int]]:
    for variants in ([""], list(config.variants)):
        for seed in config.seeds:
            for variant in variants:
                yield variant, seed


def _kinds(config: ReproduceConfig, name: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield dataset, algorithm and words of a variant; of the plan's own settings without one."""
    variant = config.variants.get(name)
    algorithms = variant.algorithms if variant else config.algorithms
    for dataset in config.datasets:
        if variant and variant.datasets and dataset not in variant.datasets:
            continue
        for algorithm in algorithms:
            if algorithm in config.algorithms:
                ladder = () if algorithm in BUILDERS else config.ladder
                words = (*config.settings, *ladder, *(variant.settings if variant else ()))
                yield dataset, algorithm, words


def _preset(config: ReproduceConfig, algorithm: str) -> Literal["own", "paper", "released"]:
    return config.preset if algorithm in BUILDERS else "own"


def grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells by dataset, algorithm and variant, in the order of the first of each."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    return list(groups.values())


def paper_updates(dataset: str, algorithm: str) -> int | None:
    """Return the updates that the paper's run of a cell has, None for one it does not have."""
    task = paper_task(dataset)
    if task is None or algorithm not in BUILDERS:
        return None
    updates: int = preset_of("released", algorithm, task)["optimiser"]["steps"]
    return updates
