"""Settings of a plan of many live fine-tunings. Reading them needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from controller.ranges import Count, Seed

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
OURS = (
    "parent", "logs", "offline", "out", "task", "live", "resume", "mode", "steps", "minutes",
    "seed",
)  # fmt: skip
"""Settings of a fine-tuning that the plan itself decides."""

Words = tuple[str, ...]
Few = msgspec.Meta(min_length=1)


class OnlineTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the policies of a plan do.

    Attributes:
        task: its name in the simulation.
        data: its offline data: names of datasets or paths of files; the first that is there, or
            can be made, is taken.
        generate: words of ``onebeat data generate`` that make the last of ``data``.
        train: words of ``onebeat train`` for every parent of this task.
        parents: store of a parent by its name, where it is kept elsewhere than in OUT.
        settings: words of ``onebeat finetune`` for every arm of this task.
        paper: more of them, for the arms that begin with ``preset=paper``.
        published: task of the paper that it stands beside; empty for the one that ``data`` means.
    """

    task: str
    data: Words = ()
    generate: Words = ()
    train: Words = ()
    parents: dict[str, str] = {}
    settings: Words = ()
    paper: Words = ()
    published: str = ""


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way of learning.

    Attributes:
        parent: name of the parent that it improves; empty begins from scratch.
        offline: it is given the offline data.
        settings: words of ``onebeat finetune``.
        published: column of the paper's table 4; empty for none.
        tasks: of the plan that it is done on; none for all.
    """

    parent: str = ""
    offline: bool = False
    settings: Words = ()
    published: str = ""
    tasks: tuple[str, ...] = ()


class OnlinePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fine-tune live everything a plan names, and write the learning curves.

    Attributes:
        out: directory of the runs: OUT/TASK/ARM/seed_N holds each, with its curve.jsonl and
            result.json.
        docs: directory that receives online.md, online.png, measurements/online.csv (every
            point of every curve) and measurements/online_results.csv; null for none of it.
        data: directory of the datasets that are made anew.
        policies: directory of the behaviour policies those are made with; null for
            ``policies`` in a directory of ONEBEAT_DATA.
        sources: where the file of a dataset is, by its name.
        tasks: what is done, by the name it has in tables.
        parents: words of ``onebeat train`` by the name of a parent; one is trained for each
            task where it is not there.
        parent_seeds: each seed improves a parent of its own seed, as the paper's do; otherwise
            all of a task improve the same one.
        arms: ways of learning, by name.
        seeds: each is a run.
        steps: control steps of each run, all actors together.
        settings: words of ``onebeat finetune`` for every run.
        only: run; write the tables; or both.
        workers: runs at the same time. Each has four processes: replay service, learner, gate
            and actor.
        ray: run them on a Ray cluster: true for one of this machine, ``ray://HOST:PORT`` or
            ``auto``; OUT and the data must be on a file system that every node has.
        niceness: of these processes; 19 yields to everything.
    """

    tasks: Annotated[dict[str, OnlineTask], Few]
    arms: Annotated[dict[str, Arm], Few]
    out: str = "runs/online"
    docs: str | None = "docs"
    data: str = "runs/data"
    policies: str | None = None
    sources: dict[str, str] = {}
    parents: dict[str, Words] = {}
    parent_seeds: bool = False
    seeds: Annotated[tuple[Seed, ...], Few] = (0, 1, 2, 3, 4)
    steps: Count = 50_000
    settings: Words = ()
    only: Literal["all", "run", "tables"] = "all"
    workers: Count = 1
    ray: bool | str = False
    niceness: Annotated[int, msgspec.Meta(ge=0, le=19)] = 0

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat")
        for what, names in (("tasks", self.tasks), ("arms", self.arms), ("parents", self.parents)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f"{what}: expected a name of a-z, 0-9, _ and -, got {name!r}")
        for name, arm in self.arms.items():
            _among(f"arms.{name}.parent", [arm.parent] if arm.parent else [], self.parents)
            _among(f"arms.{name}.tasks", arm.tasks, self.tasks)
        for name, task in self.tasks.items():
            _among(f"tasks.{name}.parents", task.parents, self.parents)
        for where, word in self._words():
            key, equals, _ = word.partition("=")
            if not equals:
                raise ValueError(f"{where}: expected key=value, got {word!r}")
            if key.strip() in OURS:
                raise ValueError(f"{where}: {word}: {key.strip()} is decided by the plan itself")

    def _words(self) -> Iterator[tuple[str, str]]:
        groups = {"settings": self.settings}
        groups |= {f"arms.{name}.settings": arm.settings for name, arm in self.arms.items()}
        groups |= {f"tasks.{name}.settings": task.settings for name, task in self.tasks.items()}
        groups |= {f"tasks.{name}.paper": task.paper for name, task in self.tasks.items()}
        return ((where, word) for where, words in groups.items() for word in words)


def _among(where: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name} is none of {', '.join(known) or 'none'}")
