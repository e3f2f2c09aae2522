"""A logged run once more under another latency, in virtual time.

Plant and policy are those of the log, from the same seeds, in one process, under a virtual clock
that the latency alone moves. Such a run is deterministic: the same trace gives the same commands,
bit for bit. Latency acts through the loop as in real time: an answer that is late is late.

What the machine did to the logged run besides (a late wake-up, a swap of the policy, a person) is
not repeated. So the run is made twice, under the log's own latency and under the other, and the
difference between these two is what the latency does.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from controller.clock import VirtualClock
from controller.delayed import DelayedPolicy
from controller.errors import LogError
from controller.exploring import exploring
from controller.interfaces import Clock, Plant, Policy
from controller.log import McapSink
from controller.log_reader import read_log
from controller.loop import ControlLoop
from controller.replay_trace import LatencyTrace
from controller.run_log import RunLog
from controller.session import header
from controller.settings import RunConfig
from controller.spec import Spec
from controller.stats import Reference, summarise
from controller.types import ActionChunk, Request, Rung

MakePlant = Callable[[RunConfig, Clock], Plant]
"""Makes the plant of a run, which follows a clock."""


@dataclass(frozen=True)
class Rerun:
    """A log and what is needed to run it again.

    Args:
        log: the run.
        config: its settings, without its latency.
        policy: the one that acted.
        make_plant: makes its plant.
    """

    log: RunLog
    config: RunConfig
    policy: Policy
    make_plant: MakePlant

    def under(self, trace: LatencyTrace, out: Path) -> RunLog:
        """Run once under a latency, and return the log, written to ``out``."""
        clock = VirtualClock()
        plant = self.make_plant(self.config, clock)
        slow = DelayedPolicy(self.policy, clock, trace)
        policy = exploring(slow, self.config.policy.explore, self.config.seed)
        about = header(
            self.config,
            plant.spec,
            self.log.bundles,
            {"faults": self.config.plant.faults.facts(), "latency": trace.facts()},
        )
        sink = McapSink(out, about)
        local = self.policy if self.config.policy.local_replica else None
        loop = ControlLoop(
            plant, policy, sink, clock, self.config.loop, seed=self.config.seed, local=local
        )
        try:
            loop.run(ticks=int(self.log.tick[-1]) + 1, episodes=self.config.episodes)
        finally:
            sink.close()
            plant.close()
        return read_log(out)


def config_of(log: RunLog) -> RunConfig:
    """Return the settings to run a log again with.

    Raises:
        LogError: an empty log, or settings that this version does not know.
    """
    if not len(log):
        raise LogError(f"{log.path}: no tick in it, so there is nothing to run again")
    try:
        config = msgspec.convert(log.header.config, RunConfig)
    except msgspec.ValidationError as error:
        raise LogError(
            f"{log.path}: its settings cannot be used to run it again: {error}"
        ) from error
    loop = msgspec.structs.replace(
        config.loop, teleop=type(config.loop.teleop)(blend_s=config.loop.teleop.blend_s)
    )
    policy = msgspec.structs.replace(config.policy, delay_ms=0.0)
    return msgspec.structs.replace(
        config, mode="virtual", loop=loop, policy=policy, seed=log.header.seed, view=False
    )


def action_hash(log: RunLog) -> str:
    """Return a digest of ticks and executed commands: equal where every command is, bit for bit."""
    digest = hashlib.sha256(log.tick.tobytes())
    digest.update(np.ascontiguousarray(log.executed).tobytes())
    return digest.hexdigest()[:16]


def compare(
    log: RunLog, own: RunLog, other: RunLog, reference: Reference | None, has_success: bool
) -> dict[str, Any]:
    """Return how the runs differ.

    Args:
        log: the logged run.
        own: the same in virtual time, under its own latency.
        other: under the other one.
        reference: returns that score 0 and 100.
        has_success: whether the task knows success.

    Returns:
        A row of facts for each run, the difference of the commands of ``own`` and ``other`` at
        equal ticks before the first episode of either is over, and the first such tick at which
        they differ (None for none).
    """
    rows = {
        name: _facts(run, reference, has_success)
        for name, run in (("log", log), ("same latency", own), ("other latency", other))
    }
    before_end = min(_first_end(own), _first_end(other))
    ours, theirs = own.executed[:before_end], other.executed[:before_end]
    length = min(len(ours), len(theirs))
    apart = np.abs(ours[:length].astype(np.float64) - theirs[:length].astype(np.float64))
    apart = apart.reshape(length, -1)
    differs = np.flatnonzero((apart > 0).any(axis=1))
    return {
        "runs": rows,
        "first_difference": int(own.tick[differs[0]]) if len(differs) else None,
        "command_difference_mean": float(apart.mean()) if length else 0.0,
        "command_difference_max": float(apart.max()) if length else 0.0,
        "ticks_compared": length,
    }


def print_rows(facts: dict[str, Any], console: Console) -> None:
    """Print the runs side by side, and how their commands differ."""
    table = Table(title=facts["log"], title_style="bold")
    runs: dict[str, dict[str, Any]] = facts["runs"]
    table.add_column("")
    for name in runs:
        table.add_column(name, justify="right")
    for key in next(iter(runs.values())):
        table.add_row(key.replace("_", " "), *(_cell(run[key]) for run in runs.values()))
    first = facts["first_difference"]
    table.caption = (
        "every command is the same"
        if first is None
        else f"commands of the two reruns differ from tick {first} on, within the first episode by "
        f"{facts['command_difference_mean']:.3g} in the mean and "
        f"{facts['command_difference_max']:.3g} at most"
    )
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)


def _facts(run: RunLog, reference: Reference | None, has_success: bool) -> dict[str, Any]:
    report = summarise(run, reference, has_success=has_success)
    answered = run.rtt_ns[np.isin(run.rung, (Rung.FRESH, Rung.TAIL))] / 1e6
    return {
        "return": report.return_,
        "score": report.score,
        "success": report.success,
        "episodes": report.episodes,
        "ticks": report.ticks,
        "rungs": {k: v for k, v in msgspec.to_builtins(report.rungs).items() if v},
        "latency_p50_ms": round(float(np.median(answered)), 3) if len(answered) else None,
        "action_hash": action_hash(run),
    }


def _first_end(run: RunLog) -> int:
    ends = np.flatnonzero(run.done)
    return int(ends[0]) if len(ends) else len(run)


class VersionedPolicy:
    """The policy versions of a log, each for the ticks at which it acted.

    Args:
        log: the run.
        policies: by version; those that are missing are left to the version before.

    Raises:
        LogError: none is there.
    """

    def __init__(self, log: RunLog, policies: dict[str, Policy]) -> None:
        changes: list[tuple[int, str]] = []
        for tick, version in zip(log.answer_tick.tolist(), log.versions, strict=True):
            if version in policies and (not changes or changes[-1][1] != version):
                changes.append((tick, version))
        if not changes:
            wanted = ", ".join(sorted(set(log.versions) - {""})) or "none acted"
            raise LogError(
                f"{log.path}: no policy to run it with ({wanted}); name a store: bundles="
            )
        self._ticks: Sequence[int] = [tick for tick, _ in changes]
        self._policies = [policies[version] for _, version in changes]

    @property
    def spec(self) -> Spec:
        """The robot."""
        return self._policies[0].spec

    @property
    def version(self) -> str:
        """The first version."""
        return self._policies[0].version

    def infer(self, request: Request) -> ActionChunk | None:
        """Ask the version that acted at the request's tick."""
        index = bisect_right(self._ticks, request.tick) - 1
        return self._policies[max(0, index)].infer(request)

    def close(self) -> None:
        """Release the policies; safe to call twice."""
        for policy in self._policies:
            policy.close()
