"""The whole circle on built-in data: collect, train, serve, run, log, fine-tune, report.

Every step is a command a user could type; this module only puts them in a row and times the
hot swap.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from controller.control import control
from controller.display import run_bar
from controller.errors import ControllerError
from controller.launch import LiveRun, command, run_line
from controller.log_reader import read_log
from controller.plots import maze_paths_png, tracks_of
from controller.process import Child, StopFlag
from controller.report import Extras, Picture, print_table, write_html
from controller.run_log import RunLog
from controller.settings import DemoConfig, PolicySettings, RunConfig
from controller.stats import RunReport, missed_between
from controller.types import Array

Maze = tuple[NDArray[np.bool_], float]
"""Walls (rows, columns) and the edge of a cell in metres."""
Animate = Callable[[Mapping[str, Array], Path], Path]
"""Draws observations, by array name, into a GIF."""

ANIMATED_EPISODES = 5
REST_TICKS = 40
"""Ticks to show at a goal before the next episode."""


class DemoFailed(ControllerError, RuntimeError):
    """A step of the demo failed."""


class Finetune(msgspec.Struct, frozen=True):
    """What the fine-tuning during the run did.

    Attributes:
        updates: gradient updates of the actor and critics.
        seconds: wall-clock time of the learner, reading the log included.
        transitions: rows it read from the log.
        version_before: version that drove until the swap.
        version_after: version that drove from the swap on; that before where the new one was
            refused.
        swap_ms: swap requested to first action of the new version; None where it was refused.
        ticks_missed_in_swap: missed ticks from the start of the learner to one second after
            the first action of the new version, or after it was refused.
        score_before: lockstep score of the version before, over seeded episodes.
        score_after: the same of the version after.
        success_before: lockstep success rate of the version before.
        success_after: the same of the version after.
        refused: why the new version was refused; empty where it was not.
    """

    updates: int
    seconds: float
    transitions: int
    version_before: str
    version_after: str
    swap_ms: float | None
    ticks_missed_in_swap: int
    score_before: float | None = None
    score_after: float | None = None
    success_before: float | None = None
    success_after: float | None = None
    refused: str = ""


def prepare(out: Path) -> None:
    """Make an empty directory for the demo; an earlier demo there moves to ``OUT.old``."""
    if out.exists() and any(out.iterdir()):
        old = out.with_name(f"{out.name}.old")
        if old.exists():
            shutil.rmtree(old)
        out.rename(old)
    out.mkdir(parents=True, exist_ok=True)


def title(console: Console, text: str) -> None:
    """Print the headline of a step."""
    console.rule(f"[bold]{text}", align="left", style="dim")


def step(console: Console, verb: str, *words: str) -> None:
    """Run one command in the foreground.

    Raises:
        DemoFailed: it ended with an error, which it has already told.
    """
    console.print(f"$ onebeat {verb} {' '.join(words)}", style="dim", soft_wrap=True)
    console.file.flush()
    code = subprocess.call(command(verb, *words))
    if code:
        raise DemoFailed(f"`onebeat {verb}` ended with status {code}")


def answer(verb: str, *words: str) -> dict[str, Any]:
    """Run one command with ``--json`` and return what it answered.

    Raises:
        DemoFailed: it ended with an error.
    """
    done = subprocess.run(
        command(verb, *words, "--json"), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise DemoFailed(f"`onebeat {verb}` ended with status {done.returncode}")
    value: dict[str, Any] = json.loads(done.stdout)
    return value


class Learner:
    """The fine-tuning process beside the running loop, at the lowest priority."""

    def __init__(self, config: DemoConfig, log: Path, out: Path) -> None:
        words = (
            f"parent={out / 'bundles'}",
            f"logs=[{log}]",
            f"offline={out / 'data.hdf5'}",
            f"out={out}",
            f"seed={config.seed}",
            "--json",
        )
        self.started_ns = time.monotonic_ns()
        self._answer = out / "finetune.json"
        self._child = Child(
            command("finetune", config.finetune, *words),
            "fine-tuning",
            niceness=19,
            stdout=self._answer,
        ).start()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._child.poll() is not None

    def stop(self) -> None:
        """End it, if it still runs."""
        self._child.stop(timeout_s=2.0)

    def result(self) -> dict[str, Any]:
        """Return what it answered.

        Raises:
            DemoFailed: it ended with an error.
        """
        if self._child.poll() != 0:
            raise DemoFailed(f"fine-tuning: {self._child.last_error() or self._child.status()}")
        value: dict[str, Any] = json.loads(self._answer.read_text())
        return value


class Drive:
    """The run in real time, with fine-tuning beside it and a swap in its middle.

    Attributes:
        learned: what the learner answered.
        started_ns: when the learner was started, monotonic.
        asked_ns: when the swap was asked for, or the new version refused, monotonic.
    """

    def __init__(self, config: DemoConfig, out: Path) -> None:
        self._config, self._out = config, out
        self._learner: Learner | None = None
        self.learned: dict[str, Any] = {}
        self.started_ns = self.asked_ns = 0

    @property
    def refused(self) -> bool:
        """Whether the new version was judged not good enough."""
        return bool(self.learned) and self.learned["rejected_versions"] > 0

    def run(self, console: Console) -> None:
        """Drive to the end.

        Raises:
            DemoFailed: the fine-tuning failed, or the run ended before it was done.
        """
        config = self._config
        settings = RunConfig(
            task=config.task,
            seconds=config.seconds,
            seed=config.seed,
            out=str(self._out),
            policy=PolicySettings(bundle=str(self._out / "bundles"), local_replica=True),
        )
        with StopFlag() as stop, run_bar(config.seconds) as show, LiveRun(settings) as live:

            def look(status: dict[str, int]) -> bool:
                elapsed_s = live.elapsed_s(status)
                note = self._advance(live, elapsed_s)
                show(elapsed_s, f"{run_line(status)} · {note}")
                return stop()

            try:
                for line in live.wait(look):
                    console.print(line, style="yellow")
            finally:
                if self._learner is not None:
                    self._learner.stop()
        if stop():
            raise KeyboardInterrupt
        if not self.learned:
            raise DemoFailed("the run ended before the fine-tuning did: raise seconds=")

    def _advance(self, live: LiveRun, elapsed_s: float) -> str:
        if self._learner is None:
            if elapsed_s < self._config.finetune_after_s:
                return "logging"
            self._learner = Learner(self._config, live.log, self._out)
            self.started_ns = self._learner.started_ns
        if not self._learner.done:
            return "fine-tuning from the log"
        if not self.learned:
            self.learned = self._learner.result()
            self.asked_ns = time.monotonic_ns()
            if not self.refused:
                bundle = {"bundle": self.learned["bundle"]}
                control(live.policy_endpoint, "swap", bundle, timeout_s=10.0)
        if self.refused:
            return f"the new version was refused, {self.learned['version_after']} goes on"
        return f"swapped to {self.learned['version_after']}"


def swap_facts(log: RunLog, drive: Drive) -> Finetune:
    """Read from the log what the swap cost, or the learning where there was none."""
    learned = drive.learned
    after = str(learned["version_after"])
    first_ns = drive.asked_ns
    if not drive.refused:
        acted = log.sent_ns[[version == after for version in log.versions]]
        first_ns = int(acted[0]) if len(acted) else first_ns
    return Finetune(
        updates=int(learned["updates"]),
        seconds=float(learned["seconds"]),
        transitions=int(learned["env_steps"]),
        version_before=str(learned["version_before"]),
        version_after=after,
        swap_ms=None if drive.refused else (first_ns - drive.asked_ns) / 1e6,
        ticks_missed_in_swap=missed_between(log, drive.started_ns, first_ns + 1_000_000_000),
        refused="; ".join(learned["reasons"]),
    )


def compare(config: DemoConfig, out: Path, finetune: Finetune) -> Finetune:
    """Add the lockstep scores of both versions over the same seeded episodes."""
    how = (f"episodes={config.eval_episodes}", "through=loop")
    versions = dict.fromkeys((finetune.version_before, finetune.version_after))
    scored = [answer("eval", f"bundle={out / 'bundles' / version}", *how) for version in versions]
    before, after = scored[0], scored[-1]
    return msgspec.structs.replace(
        finetune,
        score_before=before["score_mean"],
        score_after=after["score_mean"],
        success_before=before["success"],
        success_after=after["success"],
    )


def circle(config: DemoConfig, console: Console) -> tuple[RunLog, Finetune]:
    """Do everything up to the report; return the log and the facts of the fine-tuning."""
    out = Path(config.out)
    prepare(out)
    data = f"{out / 'data.hdf5'}"
    title(console, "1  Data: a waypoint controller drives the maze")
    about = (f"task={config.task}", f"seed={config.seed}")
    step(console, "data generate", config.data, *about, f"out={data}")
    title(console, "2  Train: Consistency-BC, one network evaluation per action")
    step(console, "train", config.train, *about, f"data={data}", f"out={out / 'bundles'}")
    title(console, "3-6  Serve, run at a fixed rate, log; fine-tune from the log and hot-swap")
    drive = Drive(config, out)
    drive.run(console)
    title(console, "7  Report: both versions over the same episodes, and every action again")
    log = read_log(out / "log.mcap")
    finetune = compare(config, out, swap_facts(log, drive))
    step(console, "replay", str(log.path))
    return log, finetune


def pictures(log: RunLog, maze: Maze, animate: Animate, out: Path) -> list[Picture]:
    """Draw the run into ``paths.png`` and, where the machine can render, ``run.gif``."""
    goals = np.unique(log.observations["desired_goal"], axis=0)
    walls, cell_m = maze
    paths = maze_paths_png(walls, cell_m, tracks_of(log, "observation"), goals)
    (out / "paths.png").write_bytes(paths)
    drawn = [Picture("Driven paths", "Goals as stars; one colour per policy version.", paths)]
    about = "Episodes up to their goals, rendered by MuJoCo from the log."
    rows = under_way(log)
    columns = {name: column[rows] for name, column in log.observations.items()}
    try:
        picture = animate(columns, out / "run.gif").read_bytes()
        drawn.append(Picture("The run", about, picture))
    except ControllerError as error:
        drawn.append(Picture("The run", about, missing=str(error)))
    return drawn


def under_way(log: RunLog) -> NDArray[np.bool_]:
    """Return (T,) the rows of the first episodes on the way to the goal, and a short rest."""
    rows = np.zeros(len(log), np.bool_)
    for episode in np.unique(log.episode)[:ANIMATED_EPISODES]:
        mine = np.flatnonzero(log.episode == episode)
        reached = np.flatnonzero(log.success[mine])
        rows[mine[: reached[0] + REST_TICKS] if len(reached) else mine] = True
    return rows


def write_report(
    out: Path, report: RunReport, log: RunLog, finetune: Finetune, drawn: Sequence[Picture]
) -> None:
    """Write ``report.json`` and ``report.html``."""
    facts = msgspec.to_builtins(report) | {"finetune": msgspec.to_builtins(finetune)}
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))
    extras = Extras(pictures=drawn, finetune=facts["finetune"])
    write_html(out / "report.html", report, log, extras)


def print_end(
    console: Console, out: Path, report: RunReport, finetune: Finetune, drawn: Sequence[Picture]
) -> None:
    """Print the report of the demo and where to look next."""
    print_table(report, console)
    console.print(_swap_line(finetune))
    console.print(
        f"lockstep, same episodes: success {_share(finetune.success_before)} -> "
        f"{_share(finetune.success_after)}, score {_score(finetune.score_before)} -> "
        f"{_score(finetune.score_after)}"
    )
    for picture in drawn:
        if picture.data is None:
            console.print(f"no picture of {picture.title.lower()}: {picture.missing}")
    console.print(f"\n{out / 'report.html'}  {out / 'report.json'}  {out / 'log.mcap'}")


def _swap_line(done: Finetune) -> str:
    learned = (
        f"fine-tuned {done.updates} updates on {done.transitions} logged steps in "
        f"{done.seconds:.1f} s: {done.version_before} -> "
    )
    missed = f"{done.ticks_missed_in_swap} ticks missed"
    if done.swap_ms is None:
        return f"{learned}refused, {missed}: {done.refused}"
    return (
        f"{learned}{done.version_after}, {missed}, first action {done.swap_ms:.0f} ms after the "
        "swap was asked for"
    )


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"


def _score(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
