"""Settings of a plan of many trainings. Reading them needs no torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from controller.ranges import Count, Device, Seed
from policies.settings import Algorithm

PAPER: tuple[Algorithm, ...] = ("consistency_bc", "diffusion_bc", "consistency_ac", "diffusion_ql")
NAME = re.compile(r"[a-z0-9_]+")
OURS = ("algorithm", "preset", "data", "task", "out", "seed", "seeds", "resume", "device")
"""Settings of a training that the plan itself decides."""


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of the settings, trained beside the plan's own.

    Attributes:
        settings: ``key=value`` words of ``onebeat train``, laid over the plan's.
        algorithms: which it is trained with.
        datasets: which it is trained on; none for all of the plan.
    """

    settings: tuple[str, ...]
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)]
    datasets: tuple[str, ...] = ()


class ReproduceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Train and score everything a plan names, and write the tables.

    A plan is also how several datasets are learned from with one command; several seeds of one
    training need none, as ``onebeat train seeds=[0,1]`` has them.

    Attributes:
        out: directory of the runs: OUT/DATASET/ALGORITHM[-VARIANT]/seed_N holds each, with
            its result.json once it is scored.
        docs: directory that receives reproduction.md, reproduction.png and
            measurements/reproduction.csv; null for no tables. The CSV holds the rows of every
            plan and machine so far, and the page shows them beside this plan's.
        data: directory of the datasets that are made anew.
        policies: directory of the behaviour policies those are made with; null for
            ``policies`` in a directory of ONEBEAT_DATA.
        sources: where the file of a dataset is, by its name; others are looked for in ``data``,
            ONEBEAT_DATA and where downloads are kept. Nothing is downloaded.
        datasets: names of published datasets, such as kitchen-complete-v0, or of recipes of
            ``onebeat data generate``, such as hopper-medium-regen.
        algorithms: what is trained on each.
        seeds: each is a run.
        preset: settings that the paper's four algorithms begin with; the others have their own.
        settings: ``key=value`` words of ``onebeat train`` for every run.
        ladder: more of them, for the algorithms that the paper does not have.
        variants: changes of the settings by name, trained too. Those named steps_N, unscaled,
            scaled and ln_resnet stand beside the paper's ablations.
        only: train; score what is trained; write the tables; or all of it. A machine without
            the simulator trains, and another scores the same OUT.
        workers: processes at work at the same time.
        ray: do it on a Ray cluster: true for one of this machine, ``ray://HOST:PORT`` or
            ``auto``; OUT and the data must be on a file system that every node has.
        together: one process trains all seeds of a cell side by side, as suits a GPU.
        device: cpu or cuda, of the trainings.
        niceness: of these processes; 19 yields to everything.
        evaluate_episodes: episodes that score a run, with the last checkpoint.
        evaluate_seed: of these episodes.
    """

    out: str = "runs/reproduce"
    docs: str | None = "docs"
    data: str = "runs/data"
    policies: str | None = None
    sources: dict[str, str] = {}
    datasets: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = (
        "hopper-medium-expert-regen",
        "kitchen-complete-v0",
    )
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = PAPER
    seeds: Annotated[tuple[Seed, ...], msgspec.Meta(min_length=1)] = (0, 1, 2, 3, 4)
    preset: Literal["own", "paper", "released"] = "released"
    settings: tuple[str, ...] = ()
    ladder: tuple[str, ...] = ()
    variants: dict[str, Variant] = {}
    only: Literal["all", "train", "score", "tables"] = "all"
    workers: Count = 1
    ray: bool | str = False
    together: bool = False
    device: Device = "cpu"
    niceness: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    evaluate_episodes: Count = 100
    evaluate_seed: Seed = 100

    def __post_init__(self) -> None:
        for name in ("datasets", "algorithms", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {list(values)} repeat")
        for name in self.datasets:
            if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
                raise ValueError(
                    f"datasets: {name} is no name; the path of a file goes into sources, by a name"
                )
        for name in self.variants:
            if not NAME.fullmatch(name):
                raise ValueError(f"variants: expected a name of a-z, 0-9 and _, got {name!r}")
        every = (self.settings, self.ladder, *(each.settings for each in self.variants.values()))
        for word in (word for words in every for word in words):
            key, equals, _ = word.partition("=")
            if not equals:
                raise ValueError(f"settings: expected key=value, got {word!r}")
            if key.strip() in OURS:
                raise ValueError(f"settings: {word}: {key.strip()} is decided by the plan itself")
