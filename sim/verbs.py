"""The verbs of ``onebeat sim``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.display import aside, console, put_json, put_rows, say
from controller.keys import server_keys
from controller.realtime import urgent
from controller.signals import StopFlag
from sim.check_runner import Verdict, check_tasks
from sim.faults import faulty
from sim.lockstep_server import LockstepServer
from sim.registry import describe, make_plant, task_named, tasks
from sim.server import RealTimeServer
from sim.settings import CheckConfig, SimConfig, TableConfig


def sim_list(arguments: Arguments) -> int:
    """List the tasks, family by family."""
    rows = describe()
    if arguments.json:
        put_json(rows)
        return 0
    for family in dict.fromkeys(row["family"] for row in rows):
        console().print(f"\n[bold]{family}")
        put_rows([_short(row) for row in rows if row["family"] == family], as_json=False)
    return 0


def _short(row: Mapping[str, Any]) -> dict[str, object]:
    """Return what fits a terminal; JSON has all."""
    shown: dict[str, object] = {name: row[name] for name in ("task", "obs", "act")}
    shown |= {"hz": f"{row['rate_hz']:g}", "steps": row["max_steps"]}
    if row["ref_min"] is not None:
        shown |= {"score 0": f"{row['ref_min']:.4g}", "score 100": f"{row['ref_max']:.5g}"}
    if row["datasets"]:
        shown["datasets"] = _abridged(row["datasets"])
    return shown


def _abridged(names: Sequence[str]) -> str:
    """Return the last of many names and how many more there are."""
    return names[-1] if len(names) == 1 else f"{names[-1]} +{len(names) - 1}"


def sim_check(config: CheckConfig, arguments: Arguments) -> int:
    """Check tasks, every one by default; status 1 if any fails."""
    names = list(dict.fromkeys(task_named(name).name for name in config.tasks or tasks()))
    processes = config.processes or len(os.sched_getaffinity(0))
    screen = aside()
    verdicts: dict[str, Verdict] = {}
    for one in check_tasks(names, processes=processes, limit_s=config.limit_s, steps=config.steps):
        verdicts[one.task] = one
        told = f"ok     {one.task}" if one.ok else f"FAILS  {one.task}: {one.why}"
        count = f"{len(verdicts):>{len(str(len(names)))}}/{len(names)} {one.seconds:6.1f} s"
        screen.out(f"{count}  {told}", style=None if one.ok else "red")
    failed = [name for name in names if not verdicts[name].ok]
    if arguments.json:
        put_json([{"task": n, "ok": verdicts[n].ok, "why": verdicts[n].why} for n in names])
    else:
        console().print(f"{len(names) - len(failed)} of {len(names)} tasks keep their promises")
    return 1 if failed else 0


def sim_table(config: TableConfig, arguments: Arguments) -> int:
    """Write the page of all tasks from what was measured."""
    from sim.measurements import read_measurements
    from sim.task_table import table_text

    text = table_text(read_measurements(Path(config.measurements)))
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    say({"tasks": len(tasks()), "out": str(out)}, arguments.json)
    return 0


def sim_serve(config: SimConfig, arguments: Arguments) -> int:
    """Run a plant in real time or in lockstep until SIGTERM or Ctrl-C."""
    in_lockstep = config.mode == "lockstep"
    with StopFlag() as stop, urgent("off" if in_lockstep else config.sched_fifo):
        plant = make_plant(config.task, seed=config.seed, dumps=config.dumps)
        clock, keys = MonotonicClock(), server_keys(config.keys)
        server: LockstepServer | RealTimeServer
        if in_lockstep:
            server = LockstepServer(faulty(plant, config.faults), config.endpoint, clock, keys=keys)
        else:
            server = RealTimeServer(plant, config.endpoint, clock, faults=config.faults, keys=keys)
        console().print(f"{plant.spec.describe()} at {server.endpoint}")
        server.run(stop)
    return 0
