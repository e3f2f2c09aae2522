"""How far the run of a cell is, by what lies on disk. Needs no torch."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import safetensors

from policies.bundle import read_manifest, resolve
from policies.checkpoints import finished
from policies.errors import BundleError
from policies.metrics import METRICS
from policies.reproduction.plan import Cell
from policies.settings import TrainConfig

STATE = Path("state") / "run.safetensors"
"""What a run goes on from; see ``policies.train_state``."""
ABOUT = "onebeat"
LOCK = STATE.with_name("lock")
TAIL_BYTES = 4096


def trained(store: Path, config: TrainConfig) -> bool:
    """Whether the run of these settings in ``store`` has come to its end.

    Raises:
        BundleError: a run of other settings has.
    """
    try:
        about = read_manifest(resolve(store)).training
    except BundleError:
        return False
    steps = about.get("steps", 0)
    if not finished(store, steps):
        return False
    wanted: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    other = clash(about.get("config", {}), wanted)
    if other:
        raise BundleError(f"{store}: holds a finished run of other settings: {other}")
    return bool(steps == config.optimiser.steps)


def clash(had: Mapping[str, Any], wanted: Mapping[str, Any], place: str = "") -> str:
    """Return in words the first setting known to both that differs, empty if none does.

    Settings that were added since the run are no difference.
    """
    for name in sorted((had.keys() & wanted.keys()) - {"seeds"}):
        old, new = had[name], wanted[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = clash(old, new, f"{place}{name}.")
            if inner:
                return inner
        elif old != new:
            return f"it has {place}{name}={old}, the plan {new}"
    return ""


def busy(store: Path) -> bool:
    """Whether a process is training in ``store``."""
    try:
        stream = (store / LOCK).open("rb")
    except OSError:
        return False
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def begun(store: Path) -> bool:
    """Whether ``store`` has a run that stopped on its way."""
    try:
        with safetensors.safe_open(store / STATE, framework="numpy") as content:
            return not json.loads(content.metadata()[ABOUT])["finished"]
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return False


def last_step(store: Path) -> int:
    """Return the last update that the metrics of a run tell of, 0 without one."""
    try:
        with (store / METRICS).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            lines = stream.read().split(b"\n")
    except OSError:
        return 0
    # What comes after the last end of a line is being written.
    for line in reversed(lines[:-1]):
        try:
            return int(msgspec.json.decode(line)["step"])
        except (msgspec.DecodeError, KeyError, TypeError):
            continue
    return 0


def in_words(cell: Cell, out: str | Path, updates: int) -> str:
    """Return how far the run of a cell without a row is: ``not run``, ``trained, not scored``."""
    store = cell.store(out)
    step = last_step(store)
    if step >= updates:
        return "trained, not scored"
    return f"at update {step:,} of {updates:,}" if step else "not run"
