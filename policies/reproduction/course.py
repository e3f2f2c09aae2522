"""A plan from where it stands to its end: data made, runs trained, scored, rows written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from controller.acting import ActSettings
from controller.clock import MonotonicClock
from controller.errors import ControllerError
from controller.interfaces import Clock
from controller.scores import Evaluation
from policies.bundle import load_bundle, read_manifest, resolve
from policies.errors import BundleError
from policies.evaluation import Trial, action_us
from policies.reproduction import results, sources, standing
from policies.reproduction.children import Job, carry_out
from policies.reproduction.origin import Origin, commit, machine, read_origin, write_origin
from policies.reproduction.plan import Cell, expand, grouped
from policies.reproduction.results import Row
from policies.reproduction.settings import ReproduceConfig
from policies.reproduction.sources import Source
from policies.settings import TrainConfig

log = logging.getLogger(__name__)

CANDIDATES = 50
"""Actions drawn for one where the time of such a choice is measured, as in the paper."""
AT_WORK = "another process is training it"


@dataclass
class Tally:
    """What became of the cells of a plan, by name.

    Attributes:
        trained: in this call.
        scored: in this call.
        failed: last words of what failed.
        busy: cells that another process is training.
        missing: why there is no data, by dataset.
    """

    trained: list[str] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


class Course:
    """The work that a plan still needs.

    Args:
        config: the plan.
        clock: times the actions.

    Attributes:
        cells: its runs.
        tally: what became of them so far.

    Raises:
        ConfigError: a word of the plan is none of ``onebeat train``.
    """

    def __init__(self, config: ReproduceConfig, clock: Clock | None = None) -> None:
        self.config, self.cells, self.tally = config, expand(config), Tally()
        self._clock = clock or MonotonicClock()
        self._sources = {name: sources.find(name, config) for name in config.datasets}
        self.tally.missing = {n: s.missing for n, s in self._sources.items() if s.missing}
        self._settings = {group[0].group: self._resolved(group[0]) for group in grouped(self.cells)}
        self._commit = commit()
        self._steps: dict[str, int] = {}

    def _resolved(self, cell: Cell) -> TrainConfig:
        source = self._sources[cell.dataset]
        return cell.resolve(str(source.path), source.task)

    def updates(self, cell: Cell) -> int:
        """Return the updates that the run of a cell is to have."""
        return self._settings[cell.group].optimiser.steps

    def row(self, cell: Cell) -> Row | None:
        """Return the row of a cell, None where it has none, or one of another plan."""
        row = results.read_row(cell.store(self.config.out))
        return row if row is not None and row.of(cell, self.updates(cell)) else None

    def _scored_as_planned(self, row: Row) -> bool:
        planned = (self.config.evaluate_episodes, self.config.evaluate_seed)
        return (row.episodes, row.episodes_seed) == planned

    def finish(
        self,
        should_stop: Callable[[], bool] = bool,
        on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    ) -> bool:
        """Do what is left to do; return whether everything had its turn.

        Args:
            should_stop: asked all the while; True ends the processes, which save their state.
            on_progress: called with what is done and what there is, and further figures; see
                :meth:`progress`.
        """
        if self.config.only == "tables":
            return True

        def show() -> None:
            if on_progress is not None:
                told = {"scored": len(self.tally.scored), "failed": len(self.tally.failed)}
                on_progress(*self.progress(), told)

        whole = carry_out(self.config, self.jobs(), self._clock, should_stop, show)
        if self.config.only != "train":
            self._time_actions(should_stop)
        return whole

    def jobs(self) -> list[Job]:
        """Return what can be done now; the rest comes of it."""
        trains = self.config.only != "score"
        to_make = {n: s for n, s in self._sources.items() if s.policies is not None and trains}
        made = [self._generate(name, source) for name, source in to_make.items()]
        return [*made, *self._work_on(name for name in self._sources if name not in to_make)]

    def _work_on(self, names: Iterable[str]) -> list[Job]:
        chosen = set(names)
        cells = [cell for cell in self.cells if cell.dataset in chosen]
        return [job for unit in self._units(cells) for job in self._next(unit)]

    def _units(self, cells: list[Cell]) -> list[list[Cell]]:
        """Return what a process trains each: a cell, or those that differ in their seed alone.

        One that was begun alone goes on alone.
        """
        if not self.config.together:
            return [[cell] for cell in cells]
        alone = [cell for cell in cells if standing.begun(cell.store(self.config.out))]
        return [*([cell] for cell in alone), *grouped([c for c in cells if c not in alone])]

    def _generate(self, name: str, source: Source) -> Job:
        words = [f"task={name}", f"policies={source.policies}", f"out={source.path}"]
        return Job(
            name=f"data {name}",
            verb="data generate",
            words=[*words, f"processes={self.config.workers}"],
            log=Path(self.config.out) / name / "generate.log",
            after=lambda: self._work_on([name]),
            failed=lambda words: self.tally.missing.update({name: words}),
        )

    def _next(self, cells: list[Cell]) -> list[Job]:
        """Return the jobs of cells that are trained together: their training, or their scores.

        What was trained elsewhere is scored without its data.
        """
        todo, jobs = [], []
        for cell in cells:
            try:
                row = self.row(cell)
                if row is not None and self._scored_as_planned(row):
                    continue
                if standing.trained(cell.store(self.config.out), self._settings[cell.group]):
                    jobs += self._score(cell)
                elif row is None:
                    todo.append(cell)
            except BundleError as error:
                self.tally.failed[cell.name] = f"{error}; choose another out, or move it away"
        there = todo and todo[0].dataset not in self.tally.missing
        if there and self.config.only != "score":
            jobs.append(self._train(todo))
        return jobs

    def _train(self, cells: list[Cell]) -> Job:
        first, source = cells[0], self._sources[cells[0].dataset]
        store = first.store(self.config.out)
        seed = f"seed={first.seed}"
        if self.config.together and not standing.begun(store):
            store, seed = store.parent, f"seeds={[cell.seed for cell in cells]}"
        words = [*first.command(str(source.path), source.task), f"out={store}", seed]
        if self.config.device != "cpu":
            # What is captured in a graph needs no fusing.
            words += [f"device={self.config.device}", "optimiser.compile=false"]
        if standing.begun(store):
            words.append("resume=true")

        def skip() -> bool:
            stores = {store, *(cell.store(self.config.out) for cell in cells)}
            at_work = any(map(standing.busy, stores))
            self.tally.busy += [cell.name for cell in cells] if at_work else []
            return at_work

        return Job(
            name=f"train {first.name}",
            verb="train",
            words=[*words, "--json"],
            log=store / "train.log",
            skip=skip,
            after=lambda: self._trained(cells),
            failed=lambda words: self._failed(cells, words),
        )

    def _trained(self, cells: list[Cell]) -> list[Job]:
        here = Origin(machine(self.config.device), len(cells), self._commit)
        for cell in cells:
            write_origin(cell.store(self.config.out), here)
        self.tally.trained += [cell.name for cell in cells]
        return [job for cell in cells for job in self._score(cell)]

    def _score(self, cell: Cell) -> list[Job]:
        if self.config.only == "train":
            return []
        store = cell.store(self.config.out)
        answer = store / "evaluation.json"
        words = [
            str(store),
            f"episodes={self.config.evaluate_episodes}",
            f"seed={self.config.evaluate_seed}",
            "processes=1",
            "--json",
        ]
        return [
            Job(
                name=f"eval {cell.name}",
                verb="eval",
                words=words,
                log=store / "eval.log",
                stdout=answer,
                after=lambda: self._scored(cell, answer),
                failed=lambda words: self._failed([cell], words),
            )
        ]

    def _scored(self, cell: Cell, answer: Path) -> list[Job]:
        store = cell.store(self.config.out)
        try:
            scored = msgspec.json.decode(answer.read_bytes(), type=Evaluation)
            manifest = read_manifest(resolve(store))
        except (OSError, msgspec.DecodeError, BundleError) as error:
            self._failed([cell], f"{answer}: {error}")
            return []
        # A run without a note was trained by hand, and is taken to be of this machine.
        origin = read_origin(store) or Origin(machine())
        row = results.make_row(cell, store, manifest, scored, origin, machine())
        results.write_row(store, row)
        self.tally.scored.append(cell.name)
        return []

    def _failed(self, cells: list[Cell], words: str) -> None:
        self.tally.failed |= {cell.name: words for cell in cells}

    def _time_actions(self, should_stop: Callable[[], bool]) -> None:
        """Measure the time of an action where a row lacks it, with no process of ours at work."""
        for cell in self.cells:
            row, store = self.row(cell), cell.store(self.config.out)
            if should_stop():
                return
            if row is None or row.action_us is not None:
                continue
            try:
                one, many = action_times(store, self._clock)
            except ControllerError as error:
                log.warning("%s: its actions were not timed: %s", cell.name, error)
                continue
            timed = msgspec.structs.replace(row, action_us=one, action_us_50=many)
            results.write_row(store, timed)

    def progress(self) -> tuple[int, int]:
        """Return the updates done, and those of all cells that have data; or rows and cells.

        The latter where the plan only scores.
        """
        if self.config.only == "score":
            return sum(self.row(cell) is not None for cell in self.cells), len(self.cells)
        done = total = 0
        for cell in self.cells:
            if cell.dataset in self.tally.missing:
                continue
            updates = self.updates(cell)
            total += updates
            if self._steps.get(cell.name, 0) < updates:
                self._steps[cell.name] = standing.last_step(cell.store(self.config.out))
            done += min(self._steps[cell.name], updates)
        return done, total

    def reasons(self) -> dict[str, str]:
        """Return why cells have no row, by name."""
        out = self.config.out
        return {
            cell.name: self.tally.missing.get(cell.dataset)
            or self.tally.failed.get(cell.name)
            or (AT_WORK if cell.name in self.tally.busy else "")
            or standing.in_words(cell, out, self.updates(cell))
            for cell in self.cells
            if self.row(cell) is None
        }


def action_times(store: Path, clock: Clock) -> tuple[float, float | None]:
    """Return the median microseconds of one action: drawn once, and the best of 50.

    The latter is None for a policy without critics.

    Raises:
        ControllerError: the bundle is damaged.
    """
    bundle = load_bundle(store)

    def timed(candidates: int) -> float:
        act = ActSettings(candidates=candidates)
        return action_us(bundle, Trial(task=bundle.spec.task, episodes=1, act=act), clock)

    return timed(1), timed(CANDIDATES) if bundle.critics() else None
