"""Settings of chunks of actions: when to ask for them, and how one follows another."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.ranges import Count

Rows = Annotated[int, msgspec.Meta(ge=0, le=1024)]


class ChunkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the loop uses answers of several rows, one per control period.

    Attributes:
        ask: each_tick (every tick asks for its own observation, and waits for the answer) or
            ahead (requests go out before their rows are needed, and no tick waits; for policies
            that answer with more rows than an answer takes ticks).
        replan_every: ticks from one request to the next; null for half the rows of a chunk.
            ask=ahead.
        lead: rows left at which the next request goes out sooner; null for the expected delay
            and one. ask=ahead.
        prefix: most rows that a request commits to, for policies that continue them (real-time
            chunking): those due before the answer is expected. 0 for none. ask=ahead.
        blend: rows over which a new chunk fades in where it takes over from the old one; 0
            switches at once. ask=ahead.
        blend_exclude: action elements, by name or number, that are switched and never faded,
            such as a gripper.
    """

    ask: Literal["each_tick", "ahead"] = "each_tick"
    replan_every: Count | None = None
    lead: Rows | None = None
    prefix: Rows = 0
    blend: Rows = 0
    blend_exclude: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        if self.ask == "each_tick":
            for name in ("replan_every", "lead", "prefix", "blend"):
                if getattr(self, name):
                    raise ValueError(f"{name} is for asking ahead: it needs ask=ahead")


class FallbackSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long each rung of the fallback ladder may act before the next one does.

    Attributes:
        tail_ticks: rows of a chunk beyond those it was asked for that may be used for want of
            a newer chunk; null for all there are, 0 for none.
        local_ticks: ticks in a row that the local replica may act; null for any number, 0 for
            none.
        hold: command when nothing acts: safe (the safe command at once), ramp (from the last
            command to the safe one over ``ramp_s``, within the safety limits) or last (the last
            command, for robots that are sent positions).
        ramp_s: length of that ramp, also of the one to the latched stop.
    """

    tail_ticks: Rows | None = None
    local_ticks: Annotated[int, msgspec.Meta(ge=0)] | None = None
    hold: Literal["safe", "ramp", "last"] = "safe"
    ramp_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
