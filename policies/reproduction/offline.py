"""Where the offline data of a live fine-tuning are, or how they are made. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.reproduction import sources
from policies.reproduction.online_settings import OnlinePlan, OnlineTask
from policies.reproduction.sources import NO_POLICIES, RECIPE, Source


@dataclass(frozen=True)
class Offline:
    """Offline data of a task.

    Attributes:
        path: the file; where it is to be made if ``words`` are given.
        task: what ``onebeat train`` must be told of it; empty where the file says it.
        words: of ``onebeat data generate`` that make it; none where it is there, or cannot be.
        missing: why there is none, in a few words; empty where there is, or it can be made.
    """

    path: Path
    task: str = ""
    words: tuple[str, ...] = ()
    missing: str = ""


def offline_of(task: OnlineTask, plan: OnlinePlan) -> Offline | None:
    """Return the data of a task: the first that are there or can be made, else why none is.

    None for a task that has none.
    """
    found = [_one(name, task, plan) for name in task.data]
    if not found:
        return None
    there = [each for each in found if not each.words and not each.missing]
    made = [each for each in found if each.words]
    return next(iter((*there, *made)), found[0])


def _one(name: str, task: OnlineTask, plan: OnlinePlan) -> Offline:
    generate = task.generate if name == task.data[-1] else ()
    if "/" in name or name.endswith(".hdf5") or generate:
        path = Path(name) if "/" in name or name.endswith(".hdf5") else _usual(name, plan)
        if path.is_file():
            return Offline(path)
        if not generate:
            return Offline(path, missing=f"{path}: no such file")
        return _made(path, generate, plan)
    return _found(name, sources.find(name, plan), plan)


def _usual(name: str, plan: OnlinePlan) -> Path:
    return Path(plan.sources.get(name) or Path(plan.data) / f"{name}.hdf5")


def _made(path: Path, generate: tuple[str, ...], plan: OnlinePlan) -> Offline:
    """Return data that words of the plan make; a recipe also wants its policies."""
    recipe = generate[0].removeprefix("task=").endswith(RECIPE)
    more: tuple[str, ...] = ()
    if recipe and not any(word.startswith("policies=") for word in generate):
        policies = next(sources.behaviour(plan), None)
        if policies is None:
            return Offline(path, missing=NO_POLICIES)
        more = (f"policies={policies}",)
    return Offline(path, words=(*generate, *more, f"out={path}"))


def _found(name: str, source: Source, plan: OnlinePlan) -> Offline:
    if source.policies is None:
        return Offline(source.path, source.task, missing=source.missing)
    return _made(source.path, (f"task={name}", f"policies={source.policies}"), plan)
