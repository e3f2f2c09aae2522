"""Made-up experience of the toy robot: rows, logs, settings of a small fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from controller.feed.rows import RowLayout
from controller.log_schema import LogHeader
from controller.run_log import RunLog
from controller.transitions import Transitions
from controller.types import Rung, TickRecord
from policies.finetuning.logged import RUN_EPISODE, Logs
from policies.finetuning.settings import FinetuneConfig, GateSettings, LearnSettings
from policies.model import CriticSettings
from tests.controller.records import PERIOD_NS, header, tick, written
from tests.policies.robots import SPEC, toy_data

LAYOUT = RowLayout.of(SPEC)
SMALL = CriticSettings(count=2, hidden=(16, 16), layer_norm=True)


def config(out: Path, learn: dict[str, object] | None = None, **changes: object) -> FinetuneConfig:
    """Return settings of a fine-tuning that takes a moment."""
    fields = {"batch": 32, "critic_updates": 5, "critic": SMALL, "subset": 0} | (learn or {})
    return FinetuneConfig(
        **{
            "out": str(out),
            "updates": 10,
            "seed": 1,
            "learn": LearnSettings(**fields),
            "gate": GateSettings(on=False),
        }
        | changes
    )


def changed(settings: FinetuneConfig, **learn: object) -> FinetuneConfig:
    """Return settings with others of ``learn``."""
    return msgspec.structs.replace(settings, learn=msgspec.structs.replace(settings.learn, **learn))


def logs_of(data: Transitions, kinds: object = 0) -> Logs:
    """Return transitions as if they had been read from logs; episodes are those of the data."""
    kind = np.broadcast_to(np.asarray(kinds, np.uint8), len(data))
    return Logs(replace(data, info={"kind": kind, RUN_EPISODE: data.episode}), ("a.mcap",))


def rows_of(data: Transitions, kinds: object = 0) -> np.ndarray:
    """Return transitions as rows."""
    rows = np.zeros((len(data), LAYOUT.width), np.float32)
    views = LAYOUT.split(rows)
    views["observation"][:] = data.observations
    views["next_observation"][:] = data.next_observations
    views["action"][:] = views["acted"][:] = data.actions.reshape(len(data), -1)
    views["reward"][:], views["terminal"][:] = data.rewards, data.terminals
    views["timeout"][:], views["kind"][:] = data.timeouts, kinds
    return rows


def to_the_right(rows: int, seed: int = 0) -> Transitions:
    """Return a bandit: every step ends its episode, and force to the right is what it earns.

    The forces are those of the data's policy with a spread, so that critics can tell them apart.
    """
    data = toy_data(rows, seed)
    rng = np.random.default_rng(seed + 100)
    drawn = np.clip(data.actions + rng.normal(0.0, 0.7, data.actions.shape), -2, 2)
    return replace(
        data,
        actions=drawn.astype(np.float32),
        rewards=drawn[:, 0].astype(np.float64),
        terminals=np.ones(rows, bool),
        timeouts=np.zeros(rows, bool),
    )


def toy_tick(number: int, episode: int = 0, **changes: object) -> TickRecord:
    """Return a tick of the toy robot; the steps of an episode are its ticks."""
    rng = np.random.default_rng(number)
    return tick(
        number,
        arrays=tuple(rng.standard_normal(array.shape) for array in SPEC.observation),
        episode=episode,
        stamp_ns=number * PERIOD_NS,
        **changes,
    )


def toy_header(**changes: object) -> LogHeader:
    """Return the header of a run of the toy robot."""
    return header(**({"spec": SPEC, "task": "toy"} | changes))


def toy_log(path: Path, ticks: int = 120, episodes: int = 3, **changes: object) -> RunLog:
    """Write a run of whole episodes of the policy; every tenth command is the safe one."""
    records = []
    for number in range(ticks):
        held = {"rung": Rung.HOLD} if number % 10 == 9 else {}
        records.append(toy_tick(number, episode=number * episodes // ticks, **held))
    path.parent.mkdir(parents=True, exist_ok=True)
    return written(path, records, toy_header(**changes))
