"""Rows and plans made by hand."""

from __future__ import annotations

import msgspec

from policies.reproduction.results import Row
from policies.reproduction.settings import ReproduceConfig

MACHINE = "Processor, 2 cores"

ROW = Row(
    dataset="hopper-medium-expert-regen",
    algorithm="consistency_ac",
    variant="",
    preset="released",
    updates=50_000,
    seed=0,
    settings="optimiser.steps=50000",
    data="0123456789abcdef",
    rows=1_998_966,
    task="hopper",
    episodes=100,
    episodes_seed=100,
    selection="last",
    score=90.0,
    score_low=85.5,
    score_high=94.5,
    return_mean=2900.0,
    success=None,
    length_mean=880.25,
    calls=2,
    candidates=50,
    select="softmax",
    updates_per_s=40.0,
    ms_per_update=25.0,
    side_by_side=1,
    trained_on=MACHINE,
    action_us=60.0,
    action_us_50=900.0,
    scored_on=MACHINE,
    version="v0001-00000000",
    commit="abc1234",
)


def row(**changes: object) -> Row:
    """Return the row with changes."""
    return msgspec.structs.replace(ROW, **changes)


def plan(**changes: object) -> ReproduceConfig:
    """Return a small plan with changes."""
    base = {
        "datasets": ("hopper-medium-expert-regen", "kitchen-complete-v0"),
        "algorithms": ("consistency_bc", "consistency_ac"),
        "seeds": (0, 1),
        "settings": ("optimiser.steps=30", "log_every=10"),
    }
    return ReproduceConfig(**(base | changes))
