"""Runs the trials one after the other and judges them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from controller.errors import ConfigError, ControllerError
from controller.faults.settings import FaultTrialsConfig
from controller.faults.stage import Stage, ends_within, stage
from controller.faults.trials import FAULTS, Fault
from controller.faults.verdict import FaultRow, Trial, judge
from controller.launch import RunFailed
from controller.log_reader import read_log
from controller.spelling import nearest

MAY_HANG_S = 10.0
"""How much longer than planned a run may take before it counts as hung."""
START_S = 60.0
LOOK_S = 0.1
WELL_S = 1.0
"""After this time of fresh actions a run is over: longer than what counts as recovered."""


def chosen(names: tuple[str, ...]) -> dict[str, Fault]:
    """Return the faults of these names; all of them for none.

    Raises:
        ConfigError: there is no fault of a name.
    """
    for name in names:
        if name not in FAULTS:
            close = nearest(name, FAULTS)
            hint = f"did you mean {close}? " if close else ""
            raise ConfigError(f"faults: no fault {name!r}; {hint}valid: {', '.join(FAULTS)}")
    return {name: FAULTS[name] for name in names} if names else dict(FAULTS)


def run_trials(
    config: FaultTrialsConfig, begun: Callable[[str, Fault], None]
) -> Iterator[FaultRow]:
    """Yield the row of each fault once it is known.

    Args:
        config: settings; ``bundle`` is a directory and ``task`` is given.
        begun: called with the name of each fault before it.

    Raises:
        ConfigError: there is no fault of a name.
    """
    for name, fault in chosen(config.faults).items():
        begun(name, fault)
        yield run_trial(config, name, fault)


def run_trial(config: FaultTrialsConfig, name: str, fault: Fault) -> FaultRow:
    """Run a system, inject one fault, and return what it did."""
    out = Path(config.out) / name
    shutil.rmtree(out, ignore_errors=True)
    seconds = config.before_s + fault.lasts_s + config.after_s
    try:
        with stage(config, out, fault.wire, seconds, fault.loop) as made:
            reason = fault.possible(made)
            if reason:
                return FaultRow(fault=name, rate_hz=config.rate_hz, note=reason)
            ended_ns = _play(made, fault)
            if not ends_within(made.live, config.after_s + MAY_HANG_S):
                made.complaints.append("the run hung")
            status = made.live.status()
            notes, complaints = made.notes, made.complaints
    except (RunFailed, ControllerError, OSError) as error:
        note = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return FaultRow(fault=name, rate_hz=config.rate_hz, ok=False, note=note)
    trial = Trial(ended_ns, status, tuple(complaints), tuple(notes))
    return judge(name, read_log(out), trial, fault.expected)


def _play(made: Stage, fault: Fault) -> int:
    """Inject the fault and take it away; return when that was, on the loop's clock."""
    config, live = made.config, made.live
    started = time.monotonic()

    def reached(seconds: float) -> Callable[[dict[str, int]], bool]:
        def look(status: dict[str, int]) -> bool:
            if not status["ticks"] and time.monotonic() - started > START_S:
                raise ControllerError(f"no tick within {START_S:g} s")
            return live.elapsed_s(status) >= seconds

        return look

    live.wait(reached(config.before_s))
    fault.begin(made)
    until = time.monotonic() + fault.lasts_s
    while time.monotonic() < until:
        live.wait(lambda status: True)
        time.sleep(min(0.02, fault.lasts_s))
    fault.end(made)
    ended_ns = time.monotonic_ns()
    _keep_watch(made)
    return ended_ns


def _keep_watch(made: Stage) -> None:
    """Look after the run's processes until it is over, or has been well for a while."""
    began = well_since = time.monotonic()
    before = made.live.status()
    while made.live.running and time.monotonic() - began < made.config.after_s:
        try:
            made.live.wait(lambda status: True)
        except RunFailed:
            return
        status = made.live.status()
        if not _all_fresh(before, status):
            well_since = time.monotonic()
        before = status
        if time.monotonic() - max(well_since, began) >= WELL_S:
            made.live.stop()
            return
        time.sleep(LOOK_S)


def _all_fresh(before: Mapping[str, int], status: Mapping[str, int]) -> bool:
    """Return whether all ticks between two looks were fresh, but for those between episodes."""
    lower = ("tail", "local", "stop")
    grown = {name: status[name] - before[name] for name in (*lower, "fresh", "hold", "episodes")}
    between = grown["hold"] == 0 or grown["episodes"] > 0
    return grown["fresh"] > 0 and between and not any(grown[name] for name in lower)
