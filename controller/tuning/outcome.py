"""What came of a live fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.errors import LogError
from controller.log_reader import read_log
from controller.tuning.settings import LivePlan
from controller.tuning.watch import Seen

Publication = tuple[str, int]
"""A version and the monotonic nanosecond at which the servers were asked to take it up."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a live fine-tuning: ``OUT/result.json``.

    Attributes:
        before: ``version`` and figures of the first version over the closing episodes in
            simulation; ``score_mean`` is null where none were played.
        after: the same of the version in force at the end.
        updates: of the critics.
        env_steps: rows of all actors.
        episodes: complete ones.
        versions: that were in force, in order, the first one included.
        ticks: of the loops in real time; rows of actors in lockstep.
        missed: ticks of the loops that were missed.
        publish_to_action_ms_p50: median time from the asking of the policy server to the first
            command of the new version at the robot; null without one, and in lockstep.
        publish_to_action_ms_max: the longest.
        rejected_versions: candidates that the gate refused.
        rolled_back: times that a version was taken back.
        learner: ``diverged`` or otherwise given up, or null; the newest figures.
        staleness: publications between the version of a drawn row and the one in force: p50, p95.
        samples_per_insert: rows drawn for each row that came in, ``measured`` and ``target``.
        deaths: how often each process died.
        ended: what ended the run.
        seconds: from the first row on.
        out: directory of the fine-tuning.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    updates: int
    env_steps: int
    episodes: int
    versions: list[str]
    ticks: int
    missed: int
    publish_to_action_ms_p50: float | None
    publish_to_action_ms_max: float | None
    rejected_versions: int
    rolled_back: int
    learner: dict[str, Any]
    staleness: dict[str, int | None]
    samples_per_insert: dict[str, Any]
    deaths: dict[str, int]
    ended: str
    seconds: float
    out: str

    def write(self) -> None:
        """Write ``OUT/result.json``."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (Path(self.out) / "result.json").write_bytes(text + b"\n")


def publish_to_action_ms(plan: LivePlan, publications: Sequence[Publication]) -> list[float]:
    """Return the times from each publication to the first command of its version, by actor.

    A version that was followed by another before it acted has none.

    Args:
        plan: of the fine-tuning; its logs are read.
        publications: oldest first.
    """
    if not plan.realtime or not publications:
        return []
    found: list[float] = []
    for index in range(plan.num_actors):
        try:
            log = read_log(plan.actor_out(index) / "log.mcap")
        except (LogError, OSError):
            continue
        found += _delays_ms(np.array(log.versions), log.sent_ns, publications)
    return found


def _delays_ms(
    versions: np.ndarray[Any, Any],
    sent_ns: np.ndarray[Any, Any],
    publications: Sequence[Publication],
) -> list[float]:
    ends = [at_ns for _, at_ns in publications[1:]] + [np.iinfo(np.int64).max]
    delays: list[float] = []
    for (version, at_ns), end_ns in zip(publications, ends, strict=True):
        first, last = np.searchsorted(sent_ns, (at_ns, end_ns))
        acted = np.flatnonzero(versions[first:last] == version)
        if len(acted):
            delays.append((int(sent_ns[first + acted[0]]) - at_ns) / 1e6)
    return delays


def staleness(seen: Seen) -> dict[str, int | None]:
    """Return the quantiles of the rows' staleness."""
    return {name: seen.stats.get(f"staleness_{name}") for name in ("p50", "p95")}
