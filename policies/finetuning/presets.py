"""Presets of fine-tuning: ``robust`` for real use, ``paper`` for Ding & Jin's online form.

Where each number comes from stands in docs/algorithms.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.errors import ConfigError
from policies.presets import AVERAGE, CANDIDATES, NEWEST, TASKS, Row, known

Tree = dict[str, Any]

PAPER_STEPS = 5
"""Network evaluations behind an action: the online code's, in training and acting."""
PAPER_ACTORS, PAPER_TRAIN_EVERY = 3, 4
"""Robots side by side, and their common steps for each update."""
PAPER_GATE = 25
"""Updates between two versions: 300 environment steps."""
DECAY_STEPS, DECAY_SHARE = 100_000, 0.1
"""Environment steps of the decay of epsilon where the number of steps is not set, and its share
of them where it is."""
SAC_STEPS = 5_000
"""Environment steps of evenly drawn actions with which sac begins from scratch."""
SAC_GATE = 250
RATE = 3e-4


def beneath(tree: Mapping[str, Any]) -> Tree:
    """Return the settings over which what was written is laid.

    Raises:
        ConfigError: ``paper`` of an algorithm that the paper does not have.
    """
    algorithm = _group(tree, "learn").get("algorithm")
    if tree.get("preset", "robust") == "paper":
        if algorithm == "sac":
            raise ConfigError(
                "preset paper: is of the paper's algorithms, got learn.algorithm=sac; valid: "
                "consistency_ac, diffusion_ql, or preset=robust"
            )
        return _paper(tree)
    return _sac(tree) if algorithm == "sac" else _robust(tree)


def _group(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, Mapping) else {}


def _robust(tree: Mapping[str, Any]) -> Tree:
    """Return what keeps a policy at work as good as it is while it gets better."""
    del tree
    return {
        "learn": {
            "offline_share": 0.5,
            "updates_per_step": 1.0,
            "warmup_steps": 1_000,
            "critic_updates": 5_000,
            "actor_rate": 3e-5,
            "critic_rate": RATE,
            "imitation": 0.5,
            "eta": 0.1,
            "q_loss": "mean",
            "critic": _ensemble(4),
            "subset": 2,
            "slow": {"decay": 0.995},
            "served": {"decay": 0.995},
            "grad_clip": 1.0,
        },
        "act": {"candidates": 1},
    }


def _paper(tree: Mapping[str, Any]) -> Tree:
    """Return Ding & Jin's online form, as their code has it."""
    row = _row(tree)
    return {
        "learn": {
            "offline_share": 0.0,
            "updates_per_step": 1 / (PAPER_ACTORS * PAPER_TRAIN_EVERY),
            "warmup_steps": 0,
            "critic_updates": 0,
            "actor_rate": 1e-5,
            "critic_rate": RATE,
            "imitation": 0.0,
            "eta": 1.0,
            "q_loss": "coin",
            "steps": PAPER_STEPS,
            "critic": None,
            "value": {"max_q": 10 if row is not None and row.max_q else 1},
            "subset": 0,
            "slow": AVERAGE,
            "served": NEWEST,
            "grad_clip": None if row is None else row.guide_clip,
        },
        "act": {"steps": PAPER_STEPS, "candidates": CANDIDATES, "select": "softmax"},
        "explore": {"start": 1.0, "end": 0.01, "decay": _decay(tree)},
        "replay": {"capacity": 100_000},
        "gate": {"on": False, "every": PAPER_GATE},
    }


def _sac(tree: Mapping[str, Any]) -> Tree:
    """Return SAC, or RLPD where there are offline data."""
    offline, fresh = tree.get("offline") is not None, tree.get("parent") is None
    begun = {"hold": _each(tree, SAC_STEPS), "start": 1.0, "end": 0.0} if fresh else {}
    several = offline or not fresh
    return {
        "learn": {
            "offline_share": 0.5 if offline else 0.0,
            "updates_per_step": 1.0,
            "warmup_steps": SAC_STEPS if fresh else 1_000,
            "critic_updates": 0 if fresh else 5_000,
            "actor_rate": RATE,
            "critic_rate": RATE,
            "critic": _ensemble(10) if several else _ensemble(2) | {"layer_norm": False},
            "subset": 2 if several else 0,
            "served": NEWEST,
            "grad_clip": None,
            "network": {"hidden": [256, 256]},
        },
        "act": {"temperature": 1.0},
        "explore": begun,
        "gate": {"on": not fresh, "every": SAC_GATE if fresh else 1_000},
    }


def _ensemble(count: int) -> Tree:
    return {"count": count, "hidden": [256, 256], "activation": "relu", "layer_norm": True}


def _row(tree: Mapping[str, Any]) -> Row | None:
    """Return the paper's settings of the task, None where it does not have it."""
    names = (tree.get(key) for key in ("task", "offline", "parent"))
    task = next(filter(None, (known(name) for name in names if isinstance(name, str))), None)
    return TASKS[task] if task else None


def _decay(tree: Mapping[str, Any]) -> int:
    steps = _number(tree.get("steps"))
    return _each(tree, DECAY_SHARE * steps if steps else DECAY_STEPS)


def _each(tree: Mapping[str, Any], steps: float) -> int:
    """Return the ticks of one actor in environment steps of all of them."""
    return max(1, round(steps / (_number(tree.get("num_actors")) or 1)))


def _number(value: object) -> float:
    """Return what was written for a count; 0 for none, or for what is refused later."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value >= 1
    return float(value) if usable else 0.0  # type: ignore[arg-type]
