"""Rows and plans made by hand."""

from __future__ import annotations

import msgspec

from controller.config import load
from policies.reproduction.online_results import OnlineRow, Point
from policies.reproduction.online_settings import OnlinePlan
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


POINT = Point(
    task="maze",
    arm="robust",
    steps=300,
    seed=0,
    env_steps=100,
    wall_s=12.5,
    updates=90,
    version="v0002-00000000",
    return_mean=10.0,
    return_std=2.0,
    score_mean=40.0,
    success=0.5,
    training_return_mean=None,
)

ONLINE_ROW = OnlineRow(
    task="maze",
    arm="robust",
    steps=300,
    seed=0,
    settings="preset=robust",
    published="",
    column="",
    env_steps=300,
    updates=290,
    wall_s=60.0,
    score_before=40.0,
    score_after=50.0,
    return_before=100.0,
    return_after=130.0,
    success_before=0.5,
    success_after=0.75,
    versions=3,
    rejected=1,
    rolled_back=0,
    learner="",
    machine=MACHINE,
    commit="abc1234",
)


def point(**changes: object) -> Point:
    """Return the point with changes."""
    return msgspec.structs.replace(POINT, **changes)


def online_row(**changes: object) -> OnlineRow:
    """Return the row of a live fine-tuning with changes."""
    return msgspec.structs.replace(ONLINE_ROW, **changes)


def online_plan(**changes: object) -> OnlinePlan:
    """Return a small plan of live fine-tunings with changes."""
    base: dict[str, object] = {
        "steps": 300,
        "seeds": [0, 1],
        "parents": {"cac": ["algorithm=consistency_ac", "optimiser.steps=4"]},
        "tasks": {
            "maze": {
                "task": "pointmaze-medium",
                "train": ["observation=[observation, desired_goal]"],
                "settings": ["gate.every=7"],
            },
            "hop": {"task": "hopper"},
        },
        "settings": ["evaluate_episodes=2"],
        "arms": {
            "robust": {"parent": "cac", "offline": True, "settings": ["preset=robust"]},
            "sac": {"settings": ["learn.algorithm=sac"]},
        },
    }
    tree = base | changes
    return load(OnlinePlan, None, [f"{key}={_flow(value)}" for key, value in tree.items()])


def _flow(value: object) -> str:
    return msgspec.json.encode(value).decode()
