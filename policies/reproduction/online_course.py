"""A plan of live fine-tunings from where it stands to its end: data, parents, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from controller.clock import MonotonicClock
from controller.errors import ControllerError
from controller.interfaces import Clock
from controller.yaml_source import read_mapping
from policies.bundle import resolve
from policies.errors import BundleError
from policies.finetuning.settings import FinetuneConfig
from policies.reproduction import online_results, standing
from policies.reproduction.children import Job, carry_out
from policies.reproduction.course import AT_WORK
from policies.reproduction.offline import Offline, offline_of
from policies.reproduction.online_plan import (
    CHANGEABLE,
    OnlineCell,
    Parent,
    expand,
    parent_of,
    published_task,
)
from policies.reproduction.online_results import OnlineRow, Point
from policies.reproduction.online_settings import OnlinePlan
from policies.reproduction.origin import Origin, commit, machine, write_origin

SETTINGS = "finetune.yaml"
"""What a run that was begun was begun with."""


@dataclass
class OnlineTally:
    """What became of the runs of a plan, by name.

    Attributes:
        run: to their end in this call.
        failed: last words of what failed: runs, parents and data.
        missing: why there are no data, by task.
        waiting: why a run cannot begin, where its parent is not there.
    """

    run: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


class OnlineCourse:
    """The work that a plan of live fine-tunings still needs.

    Args:
        plan: the plan.
        clock: of the progress that is told.

    Attributes:
        cells: its runs.
        tally: what became of them so far.

    Raises:
        ConfigError: a word of the plan is none of ``onebeat finetune`` or ``onebeat train``.
    """

    def __init__(self, plan: OnlinePlan, clock: Clock | None = None) -> None:
        self.config, self.cells, self.tally = plan, expand(plan), OnlineTally()
        self._clock = clock or MonotonicClock()
        self._offline = {place: offline_of(task, plan) for place, task in plan.tasks.items()}
        for place, offline in self._offline.items():
            if offline is not None and offline.missing:
                self.tally.missing[place] = offline.missing
        self._resolved: dict[str, FinetuneConfig] = {}
        self._parents = {cell.name: parent_of(cell, plan) for cell in self.cells}
        for cell in (cell for cell in self.cells if cell.seed == plan.seeds[0]):
            self._settings(cell)
            parent = self._parents[cell.name]
            if parent is not None:
                parent.resolve(str(self._file(cell) or "data"))
        self._asked: set[str] = set()
        self._steps: dict[str, int] = {}
        self._commit = commit()

    def _file(self, cell: OnlineCell) -> Path | None:
        offline = self._offline[cell.place]
        return offline.path if offline is not None else None

    def _settings(self, cell: OnlineCell) -> FinetuneConfig:
        if cell.name not in self._resolved:
            self._resolved[cell.name] = cell.resolve(self.config.out, *self._given(cell))
        return self._resolved[cell.name]

    def _given(self, cell: OnlineCell) -> tuple[Path | None, Path | None]:
        """Return the parent and the offline data that a run is told of."""
        parent = self._parents[cell.name]
        store = parent.store(self.config.out) if parent is not None else None
        return store, self._file(cell) if cell.arm.offline else None

    def finish(
        self,
        should_stop: Callable[[], bool] = bool,
        on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    ) -> bool:
        """Do what is left to do; return whether everything had its turn.

        Args:
            should_stop: asked all the while; True ends the runs, which can go on later.
            on_progress: called with steps done and planned, and further figures.
        """

        def show() -> None:
            if on_progress is not None:
                told = {"run": len(self.tally.run), "failed": len(self.tally.failed)}
                on_progress(*self.progress(), told)

        return carry_out(self.config, self.jobs(), self._clock, should_stop, show)

    def jobs(self) -> list[Job]:
        """Return what can be done now; the rest comes of it."""
        todo = [cell for cell in self.cells if not self._done(cell)]
        later = [cell for cell in todo if self._wants_data(cell)]
        places = dict.fromkeys(cell.place for cell in later)
        made = [self._generate(place, later) for place in places]
        return [*made, *self._next(cell for cell in todo if cell not in later)]

    def _done(self, cell: OnlineCell) -> bool:
        """Whether a run has had all its steps, and its closing scores."""
        result = online_results.read_result(cell, self.config.out)
        if int(result.get("env_steps") or 0) < cell.steps:
            return False
        after = result.get("after") or {}
        scored = after.get("return_mean") is not None
        return scored or not self._settings(cell).evaluate_episodes

    def _wants_data(self, cell: OnlineCell) -> bool:
        """Whether a run cannot begin before its data are made."""
        offline = self._offline[cell.place]
        to_make = offline is not None and bool(offline.words) and not offline.path.is_file()
        parent = self._parents[cell.name]
        return to_make and (cell.arm.offline or (parent is not None and not self._ready(parent)))

    def _generate(self, place: str, later: list[OnlineCell]) -> Job:
        offline = self._offline[place]
        assert offline is not None
        waiting = [cell for cell in later if cell.place == place]
        return Job(
            name=f"data {place}",
            verb="data generate",
            words=[*offline.words, f"processes={self.config.workers}"],
            log=Path(self.config.out) / place / "generate.log",
            after=lambda: self._next(waiting),
            failed=lambda words: self.tally.missing.update({place: words}),
        )

    def _next(self, cells: Iterable[OnlineCell]) -> list[Job]:
        """Return the runs that can begin, and the training of parents that others wait for."""
        jobs = []
        for cell in cells:
            parent = self._parents[cell.name]
            try:
                if parent is None or self._ready(parent):
                    jobs += self._run(cell)
                elif parent.name not in self._asked:
                    self._asked.add(parent.name)
                    jobs += self._train(parent, cell)
            except (BundleError, ControllerError) as error:
                self.tally.failed[cell.name] = str(error)
        return jobs

    def _ready(self, parent: Parent) -> bool:
        """Whether a parent is there, trained to its end.

        Raises:
            BundleError: a finished run of other settings is in its place.
        """
        store = parent.store(self.config.out)
        if parent.kept:
            try:
                resolve(store)
            except BundleError:
                return False
            return not standing.begun(store) and not standing.busy(store)
        offline = self._offline[parent.place] or Offline(Path("data"))
        return standing.trained(store, parent.resolve(str(offline.path), offline.task))

    def _train(self, parent: Parent, cell: OnlineCell) -> list[Job]:
        offline, store = self._offline[parent.place], parent.store(self.config.out)
        waiting = [one for one in self.cells if self._parents[one.name] == parent]
        if offline is None or offline.missing:
            why = offline.missing if offline else f"tasks.{parent.place}.data: none to train with"
            self._wait([*waiting, cell], f"no parent {store}, and {why}")
            return []
        words = parent.command(self.config.out, str(offline.path), offline.task)
        resume = ["resume=true"] if standing.begun(store) else []

        def skip() -> bool:
            busy = standing.busy(store)
            if busy:
                self._wait(waiting, f"parent {store}: {AT_WORK}")
            return busy

        def failed(words: str) -> None:
            self.tally.failed[parent.name] = words
            self._wait(waiting, f"its parent failed: {words}")

        return [
            Job(
                name=f"train {parent.name}",
                verb="train",
                words=[*words, *resume, "--json"],
                log=Path(self.config.out) / f"{parent.name}.log",
                skip=skip,
                after=lambda: self._next(one for one in waiting if not self._done(one)),
                failed=failed,
            )
        ]

    def _wait(self, cells: Iterable[OnlineCell], why: str) -> None:
        self.tally.waiting |= {cell.name: why for cell in cells if not self._done(cell)}

    def _run(self, cell: OnlineCell) -> list[Job]:
        offline, out = self._offline[cell.place], self.config.out
        if cell.arm.offline and (offline is None or offline.missing):
            why = offline.missing if offline else "the task has no data"
            self._wait([cell], f"no offline data: {why}")
            return []
        store = cell.store(out)
        begun = (store / SETTINGS).is_file()
        if begun and (other := self._clash(cell)):
            self.tally.failed[cell.name] = (
                f"{store}: holds a run of other settings: {other}; choose another out, or move it"
            )
            return []
        words = cell.command(out, *self._given(cell))
        return [
            Job(
                name=f"finetune {cell.name}",
                verb="finetune",
                words=[*words, *(["resume=true"] if begun else []), "--json"],
                log=Path(out) / f"{cell.name}.log",
                stdout=Path(out) / f"{cell.name}.json",
                after=lambda: self._ran(cell),
                failed=lambda words: self.tally.failed.update({cell.name: words}),
            )
        ]

    def _clash(self, cell: OnlineCell) -> str:
        """Return in words what a run that was begun has otherwise than the plan."""
        had = read_mapping(cell.store(self.config.out) / SETTINGS)
        wanted: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self._settings(cell)))
        for key in CHANGEABLE:
            group, _, last = key.rpartition(".")
            (wanted[group] if group else wanted).pop(last, None)
        return standing.clash(had, wanted)

    def _ran(self, cell: OnlineCell) -> list[Job]:
        here = Origin(machine(self._settings(cell).device), 1, self._commit)
        write_origin(cell.store(self.config.out), here)
        self.tally.run.append(cell.name)
        return []

    def progress(self) -> tuple[int, int]:
        """Return the control steps done, and those of all runs that can be done."""
        done = total = 0
        for cell in self.cells:
            if cell.name in self.tally.waiting:
                continue
            total += cell.steps
            if self._steps.get(cell.name, 0) < cell.steps:
                points = online_results.read_curve(cell, self.config.out)
                self._steps[cell.name] = points[-1].env_steps if points else 0
            done += min(self._steps[cell.name], cell.steps)
        return done, total

    def rows(self) -> list[OnlineRow]:
        """Return what came of the runs that have ended, the whole of them or a part."""
        return [
            online_results.make_row(cell, self.config.out, published_task(cell.task))
            for cell in self.cells
            if online_results.read_result(cell, self.config.out)
        ]

    def points(self) -> list[Point]:
        """Return every point of every curve."""
        return [p for cell in self.cells for p in online_results.read_curve(cell, self.config.out)]

    def reasons(self) -> dict[str, str]:
        """Return why runs are not finished, by name."""
        return {
            cell.name: self.tally.waiting.get(cell.name)
            or self.tally.failed.get(cell.name)
            or self._in_words(cell)
            for cell in self.cells
            if not self._done(cell)
        }

    def _in_words(self, cell: OnlineCell) -> str:
        points = online_results.read_curve(cell, self.config.out)
        return f"at step {points[-1].env_steps:,} of {cell.steps:,}" if points else "not run"
