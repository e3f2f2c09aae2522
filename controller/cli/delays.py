"""The verb that scores policies over the latency of their answers."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.arguments import Arguments
from controller.delays.settings import Arm, DelaysConfig

if TYPE_CHECKING:
    from controller.delays.score import DelayRow
    from controller.interfaces import Clock, Plant

POLL_S = 0.1


def delays(config: DelaysConfig, arguments: Arguments) -> int:
    """Score every arm under every delay."""
    from controller.delays.page import print_rows, write
    from controller.display import console, put_json

    _check(config)
    workers = min(config.processes or os.cpu_count() or 1, len(config.delays_ms))
    rows = _side_by_side(config, workers) if workers > 1 else _one_by_one(config)
    names = [arm.name for arm in config.arms]
    rows.sort(key=lambda row: (names.index(row.arm), row.delay_ms))
    files = write(rows, Path(config.out))
    if arguments.json:
        put_json({"rows": rows})
    else:
        print_rows(rows, console())
        console().print(", ".join(map(str, files)), markup=False)
    return 0


def _check(config: DelaysConfig) -> None:
    """Find a wrong name or robot before anything is played.

    Raises:
        BundleError: there is no such policy.
        ConfigError: there is no such task.
        SpecMismatch: a policy is of another robot.
    """
    from policies.bundle import load_bundle
    from sim.registry import task_named

    for arm in config.arms:
        spec = load_bundle(arm.bundle).spec
        task = task_named(config.task or spec.task)
        spec.require(task.spec(), f"the policy {arm.bundle}", f"the task {task.name}")


def _one_by_one(config: DelaysConfig) -> list[DelayRow]:
    from controller.display import progress_bar

    cells = [(arm, delay_ms) for arm in config.arms for delay_ms in config.delays_ms]
    rows: list[DelayRow] = []
    with progress_bar("playing") as advance:
        for arm, delay_ms in cells:
            rows.append(_play(config, arm, delay_ms))
            advance(len(rows), len(cells))
    return rows


def _side_by_side(config: DelaysConfig, workers: int) -> list[DelayRow]:
    """Play in processes, each with its share of the delays."""
    from controller.config import to_yaml
    from controller.delays.score import DelayRows
    from controller.launch import command
    from controller.process import Child, ChildDied, StopFlag, Supervisor

    with (
        tempfile.TemporaryDirectory(prefix="onebeat-delays-") as directory,
        StopFlag() as stop,
        Supervisor() as supervisor,
    ):
        outputs: list[Path] = []
        for number in range(workers):
            place = Path(directory) / str(number)
            place.mkdir()
            share = msgspec.structs.replace(
                config,
                delays_ms=config.delays_ms[number::workers],
                processes=1,
                out=str(place),
            )
            (place / "config.yaml").write_text(to_yaml(share), encoding="utf-8")
            words = command("delays", str(place / "config.yaml"), "--json")
            outputs.append(place / "rows.json")
            supervisor.start(Child(words, f"player {number}", stdout=outputs[-1]))
        while any(child.poll() is None for child in supervisor.children):
            if stop():
                raise KeyboardInterrupt
            time.sleep(POLL_S)
        for child in supervisor.children:
            if child.poll() != 0:
                raise ChildDied(f"{child.name} ({child.status()}): {child.last_error()}")
        found = [msgspec.json.decode(path.read_bytes(), type=DelayRows) for path in outputs]
    return [row for each in found for row in each.rows]


def _play(config: DelaysConfig, arm: Arm, delay_ms: float) -> DelayRow:
    from controller.cli.sources import has_success, open_policy, reference
    from controller.delays.score import score
    from sim.registry import make_plant
    from sim.twin import TwinPlant

    policy = open_policy(arm.bundle, config.engine, "cpu", arm.act)
    task = config.task or policy.spec.task

    def plant(clock: Clock) -> Plant:
        return TwinPlant(make_plant(task, seed=config.seed), clock)

    return score(config, arm, delay_ms, policy, plant, reference(task), has_success(task))
