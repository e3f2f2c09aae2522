"""The verbs of ``onebeat sim``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controller.arguments import Arguments
from controller.clock import MonotonicClock
from controller.display import console, put_rows
from controller.realtime import urgent
from controller.signals import StopFlag
from sim.registry import describe, make_plant
from sim.server import RealTimeServer
from sim.settings import SimConfig


def sim_list(arguments: Arguments) -> int:
    """List the tasks."""
    rows = describe()
    put_rows(rows if arguments.json else [_short(row) for row in rows], arguments.json)
    return 0


def _short(row: Mapping[str, Any]) -> dict[str, object]:
    """Return what fits a terminal; JSON has all."""
    shown = ("task", "family", "obs", "act", "rate_hz", "max_steps", "ref_min", "ref_max")
    return {name: row[name] for name in shown} | {"datasets": _abridged(row["datasets"])}


def _abridged(names: Sequence[str]) -> str:
    """Return the first of many names and how many more there are."""
    return ", ".join(names) if len(names) < 2 else f"{names[0]} +{len(names) - 1}"


def sim_serve(config: SimConfig, arguments: Arguments) -> int:
    """Run a plant in real time until SIGTERM or Ctrl-C."""
    with StopFlag() as stop, urgent(config.sched_fifo):
        plant = make_plant(config.task, seed=config.seed)
        server = RealTimeServer(plant, config.endpoint, MonotonicClock())
        console().print(f"{plant.spec.describe()} at {config.endpoint}")
        server.run(stop)
    return 0
