"""The verbs that work on logs: view, recover, replay."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.arguments import Arguments
from controller.cli.sources import has_success, open_policy, open_twin, reference
from controller.errors import LogError

if TYPE_CHECKING:
    from controller.interfaces import Policy
    from controller.run_log import RunLog
    from controller.settings import RecoverConfig, ReplayConfig, ViewLogConfig


def view(config: ViewLogConfig, arguments: Arguments) -> int:
    """Show a log to Foxglove until its end, or until Ctrl-C or SIGTERM."""
    from controller.clock import MonotonicClock
    from controller.log_parts import log_at
    from controller.log_reader import read_header
    from controller.log_tail import LogTail
    from controller.signals import StopFlag
    from controller.view import Projector, follow, is_growing, play
    from controller.view_foxglove import FoxgloveScreen

    head, clock = log_at(Path(config.log)), MonotonicClock()
    name = f"onebeat {head}"
    if not config.follow:
        name = f"onebeat {read_header(head).task or head.name}"
    with StopFlag() as stop, FoxgloveScreen(config.port, name) as screen:
        if not arguments.json:
            sys.stderr.write(f"onebeat view: open {screen.address} in Foxglove\n")
        projector = Projector(LogTail(head), screen)
        wanted = lambda: not stop()  # noqa: E731
        if config.follow or is_growing(head, time.time()):
            if not config.follow:
                projector.catch_up(quietly=True)
            follow(projector, clock, wanted)
        else:
            play(projector, screen, clock, wanted, speed=config.speed, wait=config.wait)
    if arguments.json:
        from controller.display import put_json

        put_json({"log": str(head), "shown": projector.shown, "complete": projector.tail.ended})
    return 0


def recover_log(config: RecoverConfig, arguments: Arguments) -> int:
    """Write what can be read of a log into a new one."""
    from controller.display import say
    from controller.log_recovery import recover

    say(recover(config.log, config.out).facts(), arguments.json)
    return 0


def replay_log(config: ReplayConfig, arguments: Arguments) -> int:
    """Recompute a log, status 1 where an action differs; or run it under another latency."""
    from controller.display import say
    from controller.log_reader import read_log
    from controller.replay import refilter_of, replay

    log = read_log(config.log)
    if config.latency.wanted:
        return _replay_under(config, log, arguments)
    find = _finder(config, log)
    result = replay(log, find, refilter_of(log), tolerance=config.tolerance)
    say(result.facts(log), arguments.json)
    if result.first_mismatch is not None:
        raise LogError(f"{config.log}: {result.first_mismatch}")
    if result.skipped:
        why = "; ".join(f"{count} ticks: {reason}" for reason, count in result.skipped.items())
        hint = "; name a store with bundles=" if "cannot be had" in why else ""
        raise LogError(f"{config.log}: not recomputed: {why}{hint}")
    return 0


def _replay_under(config: ReplayConfig, log: RunLog, arguments: Arguments) -> int:
    from controller.display import console, put_json
    from controller.replay_latency import Rerun, VersionedPolicy, compare, config_of, print_rows
    from controller.replay_trace import constant, read_trace, trace_of

    latency, run = config.latency, config_of(log)
    own = trace_of(log)
    other = own.scaled(latency.scale or 1.0)
    if latency.ms is not None:
        other = constant(latency.ms)
    elif latency.trace is not None:
        other = read_trace(latency.trace)
    find = _finder(config, log)
    found = {version: find(version) for version in sorted(set(log.versions) - {""})}
    policy = VersionedPolicy(log, {v: p for v, p in found.items() if p is not None})
    again = Rerun(log, run, policy, open_twin)
    with tempfile.TemporaryDirectory(prefix="onebeat-replay-") as directory:
        ours = again.under(own, Path(directory) / "own.mcap")
        theirs = again.under(other, Path(latency.out or f"{directory}/other.mcap"))
    known = reference(log.header.task)
    facts = {
        "log": str(log.path),
        "latency": {"log": own.facts(), "other": other.facts()},
        **compare(log, ours, theirs, known, has_success(log.header.task)),
    }
    if arguments.json:
        put_json(facts)
    else:
        print_rows(facts, console())
    return 0


def _finder(config: ReplayConfig, log: RunLog) -> Callable[[str], Policy | None]:
    """Return what finds the policy of a version, None where it is gone."""
    from controller.bundle_search import bundles_of
    from controller.settings import PolicySettings
    from policies.bundle import shipped

    about = msgspec.convert(log.header.config.get("policy", {}), PolicySettings)
    places = bundles_of(log, config.bundles)
    places |= {v: Path(name) for v, name in log.bundles.items() if name in shipped()}

    def find(version: str) -> Policy | None:
        if version not in places:
            return None
        policy = open_policy(str(places[version]), about.engine, "cpu", about.act)
        return policy if policy.version == version else None

    return find
