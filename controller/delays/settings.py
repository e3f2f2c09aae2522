"""Settings of the study of latency."""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.loop_config import LoopConfig
from controller.ranges import Count, Engine, NonNegative, Seed


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way of running one policy.

    Attributes:
        name: what the figure calls it.
        bundle: a bundle, a store of bundles, or the name of one that comes with onebeat.
        act: how actions are chosen, where that is not left to the bundle.
        evaluation_ms: time of each network evaluation, which comes on top of the delay.
        blocking: ask, wait for as long as it takes, command, and ask again, as policy servers
            are mostly used; the plant holds the last command meanwhile, and every row of a
            chunk acts for one period. The settings of the loop do not apply.
        loop: the control loop; its stop does not latch here, so that every episode ends as the
            task says.
    """

    name: str
    bundle: str
    act: ActSettings = AS_BUNDLED
    evaluation_ms: NonNegative = 0.0
    blocking: bool = False
    loop: LoopConfig = LoopConfig()


class DelaysConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Score policies over the delay of their answers, in virtual real time.

    Attributes:
        arms: policies, and ways to run them.
        task: task to score on; null for that of each policy.
        delays_ms: delays of an answer.
        episodes: episodes of each cell.
        seed: of the episodes and of the policy's noise; the same for every cell.
        engine: what computes the actions; this takes no virtual time.
        processes: cells that are computed side by side; null for as many as there are
            processors.
        out: directory of ``delays.json``, ``delays.csv`` and ``delays.png``.
    """

    arms: Annotated[tuple[Arm, ...], msgspec.Meta(min_length=1)] = (
        Arm("one step, hold the rest", "hopper"),
        Arm("blocking", "hopper", blocking=True),
    )
    task: str | None = None
    delays_ms: Annotated[tuple[NonNegative, ...], msgspec.Meta(min_length=1)] = (
        0.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 50.0, 100.0, 200.0,
    )  # fmt: skip
    episodes: Count = 10
    seed: Seed = 100
    engine: Engine = "numpy"
    processes: Count | None = None
    out: str = "runs/delays"

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"arms: {', '.join(sorted(twice))}: each needs a name of its own")
