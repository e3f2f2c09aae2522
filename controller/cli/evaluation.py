"""The verb that scores policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.clock import MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from controller.interfaces import VectorPlant
    from controller.scores import Evaluation, Figures
    from controller.settings import EvalConfig
    from controller.stats import RunReport
    from policies.evaluation import Trial
    from policies.selection import Choice

COPIES = 10
"""Most copies of a task that are stepped together unless more are asked for."""


def evaluate(config: EvalConfig, arguments: Arguments) -> int:
    """Score policies over seeded episodes."""
    from controller.display import progress_bar
    from policies.selection import choose, find

    choices = [choose(place, config.selection, config.top_k) for place in find(config.bundles)]
    trials = [_trial(choice, config) for choice in choices]
    total = config.episodes * sum(len(choice.bundles) for choice in choices)
    with progress_bar("evaluating") as advance:
        stage = _Stage(config, lambda done: advance(done, total))
        try:
            results = [_score(c, t, stage) for c, t in zip(choices, trials, strict=True)]
        finally:
            stage.close()
    _put(results, arguments)
    return 0


def _put(results: Sequence[Evaluation], arguments: Arguments) -> None:
    from controller.display import console, put_json, say
    from controller.report import print_table
    from controller.score_tables import facts_of, print_evaluations
    from controller.scores import groups

    if len(results) > 1:
        if arguments.json:
            put_json({"evaluations": results, "summary": groups(results)})
        else:
            print_evaluations(results, console())
    elif arguments.json:
        put_json(results[0])
    else:
        say(facts_of(results[0]), as_json=False)
        if results[0].run is not None:
            print_table(results[0].run, console())


def _trial(choice: Choice, config: EvalConfig) -> Trial:
    """Return what the policies of a run are scored under.

    Every one is loaded, so that a fault in the last does not show after the others' episodes.

    Raises:
        ConfigError: there is no such task, or a policy's answers have fewer rows than are to
            be executed.
        SpecMismatch: a policy is of another robot.
        BundleError: a bundle is damaged, or cannot act as asked.
    """
    from controller.cli.sources import reference
    from policies.batch import load_batch
    from policies.evaluation import Trial, executed
    from sim.registry import task_named

    policies = [load_batch(b, config.engine, config.device, config.act) for b in choice.bundles]
    name = config.task or policies[0].spec.task
    task = task_named(name)
    for bundle, policy in zip(choice.bundles, policies, strict=True):
        policy.spec.require(task.spec(), f"the policy {bundle}", f"the task {name}")
        executed(config.execute, policy.horizon)
    return Trial(
        task=name,
        episodes=config.episodes,
        seed=config.seed,
        reference=reference(name),
        has_success=task.has_success,
        engine=config.engine,
        device=config.device,
        act=config.act,
        execute=config.execute,
        through=config.through,
        copies=1 if config.through == "loop" else min(config.copies or COPIES, config.episodes),
    )


def _score(choice: Choice, trial: Trial, stage: _Stage) -> Evaluation:
    """Play every bundle of a choice and record the best; mostly there is but one."""
    from policies.evaluation import best, record

    clock = MonotonicClock()
    start_ns = clock.now_ns()
    played = [stage.play(bundle, trial) for bundle in choice.bundles]
    seconds = (clock.now_ns() - start_ns) / 1e9 / len(played)
    index = best([figures for figures, _ in played])
    figures, run = played[index]
    return record(
        choice.bundles[index],
        figures,
        trial,
        seconds,
        selection=stage.config.selection,
        checkpoints=choice.checkpoints,
        note=choice.note,
        run=run,
    )


class _Stage:
    """Where episodes are played; keeps the plants as long as the task is the same.

    Args:
        config: settings of the verb.
        on_progress: called with the episodes over so far.
    """

    def __init__(self, config: EvalConfig, on_progress: Callable[[int], None]) -> None:
        self.config = config
        self._on_progress = on_progress
        self._done = 0
        self._plants: VectorPlant | None = None
        self._task = ""

    def play(self, bundle: Path, trial: Trial) -> tuple[Figures, RunReport | None]:
        """Play the episodes of one policy."""
        if trial.through == "loop":
            return self._through_loop(bundle, trial)
        from policies.evaluation import play

        return play(bundle, self._plants_of(trial), trial, self._count), None

    def close(self) -> None:
        """Release the plants."""
        if self._plants is not None:
            self._plants.close()

    def _plants_of(self, trial: Trial) -> VectorPlant:
        if self._plants is None or self._task != trial.task:
            from sim.vector import make_vector

            self.close()
            processes = self.config.processes
            self._plants = make_vector(
                trial.task, trial.copies, seed=trial.seed, processes=processes
            )
            self._task = trial.task
        return self._plants

    def _through_loop(self, bundle: Path, trial: Trial) -> tuple[Figures, RunReport]:
        from controller.cli.sources import open_plant
        from controller.evaluate import score
        from policies.engine import load_policy

        policy = load_policy(bundle, trial.engine, trial.device, act=trial.act)
        plant = open_plant(trial.task, trial.seed, self.config.faults, "runs/unstable")
        try:
            scored = score(self.config, bundle, plant, policy, trial.reference, trial.has_success)
        finally:
            plant.close()
        self._count(trial.episodes)
        return scored

    def _count(self, episodes: int = 1) -> None:
        self._done += episodes
        self._on_progress(self._done)
